"""A penalty in slices of the batch."""

from __future__ import annotations

import copy
import functools

import by_keyword
import pytest
import torch
import torch.nn.functional as F
from critics import SpectralResNet, StyleGan2, dcgan, patchgan
from penalty_oracle import assert_penalty, samples, small_critic
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils import spectral_norm as old_spectral_norm
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.checkpoint import checkpoint

import ganloss_fast as gf
from ganloss_fast.bench.memory import peak_memory


@pytest.mark.parametrize("chunk_size", [1, 3, 8])
@pytest.mark.parametrize("options", [{}, {"reduction": "sum"}, {"norm": "channel"}], ids=str)
def test_chunks_equal_the_whole_to_rounding(chunk_size, options):
    critic = small_critic()
    x, _ = samples(batch=8)
    mask = torch.rand(8, 1, 8, 8)
    options = {"at": "real", "mask": mask, "normalize_by_mask": True, **options}
    actual = by_keyword.gradient_penalty(critic, x, chunk_size=chunk_size, **options)
    assert_penalty(actual, by_keyword.gradient_penalty(critic, x, **options), critic, 3e-6)


@pytest.mark.parametrize("chunk_size", [1, 2, 3, 8])
@pytest.mark.parametrize("options", [{}, {"output_weights": [2.0, -1.0]}], ids=str)
def test_a_mean_over_logits_is_that_of_the_whole_batch(chunk_size, options):
    critic = small_critic()
    x, _ = samples(batch=8)
    run = (lambda z: [critic(z), critic[:2](z)]) if options else critic
    options = {"logit_reduction": "mean", **options}
    actual = by_keyword.r1_penalty(run, x, chunk_size=chunk_size, **options)
    assert_penalty(actual, by_keyword.r1_penalty(run, x, **options), critic, 3e-6)


@pytest.mark.parametrize("shape", [(8, 8), (8,), (1, 1, 8, 8), (8, 1, 1, 1), (8, 3, 8, 8)], ids=str)
@pytest.mark.parametrize("chunk_size", [1, 2])
def test_a_mask_is_sliced_as_it_broadcasts(shape, chunk_size):
    """[8, 8] is height and width, even where the batch is 8 too."""
    critic = small_critic()
    x, _ = samples(batch=8)
    mask = torch.rand(shape) > 0.3
    for normalize in (False, True):
        options = {"mask": mask, "normalize_by_mask": normalize, "at": "real"}
        actual = by_keyword.gradient_penalty(critic, x, chunk_size=chunk_size, **options)
        assert_penalty(actual, by_keyword.gradient_penalty(critic, x, **options), critic, 3e-6)


def test_masks_of_several_inputs_are_sliced():
    linear = nn.Linear(5, 1)
    critic = lambda a, b: linear(torch.cat([a, b], 1)).tanh()  # noqa: E731
    points = torch.randn(4, 3), torch.randn(4, 2)
    options = {"at": "real", "mask": [None, torch.rand(4, 1)]}
    actual = by_keyword.gradient_penalty(critic, points, chunk_size=3, **options)
    assert_penalty(actual, by_keyword.gradient_penalty(critic, points, **options), linear, 3e-6)


def test_chunks_take_labels_and_scale_with_the_incoming_gradient():
    critic = SpectralResNet(8, 16, classes=5).eval()
    x, labels = torch.randn(4, 3, 16, 16), torch.tensor([0, 4, 2, 1])
    grads = []
    for chunk_size in (None, 2):
        critic.zero_grad()
        penalty = gf.r1_penalty(
            critic, x, critic_args=(labels,), how=gf.Differentiation(chunk_size=chunk_size)
        )
        (3 * penalty).backward()
        grads.append([p.grad for p in critic.parameters()])
    for a, b in zip(*grads, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: {"e": [v]}], ids=["plain", "nested"])
@pytest.mark.parametrize("by_name", [False, True])
def test_an_argument_with_a_graph_gets_its_gradient(wrap, by_name):
    embedding, critic = nn.Embedding(5, 3), small_critic()
    x, _ = samples()
    labels = torch.tensor([0, 4, 2, 2])

    def run(z, condition):
        condition = condition["e"][0] if isinstance(condition, dict) else condition
        return critic(z * condition[:, :, None, None])

    both = nn.ModuleList([embedding, critic])
    results = []
    for chunk_size in (None, 1, 3):
        argument = wrap(embedding(labels))
        how = {"critic_args": {"condition": argument}} if by_name else {"critic_args": [argument]}
        results.append(by_keyword.r1_penalty(run, x, chunk_size=chunk_size, **how))
    grads = [torch.autograd.grad(r, [*both.parameters()], allow_unused=True) for r in results]
    for chunked in grads[1:]:
        for a, b in zip(chunked, grads[0], strict=True):
            assert (a is None) == (b is None)
            assert a is None or torch.allclose(a, b, rtol=1e-5, atol=1e-8)


