"""Criteria: one is known only where nothing can have changed or exchanged it."""

import pytest

pytest.importorskip("libcst", reason="adopt reads scripts with libcst")

from adopted import left_alone, same_numbers

TARGET = "torch.ones(6, 1)"
LOSS = f"out = criterion(D(x), {TARGET})\n"

BASE = f"""
class Base:
    def __init__(self):
        self.loss = nn.MSELoss()
    def step(self):
        return self.loss(D(x), {TARGET})
"""

CHANGED = {
    "an attribute": "criterion.reduction = 'sum'\n" + LOSS,
    "by another name": "other = criterion\nother.reduction = 'sum'\n" + LOSS,
    "in a loop": "for c in [criterion]:\n    c.pos_weight = torch.tensor(2.0)\n" + LOSS,
    "setattr": "setattr(criterion, 'reduction', 'sum')\n" + LOSS,
    "a function and a keyword": "def configure(c, **options):\n    for k, v in options.items():\n"
    "        c.__dict__[k] = v\nconfigure(criterion, reduction='sum')\n" + LOSS,
    "its call": "criterion.forward = lambda a, b: a.sum()\n" + LOSS,
    "exec": "exec('criterion = nn.MSELoss()')\n" + LOSS,
    "globals": "globals()['criterion'] = nn.MSELoss()\n" + LOSS,
    "globals at once": "globals().update(criterion=nn.MSELoss())\n" + LOSS,
    "a dict": "c = {}\nc['d'] = nn.MSELoss()\nc.update(d=nn.MSELoss(reduction='sum'))\n"
    f"out = c['d'](D(x), {TARGET})\n",
    "a list": "c = [None, None]\nc[0] = nn.MSELoss()\nc.insert(0, criterion)\n"
    f"out = c[0](D(x), {TARGET})\n",
    "an object in a list": "class T:\n    pass\nc = [T()]\nc[0].d = nn.MSELoss()\n"
    f"c[0] = T()\nvars(c[0])['d'] = criterion\nout = c[0].d(D(x), {TARGET})\n",
    "a property of a subclass": BASE + "class Sub(Base):\n    loss = property(lambda s: criterion,"
    " lambda s, v: None)\nout = Sub().step()\n",
    "a method of a subclass": BASE + "class Sub(Base):\n    def __init__(self):\n        pass\n"
    "    def loss(self, a, b):\n        return a.sum()\nout = Sub().step()\n",
    "the attributes of a subclass": BASE + "class Sub(Base):\n    def __init__(self):\n"
    "        self.__dict__['loss'] = criterion\nout = Sub().step()\n",
    "a parameter": f"def step(criterion):\n    return criterion(D(x), {TARGET})\n"
    "out = step(nn.MSELoss())\n",
    "a second one": "criterion = nn.MSELoss()\n" + LOSS,
}  # fmt: skip


@pytest.mark.parametrize("body", CHANGED.values(), ids=CHANGED)
def test_a_criterion_that_may_have_changed_is_left_alone(body):
    assert "the criterion may be another one" in left_alone(body)


@pytest.mark.parametrize(
    "body",
    [
        "D[0].weight = nn.Parameter(D[0].weight * 2)\n" + LOSS,
        "D[0].bias, D[0].weight = D[0].bias, D[0].weight\n" + LOSS,
        "criterion.cuda\ncriterion.to('cpu')\n" + LOSS,
        "known = globals().get('x') is not None and 'x' in globals()\n" + LOSS,
        "class Layer(nn.Linear):\n    def __init__(self):\n        super().__init__(1, 1)\n"
        "        self.weight = nn.Parameter(torch.ones(1, 1))\n" + LOSS,
        "class Scaled:\n    def __init__(self):\n        self.reduction = 'sum'\n" + LOSS,
        "mse = nn.MSELoss().to('cpu')\n" + LOSS.replace("criterion", "mse"),
        BASE + "out = Base().step()\n",
        f"out = nn.MSELoss()(D(x), {TARGET})\n",
    ],
)
def test_a_criterion_that_nobody_changes_is_known(body):
    assert same_numbers(body).changes


@pytest.mark.parametrize("options", ["reduction='sum'", "None, None, 'sum'", "*[None]", "**{}"])
def test_a_criterion_with_options_is_left_alone(options):
    left_alone(f"mse = nn.MSELoss({options})\nout = mse(D(x), {TARGET})\n")
    left_alone(f"out = nn.MSELoss({options})(D(x), {TARGET})\n")


NUMBER = "out = F.mse_loss(D(x), torch.full((6, 1), smooth))\n"


@pytest.mark.parametrize(
    "body",
    [
        "smooth = 0.9\nexec('smooth = 0.8')\n" + NUMBER,
        "smooth = 0.9\nglobals()['smooth'] = 0.8\n" + NUMBER,
        "smooth = 0.9\nspace = globals()\nspace['smooth'] = 0.8\n" + NUMBER,
        "smooth = 0.9\nvars().update(smooth=0.8)\n" + NUMBER,
        "smooth = 0.9\nglobals()['smooth'] += 0.1\n" + NUMBER,
    ],
)
def test_a_number_that_is_given_another_value_by_its_name_is_not_known(body):
    left_alone(body)
    within_a_function = body.replace("out =", "def step():\n    return") + "out = step()\n"
    left_alone(within_a_function)
