"""Which critics a penalty in slices refuses, as their samples interact, and which it takes."""

from __future__ import annotations

import by_keyword
import pytest
import torch
import torch.nn.functional as F
from penalty_oracle import assert_penalty
from torch import nn

import ganloss_fast as gf
from ganloss_fast.penalties.critic import modules


class Joined(nn.Module):
    """A gate, at zero, on something of the whole batch."""

    def __init__(self, of_batch, gate=0.0, head=None):
        super().__init__()
        self.first, self.head = nn.Linear(4, 6), nn.Linear(6, 1)
        self.gate = nn.Parameter(torch.tensor(gate))
        self.of_batch = of_batch
        if head is not None:
            nn.init.constant_(self.head.weight, head)

    def forward(self, x):
        h = F.leaky_relu(self.first(x))
        return self.head(h + self.gate * self.of_batch(h))


INTERACTIONS = {
    "mean": lambda h: h - h.mean(0),
    "detached mean": lambda h: h - h.mean(0).detach(),
    "deviation": lambda h: h.std(0).expand_as(h),
    "roll": lambda h: h.roll(1, 0),
    "flip": lambda h: h.flip(0),
    "attention": lambda h: (h @ h.T).softmax(1) @ h,
    "batch size": lambda h: h / len(h),
    "maximum": lambda h: h.amax(0).expand_as(h),
    "place": lambda h: h * torch.arange(1.0, 9.0, dtype=h.dtype)[: len(h), None],
}


@pytest.mark.parametrize("name", INTERACTIONS)
@pytest.mark.parametrize("chunk_size", [2, 3, 4])
def test_an_interaction_is_refused_at_the_first_call(name, chunk_size):
    critic = Joined(INTERACTIONS[name], gate=1.0).double()
    with pytest.raises(ValueError, match="samples of this critic interact"):
        gf.r1_penalty(
            critic,
            torch.randn(8, 4, dtype=torch.float64),
            how=gf.Differentiation(chunk_size=chunk_size),
        )


@pytest.mark.parametrize("name", ["mean", "roll", "flip", "attention", "maximum"])
def test_a_gate_at_zero_does_not_hide_it(name):
    critic = Joined(INTERACTIONS[name]).double()
    with pytest.raises(ValueError, match="samples of this critic interact"):
        gf.r1_penalty(
            critic, torch.randn(8, 4, dtype=torch.float64), how=gf.Differentiation(chunk_size=4)
        )


def test_what_was_not_to_be_seen_is_asked_again():
    critic = Joined(INTERACTIONS["mean"], gate=0.0, head=0.0).double()
    x = torch.randn(8, 4, dtype=torch.float64)
    for _ in range(3):
        assert gf.r1_penalty(critic, x, how=gf.Differentiation(chunk_size=4)) == 0
    with torch.no_grad():
        critic.gate.fill_(1.0)
        critic.head.weight.normal_()
    with pytest.raises(ValueError, match="samples of this critic interact"):
        gf.r1_penalty(critic, x, how=gf.Differentiation(chunk_size=4))


@pytest.mark.parametrize("wrap", [lambda c: c, lambda c: lambda x: c(x), lambda c: c.forward])
def test_a_module_that_was_swapped_is_asked_again(wrap):
    critic = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))
    run, x = wrap(critic), torch.randn(8, 4)
    for _ in range(4):
        gf.r1_penalty(run, x, how=gf.Differentiation(chunk_size=4))
    critic[1] = Joined(INTERACTIONS["mean"], 1.0)
    critic[1].first, critic[1].head = nn.Identity(), nn.Identity()
    with pytest.raises(ValueError, match="samples of this critic interact"):
        gf.r1_penalty(run, x, how=gf.Differentiation(chunk_size=4))


@pytest.mark.parametrize("chunk_size", [1, 2, 3])
def test_labels_that_a_closure_takes_by_place_are_refused(chunk_size):
    table, labels = nn.Embedding(5, 4).double(), torch.tensor([0, 1, 2, 3, 4, 0, 1, 2])
    critic = lambda x: (table(labels[: len(x)]) * x).sum(1)  # noqa: E731
    x = torch.randn(8, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match="pass them as critic_args"):
        gf.r1_penalty(critic, x, how=gf.Differentiation(chunk_size=chunk_size))
    given = lambda x, labels: (table(labels) * x).sum(1)  # noqa: E731
    actual = gf.r1_penalty(
        given, x, critic_args=(labels,), how=gf.Differentiation(chunk_size=chunk_size)
    )
    assert_penalty(actual, gf.r1_penalty(critic, x), table, 1e-12)