def test_slices_may_share_a_graph():
    critic = nn.Sequential(weight_norm(nn.Conv2d(3, 4, 3)), nn.Tanh(), nn.Conv2d(4, 1, 3))
    x, _ = samples()
    wanted = gf.r1_penalty(critic, x)
    with parametrize.cached():
        actual = gf.r1_penalty(critic, x, how=gf.Differentiation(chunk_size=1))
    assert_penalty(actual, wanted, critic, 3e-6)


def test_a_table_as_long_as_the_batch_is_not_sliced_in_silence():
    critic = small_critic()
    x, _ = samples()
    table, labels = torch.rand(4, 3), torch.tensor([1, 0, 1, 3])
    run = lambda z, table, labels: critic(z * table[labels][:, :, None, None])  # noqa: E731
    call, no_labels = (gf.Call(run, (table,), {"labels": given}) for given in (labels, 3))
    with pytest.raises(ValueError, match=r"batch_args: critic_args\[0\], critic_args\['labels'\]"):
        gf.r1_penalty(call, x, how=gf.Differentiation(chunk_size=2))
    with pytest.raises(
        ValueError, match=r"does not run on 2 of the samples alone .*batch_args: critic_args"
    ):
        gf.r1_penalty(no_labels, x, how=gf.Differentiation(chunk_size=2))
    how = gf.Differentiation(chunk_size=2, batch_args=["labels"])
    assert_penalty(gf.r1_penalty(call, x, how=how), gf.r1_penalty(call, x), critic, 3e-6)


@pytest.mark.parametrize(
    ("batch_args", "error", "message"),
    [
        ("labels", TypeError, "expected a tuple of positions"),
        ([1], ValueError, "1 is neither a position"),
        (["label"], ValueError, "'label' is neither a position"),
        ([0], ValueError, r"one row for each of the 4 samples in critic_args\[0\], got a tensor"),
    ],
)
def test_wrong_batch_args_are_explained(batch_args, error, message):
    call = gf.Call(lambda z, a, labels: z, (torch.ones(3),), {"labels": None})
    with pytest.raises(error, match=f"batch_args: .*{message}"):
        by_keyword.r1_penalty(call, samples()[0], chunk_size=2, batch_args=batch_args)


