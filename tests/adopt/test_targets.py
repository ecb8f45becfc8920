"""Targets: a constant is one only where nobody can have changed it."""

import pytest

pytest.importorskip("libcst", reason="adopt reads scripts with libcst")

from adopted import left_alone, said_of, same_numbers

LOSS = "out = criterion(D(x), t)\n"

CHANGED_ELSEWHERE = {
    "subscript": "t = torch.ones(6, 1)\nt[:2] = 0.0\n" + LOSS,
    "mul_": "t = torch.ones(6, 1)\nt.mul_(0.9)\n" + LOSS,
    "uniform_": "t = torch.ones(6, 1)\nt.uniform_(0.8, 1.0)\n" + LOSS,
    "copy_": "t = torch.ones(6, 1)\nt.copy_(torch.rand(6, 1))\n" + LOSS,
    "augmented": "t = torch.ones(6, 1)\nt -= 0.1\n" + LOSS,
    "nn.init": "t = torch.ones(6, 1)\nnn.init.uniform_(t)\n" + LOSS,
    "out": "t = torch.ones(6, 1)\ntorch.rand(6, 1, out=t)\n" + LOSS,
    "alias": "t = torch.ones(6, 1)\nu = t\nu[0] = 0\n" + LOSS,
    "alias of a view": "t = torch.ones(6, 1)\nu = t.to('cpu')\nu[0] = 0\n" + LOSS,
    "in a list": "t = torch.ones(6, 1)\nfor u in [t]:\n    u.zero_()\n" + LOSS,
    "in a call": "def f(u):\n    u.zero_()\nt = torch.ones(6, 1)\nf(t)\n" + LOSS,
    "in a closure": "t = torch.ones(6, 1)\ndef f():\n    t.zero_()\nf()\n" + LOSS,
    "global": "t = torch.ones(6, 1)\ndef f():\n    global t\n    t = torch.zeros(6, 1)\nf()\n"
    + LOSS,
    "with": "import contextlib\nt = torch.ones(6, 1)\n"
    "with contextlib.nullcontext(torch.zeros(6, 1)) as t:\n    pass\n" + LOSS,
    "import": "t = torch.ones(6, 1)\nimport math as t\nt = torch.zeros(6, 1)\n" + LOSS,
    "walrus": "t = torch.ones(6, 1)\nif (t := torch.zeros(6, 1)).numel():\n    pass\n" + LOSS,
    "match": "t = torch.ones(6, 1)\nmatch torch.zeros(6, 1):\n    case t:\n        pass\n" + LOSS,
    "comprehension": "t = torch.ones(6, 1)\nts = [torch.zeros(6, 1), t]\n"
    "out = sum(F.mse_loss(D(x), t) for t in ts)\n",
    "nonlocal": "def step():\n    t = torch.ones(6, 1)\n    def f():\n        nonlocal t\n"
    "        t = torch.zeros(6, 1)\n    f()\n    return criterion(D(x), t)\nout = step()\n",
    "requires grad": "t = torch.ones(6, 1).requires_grad_()\nF.mse_loss(D(x), t).backward()\n"
    "out = t.grad.sum()\n",
    "requires grad, keyword": "t = torch.ones(6, 1, requires_grad=True)\n"
    "F.mse_loss(D(x), t).backward()\nout = t.grad.sum()\n",
    "by name": "t = torch.ones(6, 1)\nglobals()['t'].zero_()\n" + LOSS,
    "default": "def step(t=None):\n    t = torch.zeros(6, 1) if t is None else t\n"
    "    return criterion(D(x), t)\nout = step()\n",
    "filled in place of the target": "t = torch.ones(6, 1)\nout = criterion(D(x), t.fill_(0.0))\n",
    "filled, then read": "label = torch.full((6, 1), 1.0)\nlog = [label]\nlabel.fill_(0.0)\n"
    "out = criterion(D(x), label)\n",
    "filled in an if": "label = torch.full((6, 1), 1.0)\nif len(x):\n    label.fill_(0.0)\n"
    "out = criterion(D(x), label)\n",
    "filled, then a loop": "label = torch.full((6, 1), 1.0)\nfor _ in range(2):\n"
    "    out = criterion(D(x), label)\n    out.backward()\n    label.fill_(0.0)\n"
    "out = criterion(D(x), label)\n",
    "filled, and a lambda": "label = torch.full((6, 1), 1.0)\nf = lambda: label.zero_()\nf()\n"
    "label.fill_(0.5)\nf()\nout = criterion(D(x), label)\n",
    "filled for a lambda": "label = torch.full((6, 1), 1.0)\n"
    "loss = lambda: criterion(D(x), label)\nD(x).sum().backward()\n"
    "label.fill_(0.0)\nout = loss()\n",
    "filled for a generator": "label = torch.full((6, 1), 1.0)\n"
    "losses = (criterion(D(x), label) for _ in range(2))\nD(x).sum().backward()\n"
    "label.fill_(0.0)\nout = sum(losses)\n",
    "filled in an elif": "label = torch.full((6, 1), 1.0)\nlabel.fill_(0.5)\nif len(x) == 0:\n"
    "    pass\nelif label.zero_().sum() == 0:\n    pass\nout = criterion(D(x), label)\n",
    "filled, and asked in place": "label = torch.full((6, 1), 1.0)\nlabel.fill_(0.5)\n"
    "if label.zero_().sum() == 0:\n    pass\nout = criterion(D(x), label)\n",
    "filled, under two names": "label = other = torch.full((6, 1), 1.0)\nlabel.fill_(0.5)\n"
    "other.zero_()\nout = criterion(D(x), label)\n",
    "made anew in an if": "label = torch.ones(6, 1)\nif len(x):\n    label = torch.zeros(6, 1)\n"
    "out = criterion(D(x), label)\n",
    "made anew by a loop": "label = torch.ones(6, 1)\nfor label in [torch.zeros(6, 1)]:\n    pass\n"
    "out = criterion(D(x), label)\n",
    "two names at once": "t = torch.ones(6, 1)\nu = v = t\nv[0] = 0\n" + LOSS,
    "alias in a dict": "t = torch.ones(6, 1)\nd = {}\nd['t'] = t\nd['t'][0] = 0\n" + LOSS,
    "its data": "t = torch.ones(6, 1)\nt.data[0] = 0\n" + LOSS,
    "transposed": "t = torch.ones(6, 1)\nu = t.T\nu[0] = 0\n" + LOSS,
    "requires grad, unread": "t = torch.ones(6, 1, requires_grad=True)\n" + LOSS,
    "written to a buffer": "buffer = torch.zeros(6, 1)\n"
    "out = criterion(D(x), torch.ones(6, 1, out=buffer))\n",
    "options behind stars": "buffer = torch.zeros(6, 1)\n"
    "out = criterion(D(x), torch.ones(6, 1, **{'out': buffer}))\n",
    "a drawn size": "out = criterion(D(x), torch.DoubleTensor(len(N(x)), 1).fill_(1.0))\n",
    "a drawn condition": "out = criterion(D(x), torch.ones(6, 1) if N(x).sum() > 0 else "
    "torch.ones(6, 1))\n",
    "draws": "out = criterion(D(x), torch.ones_like(N(x)))\n",
    "a criterion that is changed": "criterion.reduction = 'sum'\n"
    "out = criterion(D(x), torch.ones(6, 1))\n",
}