@pytest.mark.parametrize("requires_grad", [False, True])
def test_a_critic_without_parameters(requires_grad):
    x = torch.randn(8, 4, dtype=torch.float64, requires_grad=requires_grad)
    critic = lambda z: z.square().sum(1)  # noqa: E731
    actual = gf.r1_penalty(critic, x, how=gf.Differentiation(chunk_size=3))
    torch.testing.assert_close(actual.detach(), 20 * x.detach().square().sum(1).mean())


TAKEN = {
    "plain": lambda h: h,
    "per sample": lambda h: h - h.mean(1, keepdim=True),
    "dropout": lambda h: F.dropout(h, 0.5),
    "normalised": lambda h: F.layer_norm(h, (6,)),
    "dead": lambda h: h.clamp(max=-100.0),
}


@pytest.mark.parametrize("name", TAKEN)
def test_independent_samples_are_taken_at_every_call(name):
    critic = Joined(TAKEN[name], 1.0).double()
    x = torch.randn(8, 4, dtype=torch.float64)
    for _ in range(9):
        actual = gf.r1_penalty(critic, x, how=gf.Differentiation(chunk_size=3))
        if name != "dropout":
            assert_penalty(actual, gf.r1_penalty(critic, x), critic, 1e-12)


@pytest.mark.parametrize(
    "arrange",
    [lambda y: y.T, lambda y: y.reshape(-1), lambda y: torch.cat([y, -y]), lambda y: y[:, None]],
    ids=["logits first", "flat", "two heads", "one more axis"],
)
def test_several_logits_for_a_sample_are_taken_in_any_arrangement(arrange):
    linear = nn.Linear(4, 3).double()
    x = torch.randn(8, 4, dtype=torch.float64)
    critic = lambda z: arrange(linear(z).tanh())  # noqa: E731
    actual = gf.r1_penalty(critic, x, how=gf.Differentiation(chunk_size=4))
    assert_penalty(actual, gf.r1_penalty(critic, x), linear, 1e-12)


class OwnError(Exception):
    pass


@pytest.mark.parametrize("error", [AssertionError, KeyError, TypeError, OwnError])
def test_what_a_critic_raises_on_few_samples_is_explained(error):
    def critic(x):
        if len(x) != 8:
            raise error("eight")
        return x.sum(1)

    with pytest.raises(ValueError, match=f"does not run on 4 of the samples.*{error.__name__}"):
        gf.r1_penalty(critic, torch.randn(8, 4), how=gf.Differentiation(chunk_size=4))


def test_the_approximated_penalty_of_a_compiled_critic_is_right_in_slices():
    critic = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    x = torch.randn(8, 4, dtype=torch.float64)
    options = {"seed": torch.tensor(3), "sigma": 0.1}
    compiled = torch.compile(critic, backend="aot_eager")
    for _ in range(2):
        actual = gf.approximate_r1_penalty(compiled, x, chunk_size=4, **options)
        assert_penalty(actual, gf.approximate_r1_penalty(critic, x, **options), critic, 1e-12)
        compiled(x).sum().backward()


# ---- arguments ----------------------------------------------------------------------------------


def scaled(linear):
    return lambda x, by: linear(x).tanh() * torch.as_tensor(by, dtype=x.dtype)[:, None]


def test_arrays_are_sliced_and_lists_when_they_are_named():
    numpy = pytest.importorskip("numpy")
    linear, x = nn.Linear(4, 1).double(), torch.randn(6, 4, dtype=torch.float64)
    values = [1.0, 2.0, -1.0, 0.5, 3.0, 1.5]
    critic = scaled(linear)
    for by, options in ((numpy.array(values), {}), (values, {"batch_args": [0]})):
        wanted = gf.r1_penalty(critic, x, critic_args=(torch.tensor(values, dtype=x.dtype),))
        actual = by_keyword.r1_penalty(critic, x, critic_args=(by,), chunk_size=2, **options)
        assert_penalty(actual, wanted, linear, 1e-12)
    with pytest.raises(ValueError, match=r"critic_args\[0\]: a list of 6 has as many entries"):
        gf.r1_penalty(critic, x, critic_args=(values,), how=gf.Differentiation(chunk_size=2))


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(4).to_sparse(),
        lambda: torch.nested.nested_tensor([torch.ones(k, 2) for k in range(4)]),
        lambda: nn.utils.rnn.pack_sequence([torch.ones(2)] * 4),
    ],
    ids=["sparse", "nested", "packed"],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_arguments_that_cannot_be_sliced_are_named(make):
    linear, x = nn.Linear(3, 1), torch.randn(4, 3)
    critic = lambda x, other: linear(x)  # noqa: E731
    options = {"critic_args": (make(),), "chunk_size": 2}
    with pytest.raises(ValueError, match=r"critic_args\[0\]: .* cannot be sliced"):
        by_keyword.r1_penalty(critic, x, **options)
    by_keyword.r1_penalty(critic, x, batch_args=(), **options)