class OldSpectral(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = old_spectral_norm(nn.Conv2d(3, 4, 3))
        self.last = old_spectral_norm(nn.Conv2d(4, 1, 3))

    def forward(self, x):
        return self.last(F.leaky_relu(self.conv(x), 0.2))


FORMS = {
    "module": lambda critic: critic,
    "lambda": lambda critic: lambda x: critic(x),
    "bound method": lambda critic: critic.forward,
    "partial": lambda critic: functools.partial(critic),
    "checkpoint": lambda critic: lambda x: checkpoint(critic, x, use_reentrant=False),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("make", [lambda: SpectralResNet(8, 16), OldSpectral], ids=["new", "old"])
@pytest.mark.parametrize("chunk_size", [1, 3])
def test_chunks_see_the_spectral_norm_of_one_forward(form, make, chunk_size):
    """The power iteration runs once per forward: four times would be another critic, and a
    checkpoint that ran it again would differentiate another one than it evaluated."""
    torch.manual_seed(0)
    critic = make()
    whole = copy.deepcopy(critic)
    x = torch.randn(4, 3, 16, 16)
    gf.r1_penalty(FORMS[form](critic), x, how=gf.Differentiation(chunk_size=chunk_size)).backward()
    gf.r1_penalty(whole, x).backward()
    for (name, a), b in zip(critic.named_parameters(), whole.parameters(), strict=True):
        assert (a.grad is None) == (b.grad is None), name
        assert a.grad is None or torch.allclose(a.grad, b.grad, rtol=1e-4, atol=1e-7), name
    for a, b in zip(critic.buffers(), whole.buffers(), strict=True):
        assert torch.equal(a, b)
    assert all(module.training for module in critic.modules())


class WithBuffer(nn.Module):
    """Saves a buffer for its backward; dropout draws."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("gain", torch.full((4, 1, 1), 2.0))

    def forward(self, x):
        return F.dropout(self.conv(x).tanh() * self.gain, 0.5)


def test_the_probe_leaves_no_trace():
    """In a graph built before: a saved buffer; in the random numbers and .grad: nothing."""
    critic = WithBuffer()
    x, _ = samples()
    main = critic(x).mean()
    values = []
    for _ in range(3):  # the third call asks nothing
        torch.manual_seed(3)
        values.append(gf.r1_penalty(critic, x, how=gf.Differentiation(chunk_size=2)))
        assert all(p.grad is None for p in critic.parameters())
    (main + values[0]).backward()
    assert torch.equal(values[0], values[2])
    assert torch.equal(values[1], values[2])
    torch.manual_seed(3)
    whole = gf.r1_penalty(critic, x, how=gf.Differentiation(chunk_size=4))
    torch.manual_seed(3)
    assert torch.allclose(whole, gf.r1_penalty(critic, x), rtol=1e-6)


def test_chunks_work_with_a_checkpointed_critic():
    critic = small_critic()
    x, _ = samples()
    run = lambda z: checkpoint(critic, z, use_reentrant=False)  # noqa: E731
    wanted = gf.r1_penalty(critic, x)
    assert_penalty(
        gf.r1_penalty(run, x, how=gf.Differentiation(chunk_size=2)), wanted, critic, 3e-6
    )


def test_chunks_reach_a_generator_that_was_not_detached():
    generator, critic = nn.Linear(3, 3), nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    z = torch.randn(4, 3)
    grads = []
    for chunk_size in (None, 2):
        generator.zero_grad()
        gf.r2_penalty(
            critic, generator(z), how=gf.Differentiation(chunk_size=chunk_size)
        ).backward()
        grads.append(generator.weight.grad)
    assert torch.allclose(*grads, rtol=1e-5)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_an_eighth_of_the_batch_needs_a_quarter_of_the_memory(checkpointed):
    critic = dcgan(8, 64)
    run = FORMS["checkpoint" if checkpointed else "module"](critic)
    x = torch.randn(16, 3, 64, 64)

    def step(function, chunk_size):
        critic.zero_grad()
        gf.r1_penalty(function, x, how=gf.Differentiation(chunk_size=chunk_size)).backward()

    step(run, 2)  # the probe, and the first use of everything
    whole = peak_memory(lambda: step(critic, None))
    assert peak_memory(lambda: step(run, 2)) <= whole / 4


class Interacting(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        h = self.conv(x)
        return h * (1 + (h - h.mean(0)).square())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("chunk_size", [1, 2])
@pytest.mark.parametrize(
    "make",
    [
        lambda: patchgan(4, nn.BatchNorm2d),
        lambda: StyleGan2(4, 16, group=2),
        Interacting,
        lambda: nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)
        ).eval(),
    ],
    ids=["batch norm", "mini-batch standard deviation", "own", "batch norm without statistics"],
)
def test_chunks_refuse_critics_whose_samples_interact(make, form, chunk_size):
    critic = make()
    before = copy.deepcopy(critic.state_dict())
    with pytest.raises(ValueError, match="samples of this critic interact"):
        gf.r1_penalty(
            FORMS[form](critic),
            torch.randn(4, 3, 16, 16),
            how=gf.Differentiation(chunk_size=chunk_size),
        )
    for name, value in critic.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("form", FORMS)
def test_batch_norm_is_refused_also_after_it_was_seen_in_evaluation(form):
    critic = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh())
    run = FORMS[form](critic)
    critic.eval()
    gf.r1_penalty(run, samples()[0], how=gf.Differentiation(chunk_size=2))
    critic.train()
    with pytest.raises(ValueError, match="samples of this critic interact"):
        gf.r1_penalty(run, samples()[0], how=gf.Differentiation(chunk_size=2))


@pytest.mark.parametrize("output", [lambda h: h.mean(), lambda h: h.sum()], ids=["mean", "sum"])
@pytest.mark.parametrize("chunk_size", [1, 2])
def test_chunks_refuse_outputs_that_join_the_samples(output, chunk_size):
    critic = small_critic()
    with pytest.raises(ValueError, match="chunk_size: the critic returns a 0-d output"):
        gf.r1_penalty(
            lambda x: output(critic(x)), samples()[0], how=gf.Differentiation(chunk_size=chunk_size)
        )


@pytest.mark.parametrize("form", FORMS)
def test_chunks_refuse_buffers_that_move(form):
    critic = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4, track_running_stats=True), nn.Conv2d(4, 1, 3)
    )
    with pytest.raises(
        ValueError, match=r"buffers of the critic change .*InstanceNorm2d.running_mean"
    ):
        gf.r1_penalty(
            FORMS[form](critic), torch.randn(4, 3, 8, 8), how=gf.Differentiation(chunk_size=2)
        )
    assert not critic[1].running_mean.any()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"chunk_size": 0}, ValueError, "at least 1"),
        ({"chunk_size": 2.0}, TypeError, "an integer"),
        ({"chunk_size": 2, "reduction": "max"}, ValueError, "slices can be added up"),
        ({"chunk_size": 2, "norm": "batch"}, ValueError, "slices can be added up"),
    ],
)
def test_chunks_refuse_what_slices_cannot_give(options, error, message):
    with pytest.raises(error, match=f"chunk_size: .*{message}"):
        by_keyword.gradient_penalty(small_critic(), samples()[0], at="real", **options)