@pytest.mark.parametrize("body", CHANGED_ELSEWHERE.values(), ids=CHANGED_ELSEWHERE)
def test_a_target_that_may_have_changed_is_left_alone(body):
    assert "the target is no constant" in left_alone(body) or "reduction" in body


@pytest.mark.parametrize(
    "body",
    [
        "t = torch.ones(6, 1)\n" + LOSS,
        "t = torch.ones(6, 1)\nn = t.size(0) + t.shape[1]\nu = torch.zeros_like(t)\n" + LOSS,
        "t = torch.ones(6, 1)\nu = t.to('cpu')\nout = criterion(D(x), u)\n",
        "t = 0.9 * torch.ones(6, 1)\n" + LOSS,
        "t = torch.full((6, 1), fill_value=0.8)\n" + LOSS,
        "t = torch.full((6, 1), -1.0)\nout = F.mse_loss(D(x), t)\n",
        "smooth = 0.9\nt = torch.full((6, 1), smooth)\n" + LOSS,
        "smooth = 0.9\ndef step():\n    return criterion(D(x), torch.full((6, 1), smooth))\n"
        "out = step()\n",
        "t = torch.ones(6, 1).cpu() if len(x) else torch.ones(6, 1)\n" + LOSS,
        "out = criterion(input=D(x), target=torch.ones(6, 1))\n",
        "out = criterion(D(x), torch.Tensor(6, 1).fill_(1.0))\n",
    ],
)
def test_a_target_that_nobody_changes_is_a_constant(body):
    assert same_numbers(body).changes


def test_a_label_that_is_filled_anew_after_each_backward_is_followed():
    proposal = same_numbers(
        """
        for _ in range(2):
            label = torch.full((6, 1), 0.9)
            real = criterion(D(x), label)
            real.backward()
            label.fill_(0.0)
            fake = criterion(D(G(z).detach()), label)
            fake.backward()
            label.fill_(1.0)
            out = criterion(D(G(z)), label)
        """
    )
    assert not proposal.left_alone
    assert "generator_label=0.9" in proposal.after
    assert 'False, "bce"' in proposal.after


def test_a_label_that_is_filled_before_the_backward_is_left_alone():
    """Autograd keeps the label until then: the script fails, and does so all the same."""
    reasons = said_of(
        """
        label = torch.full((6, 1), 1.0)
        real = criterion(D(x), label)
        label.fill_(0.0)
        fake = criterion(D(G(z).detach()), label)
        out = real + fake
        """
    )
    assert "the target is no constant" in reasons


def test_a_criterion_of_another_class_is_not_taken_for_this_ones():
    body = """
        class One:
            def __init__(self):
                self.loss = nn.MSELoss()
        class Other(One):
            def step(self):
                return self.loss(D(x), torch.ones(6, 1))
        Base = One
        out = Other().step()
        """
    left_alone(body)