@pytest.mark.filterwarnings("ignore:.torch.jit.trace")
def test_scripted_and_lazy_critics_run_in_slices():
    class Gained(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 1)
            self.register_buffer("gain", torch.full((4,), 2.0))

        def forward(self, x):
            return self.linear(x * self.gain).tanh()

    x = torch.randn(6, 4)
    scripted = torch.jit.trace(Gained(), x)
    actual = gf.r1_penalty(scripted, x, how=gf.Differentiation(chunk_size=2))
    assert_penalty(actual, gf.r1_penalty(scripted, x), scripted, 3e-6)
    lazy = nn.Sequential(nn.LazyLinear(6), nn.LazyBatchNorm1d(), nn.Tanh(), nn.Linear(6, 1)).eval()
    actual = gf.r1_penalty(lazy, x, how=gf.Differentiation(chunk_size=2))
    assert_penalty(actual, gf.r1_penalty(lazy, x), lazy, 3e-6)


def test_meta_tensors_are_not_asked():
    critic = nn.Linear(4, 1, device="meta")
    assert gf.r1_penalty(
        critic, torch.randn(4, 4, device="meta"), how=gf.Differentiation(chunk_size=2)
    ).is_meta


# ---- fewer logits than samples ------------------------------------------------------------------

PENALTIES = {
    "gradient": lambda c, x: gf.gradient_penalty(c, x, x + 1),
    "r1": gf.r1_penalty,
    "approximate": gf.approximate_r1_penalty,
    "single forward": lambda c, x: gf.approximate_r1_penalty(c, x, single_forward=True),
    "logits": lambda c, x: gf.penalty_from_logits(c(x.requires_grad_()), x),
    "compiled": lambda c, x: torch.compile(
        lambda z: gf.r1_penalty(c, z), fullgraph=True, backend="aot_eager"
    )(x),
}


@pytest.mark.parametrize("name", PENALTIES)
def test_fewer_logits_than_samples_are_noticed(name):
    linear = nn.Linear(8, 1)
    x = torch.randn(6, 4)
    with pytest.warns(UserWarning, match="fewer logits than samples"):
        PENALTIES[name](lambda z: linear(z.reshape(-1, 8)), x)
    with pytest.raises(ValueError, match="packs as the samples"):
        gf.r1_penalty(lambda z: linear(z.reshape(-1, 8)), x, how=gf.Differentiation(chunk_size=2))


def test_packs_as_samples_are_right_and_warn_once_otherwise():
    linear = nn.Linear(8, 1).double()
    critic = lambda z: linear(z.reshape(-1, 8))  # noqa: E731
    x = torch.randn(6, 4, dtype=torch.float64)
    wanted = 5 * linear.weight.square().sum()
    assert_penalty(gf.r1_penalty(critic, x.view(3, 8)), wanted, linear, 1e-12)
    with pytest.warns(UserWarning, match="fewer logits") as record:
        gf.r1_penalty(critic, x)
    assert [warning.filename for warning in record] == [__file__]
    gf.r1_penalty(critic, x)  # in silence


class OfPacks(nn.Linear):
    def judge(self, z):
        return self(z.reshape(-1, 8))


def test_a_bound_method_is_remembered_though_it_is_another_object_every_time(monkeypatch):
    critic, x = OfPacks(8, 1), torch.randn(6, 4)
    looks = []
    look = modules.before_first_run
    monkeypatch.setattr(modules, "before_first_run", lambda *of: looks.append(of[0]) or look(*of))
    with pytest.warns(UserWarning, match="fewer logits"):
        gf.r1_penalty(critic.judge, x)
    gf.r1_penalty(critic.judge, x)  # in silence
    assert looks == [critic.judge]
    gf.r1_penalty(critic, torch.randn(6, 8))  # another way through the same module
    gf.r1_penalty(critic.eval().judge, x)
    assert looks == [critic.judge, critic, critic.judge]
