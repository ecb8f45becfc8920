"""Sums of terms: which are a critic's loss, in which order they run, what they may drop."""

import pytest

pytest.importorskip("libcst", reason="adopt reads scripts with libcst")

from adopted import left_alone, said_of, same_numbers

from ganloss_fast.adopt.script import propose

PENALTY = """
def gp(d, r, f):
    a = torch.rand(6, 1)
    h = (a * r + (1 - a) * f).requires_grad_()
    return (d(h) - 1).abs().sum()
fake = G(z).detach()
"""


@pytest.mark.parametrize(
    "body",
    [
        "out = float(np.arange(3.0).mean() - np.ones(4).mean())",
        "def stats(a, b):\n    gap = a.mean() - b.mean()\n    return gap\n"
        "out = stats(np.arange(3.0), np.arange(4.0)).item()",
        "nll, ent = x.pow(2), x.abs()\nout = nll.mean() - ent.mean()",
        "mu, logvar = G(z), x\nout = (mu**2).mean() + ((logvar - 1) ** 2).mean()",
        "out = (x > 0).double().mean() - (x > 1).double().mean()",
        "a, b = D(x), N(x)\nout = a.mean() - b.mean()\nout.backward(retain_graph=True)",
        "def loss(a, b):\n    return a.mean() - b.mean()\n"
        "out = loss(np.ones(3), np.ones(2)).item()",
        "def critic(a):\n    return a * 2\nreal, fake = np.ones(3), np.zeros(3)\n"
        "def loss():\n    return critic(fake).mean() - critic(real).mean()\nout = float(loss())",
        "gen = torch.randn(3)\nreal = torch.randn(3)\n"
        "out = ((real - 1) ** 2).mean() + (gen**2).mean()",
    ],
)
def test_means_and_squares_of_anything_stay(body):
    left_alone(body)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("out = D(x).mean() - D(G(z)).mean()", "no backward() is seen"),
        ("out = D(G(z)).mean() - D(x).mean()", "no backward() is seen"),
        (
            "loss = D(x).mean() - D(G(z)).mean()\nloss.backward(retain_graph=True)\nout = loss",
            "the sign looks reversed",
        ),
        (
            "loss = D(x).mean() - D(z @ torch.ones(3, 4)).mean()\n"
            "loss.backward(retain_graph=True)\nout = loss",
            "which of the critic's two inputs is generated",
        ),
        (
            "def aug(v):\n    return v * 2\nloss = D(aug(x)).mean() - D(x).mean()\n"
            "loss.backward(retain_graph=True)\nout = loss",
            "which of the critic's two inputs is generated",
        ),
        (
            "def step(agents):\n    loss = D(agents).mean() - D(x).mean()\n"
            "    loss.backward(retain_graph=True)\n    return loss\nout = step(x * 2)",
            "which of the critic's two inputs is generated",
        ),
        (
            "loss = (D(x) ** 2).mean() + ((D(G(z)) - 1) ** 2).mean()\n"
            "loss.backward(retain_graph=True)\nout = loss",
            "the larger label",
        ),
    ],
)
def test_a_critics_figures_that_are_not_surely_its_loss_stay_with_a_word(body, reason):
    assert reason in left_alone(body)


@pytest.mark.parametrize(
    "body",
    [
        "fake = G(z)\nloss = D(fake).mean() - D(x).mean()\nloss.backward(retain_graph=True)\n",
        "fake = G(z)\nloss = -(D(x).mean() - D(fake).mean()) / 3\n"
        "total = loss + 0.1\ntotal.backward(retain_graph=True)\n",
        "fake = G(z)\nreal_out, fake_out = D(x), D(fake)\nloss = 0\n"
        "loss += ((real_out - 1) ** 2).mean() + fake_out.pow(2).mean()\n"
        "loss.backward(retain_graph=True)\n",
    ],
)
def test_a_critics_loss_of_means_or_squares_is_one_call(body):
    proposal = same_numbers(body + "out = loss\n")
    assert "discriminator_loss(" in proposal.after


@pytest.mark.parametrize(
    ("total", "call"),
    [
        ("10 * gp(N, x, fake) + F.relu(1 + N(fake)).mean() + F.relu(1 - N(x)).mean()", True),
        ("F.relu(1 + N(fake)).mean() + F.relu(1 - N(x)).mean() + 10 * gp(N, x, fake)", True),
        ("F.relu(1 + N(fake)).mean() + gp(N, x, fake) + F.relu(1 - N(x)).mean()", False),
        ("F.relu(1 + N(fake)).mean() + N(x).sum() / 3 + F.relu(1 - N(x)).mean()", False),
        ("F.relu(1 + N(fake)).mean() + x.mean() % 2 + F.relu(1 - N(x)).mean()", True),
        ("0.5 * (F.relu(1 + N(fake)).mean() + x.sum() % 2 + F.relu(1 - N(x)).mean())", True),
        ("-x.sum() * 2 + F.relu(1 + N(fake)).mean() - x.sum() + F.relu(1 - N(x)).mean()", True),
    ],
)
def test_random_numbers_are_drawn_in_the_order_in_which_they_were(total, call):
    """N drops units at random, and the penalty draws its points."""
    proposal = same_numbers(f"{PENALTY}out = {total}\n")
    assert ("discriminator_loss(" in proposal.after) == call
    if not call:
        assert "may draw random numbers" in proposal.left_alone[0].text


@pytest.mark.parametrize(
    "body",
    [
        "b = F.relu(1 + N(x)).mean()\na = F.relu(1 - N(-x)).mean()\nout = a + b\n",
        "b = F.relu(1 + N(x)).mean()\na = F.relu(1 - N(-x)).mean()\nout = N(x).sum() + (a + b)\n",
        "a = F.relu(1 - N(x)).mean()\nr = torch.rand(())\nb = F.relu(1 + N(-x)).mean()\n"
        "out = a + b + r\n",
        "r, f = N(x), N(-x)\na = F.relu(1 - r).mean()\nr = r * 2\nb = F.relu(1 + f).mean()\n"
        "out = a + b + r.sum()\n",
        "r, f = N(x), N(-x)\na = F.relu(1 - r).mean()\nb = F.relu(1 + f).mean()\n"
        "later = lambda: a + b\nr = r * 2\nout = later() + r.sum()\n",
        "r, f = N(x), N(-x)\na = F.relu(1 - r).mean()\nb = F.relu(1 + f).mean()\n"
        "later = (a + b for _ in range(2))\nr = r * 2\nout = sum(later) + r.sum()\n",
    ],
)
def test_what_was_computed_above_keeps_its_draws_and_values(body):
    same_numbers(body, may_vanish=("a", "b"))


CHANGED_BY_A_CALL = {
    "another name for them": "r, f = D(x).detach(), D(-x)\ns = r\ndef act(t=s):\n    return 1\n"
    "def zeroed(t):\n    t.zero_()\n    return t\na = F.relu(1 - r).mean()\ny = zeroed(s)\n"
    "b = F.relu(1 + f).mean()\nout = a + b\n",
    "what they are a view of": "s, f = D(x).detach(), D(-x)\nr = s.view(-1)\n"
    "a = F.relu(1 - r).mean()\ny = nn.init.zeros_(s)\nb = F.relu(1 + f).mean()\nout = a + b\n",
    "relu in place": "r, f = D(x).detach(), D(-x)\ns = r[:3]\n"
    "a = F.relu(1 - r).mean()\ny = F.relu(s, True)\nb = F.relu(1 + f).mean()\nout = a + b\n",
    "a mode": "r, f = D(x), D(-x)\na = F.relu(1 - r).mean()\nwas = torch.set_grad_enabled(False)\n"
    "b = F.relu(1 + f).mean()\ntotal = a + b\ntorch.set_grad_enabled(True)\nout = total * 1\n",
    "a global": "r, f = D(x), D(-x)\ndef act():\n    global r\n    r = r * 2\n",
    "an object": "class T:\n    pass\nr = T()\nr.logits, f = D(x), D(-x)\ndef act():\n"
    "    r.logits = r.logits * 2\n",
    "in place": "r, f = D(x).detach(), D(-x)\ndef act():\n    r.mul_(2)\n",
    "a global, from a function": "r, f = D(x), D(-x)\ndef act():\n    global r\n    r = r * 2\n"
    "def step():\n    a = F.relu(1 - r).mean()\n    done = act()\n    b = F.relu(1 + f).mean()\n"
    "    return a + b\nout = step()\n",
}


@pytest.mark.parametrize("body", CHANGED_BY_A_CALL.values(), ids=CHANGED_BY_A_CALL)
def test_a_loss_is_not_moved_past_a_call_that_may_change_its_logits(body):
    if "out = " not in body:
        logits = "r.logits" if "r.logits" in body else "r"
        body += f"a = F.relu(1 - {logits}).mean()\ndone = act()\nb = F.relu(1 + f).mean()\n"
        body += "out = a + b\n"
    assert same_numbers(body).after.count("discriminator_side_loss") == 2


def test_a_loss_is_moved_past_nothing_but_assignments():
    body = "log = []\nr, f = D(x), D(-x)\na = F.relu(1 - r).mean()\nlog.append(f)\n"
    proposal = same_numbers(body + "b = F.relu(1 + f).mean()\nout = a + b\n")
    assert proposal.after.count("discriminator_side_loss") == 2


def test_a_loss_is_moved_past_calls_that_do_not_see_its_logits():
    body = "r = D(x)\na = F.relu(1 - r.view(-1)).mean()\nf = D(G(z))\nb = F.relu(1 + f).mean()\n"
    proposal = same_numbers(body + "out = a + b\n", may_vanish=("a", "b"))
    assert "discriminator_loss(r.view(-1), f" in proposal.after


def test_a_statement_with_two_targets_is_not_dropped():
    proposal = same_numbers(
        """
        real, accuracy = criterion(D(x), torch.ones(6, 1)), D(x).mean().item()
        fake = criterion(D(G(z).detach()), torch.zeros(6, 1))
        out = real + fake + accuracy
        """
    )
    assert proposal.changes


@pytest.mark.parametrize(
    "body",
    [
        "gf = G(z)\nout = criterion(D(x), torch.ones(6, 1)) + criterion(D(gf), "
        "torch.zeros(6, 1))\n",
        "def step(gf):\n    return criterion(D(x), torch.ones(6, 1)) + criterion(D(gf), "
        "torch.zeros(6, 1))\nout = step(G(z))\n",
        "out = sum(F.relu(1 - gf).mean() for gf in [D(x)])\n",
    ],
)
def test_a_script_with_a_gf_of_its_own_keeps_it(body):
    after = same_numbers(body).after
    assert "import ganloss_fast\n" in after
    assert "ganloss_fast.d" in after


def test_a_script_with_both_names_of_its_own_is_left_alone():
    body = "gf = ganloss_fast = D(x)\nout = F.relu(1 - gf).mean() + F.relu(1 + gf).mean()\n"
    assert "names of the script's own" in left_alone(body)


def test_a_script_that_imports_the_package_already_imports_it_once():
    source = "import ganloss_fast as gf\nimport torch\nloss = torch.relu(1 - r).mean()\n"
    after = propose(source).after
    assert after.count("import ganloss_fast") == 1
    assert "gf.discriminator_side_loss(r" in after


def test_factors_are_written_in_full():
    after = same_numbers("out = (F.relu(1 - D(x)).mean() + F.relu(1 + D(-x)).mean()) / 3\n").after
    assert "real_weight=0.3333333333333333," in after


@pytest.mark.parametrize(
    "statement",
    [
        "({}).backward(retain_graph=True)\n",
        "torch.amp.GradScaler(enabled=False).scale({}).backward(retain_graph=True)\n",
        "log = dict(d=({}).item())\n",
    ],
)
def test_a_sum_may_stand_within_a_statement(statement):
    loss = "F.relu(1 - D(x)).mean() + F.relu(1 + D(-x)).mean()"
    assert same_numbers(statement.format(loss) + "out = D[0].weight.sum()\n").changes


@pytest.mark.parametrize(
    "function",
    [
        "@torch.jit.script\ndef hinge(r, f):\n    return torch.relu(1 - r).mean()\n",
        "def hinge(r, f):\n    return torch.relu(1 - r).mean()\nfast = torch.vmap(hinge)\n",
        "@torch.compile\ndef hinge(r, f):\n    return torch.relu(1 - r).mean()\n",
        "from torch.func import grad\ndef hinge(r):\n    return torch.relu(1 - r).mean()\n"
        "slopes = grad(hinge)(x)\n",
        "from torch.func import jacrev as j\ndef hinge(r):\n    return torch.relu(1 - r).mean()\n"
        "def both(r):\n    return hinge(r) + 1\nslopes = j(both)(x)\n",
        "class Hinge(nn.Module):\n    def forward(self, r):\n        return F.relu(1 - r).mean()\n"
        "loss = Hinge()\nloss = torch.jit.script(loss)\n",
        "class T:\n    def __init__(self):\n        self.fast = torch.compile(self.step)\n"
        "    def step(self, r):\n        return F.relu(1 - r).mean()\n",
    ],
)
def test_what_a_compiler_or_a_transform_is_given_stays(function):
    assert "a compiler reads" in said_of(function)


@pytest.mark.parametrize(
    "sum_of_terms",
    [
        "F.relu(1 - a).mean() + (F.relu(1 + b).mean() + F.relu(1 + 2 * b).mean())",  # three
        "F.relu(1 - a).mean() + F.softplus(b).mean()",  # of two kinds
        "F.relu(1 - a).mean() - F.relu(1 + b).mean()",
        "F.softplus(-a).mean() + F.softplus(-b).mean()",  # towards one label
    ],
)
def test_two_terms_that_are_no_pair_are_taken_over_one_by_one(sum_of_terms):
    after = same_numbers(f"a, b = D(x), D(-x)\nout = {sum_of_terms}\n").after
    assert "discriminator_loss(" not in after
    assert "out = gf." in after


def test_two_means_that_are_added_are_no_wasserstein_loss():
    left_alone("out = D(G(z)).mean() + D(x).mean()\nout.backward(retain_graph=True)\n")


@pytest.mark.parametrize(
    ("rest", "written"),
    [
        ("{} + x.mean()", "{} + x.mean()"),
        ("{} - (x.sum() + z.sum())", "{} - (x.sum() + z.sum())"),
        ("{} + 10 * z.sum()", "{} + 10 * z.sum()"),
        ("{} + -z.sum()", "{} + -z.sum()"),
        ("D(x).sum() * ({} + x.sum())", "D(x).sum() * ({} + x.sum())"),
        ("({} - x.sum()) ** 2", "({} - x.sum()) ** 2"),
        ("-(x.sum() + z.sum()) / 3 + {}", "-(x.sum() + z.sum()) / 3 + {}"),
        ("x.sum() - z.sum() + {}", "x.sum() - z.sum() + {}"),
        ("-(x.sum() - {})", None),
        ("-F.relu(1 - D(x)).mean()", '-gf.discriminator_side_loss(D(x), True, "hinge")'),
    ],
)
def test_what_is_no_term_stays_as_it_is_written(rest, written):
    pair = "F.relu(1 - D(x)).mean() + F.relu(1 + D(-x)).mean()"
    after = same_numbers(f"out = {rest.format(pair)}\n").after
    if written is not None:
        call = 'gf.discriminator_loss(D(x), D(-x), "hinge")'
        assert f"out = {written.format(call)}\n" in after


def test_a_remainder_is_scaled_as_a_whole():
    pair = "F.relu(1 - D(x)).mean() + F.relu(1 + D(-x)).mean()"
    after = same_numbers(f"out = 0.5 * ({pair} + x.sum() % 3)\n").after
    assert after.endswith(", real_weight=0.5, fake_weight=0.5) + 0.5 * (x.sum() % 3)\n")


def test_a_remainder_is_negated_as_a_whole():
    body = "fake = G(z)\nloss = -(x.sum() * 10 % 3 + D(x).mean() - D(fake).mean())\n"
    after = same_numbers(body + "loss.backward(retain_graph=True)\nout = loss\n").after
    assert "loss = -(x.sum() * 10 % 3) + gf.discriminator_loss(" in after


def test_logits_that_are_named_keep_their_names():
    body = "f = D(G(z))\nr = D(x)\nloss = f.mean() - r.mean()\n"
    after = same_numbers(body + "loss.backward(retain_graph=True)\nout = loss\n").after
    assert 'gf.discriminator_loss(fake=f, real=r, loss="wasserstein")' in after


@pytest.mark.parametrize(
    "body",
    [
        "w = D(x).sum()\na = F.relu(1 - r).mean() + w\nw = w * 2\nb = F.relu(1 + f).mean()\n"
        "out = a + b\n",
        "w = D(x)\na = w.mean()\nw = w * 2\n"
        "out = F.relu(1 - r).mean() + F.relu(1 + f).mean() + a\n",
    ],
)
def test_what_stands_by_its_name_beside_the_terms_is_not_computed_anew(body):
    same_numbers("r, f = D(x), D(-x)\n" + body)


def test_a_division_by_zero_is_the_scripts_own():
    after = same_numbers("out = (F.relu(1 - D(x)).mean() / 0).item()\n").after
    assert 'gf.discriminator_side_loss(D(x), True, "hinge") / 0' in after


def test_a_loss_that_was_spoken_of_in_its_line_is_left_at_that():
    proposal = same_numbers(
        """
        real = criterion(D(x), torch.rand(6, 1))
        fake = criterion(D(-x), torch.zeros(6, 1))
        out = real + fake + criterion(D(2 * x), torch.zeros(6, 1))
        """
    )
    (remark,) = proposal.left_alone
    assert "the target is no constant" in remark.text
    assert (
        'out = real + fake + gf.discriminator_side_loss(D(2 * x), False, "bce")' in proposal.after
    )


@pytest.mark.parametrize(
    "sides",
    [
        "a = F.relu(1 - N(x)).mean()\nout = a + F.relu(1 + N(-x)).mean()\n",
        "a: torch.Tensor = F.relu(1 - N(x)).mean()\nb: 'torch.Tensor' = F.relu(1 + N(-x)).mean()\n"
        "out: torch.Tensor = a + b\n",
    ],
)
def test_a_side_above_the_sum_is_taken_into_it(sides):
    after = same_numbers(sides, may_vanish=("a", "b")).after
    assert 'gf.discriminator_loss(N(x), N(-x), "hinge")' in after


def test_a_side_with_two_names_stays():
    same_numbers("a = c = F.relu(1 - D(x)).mean()\nout = a + F.relu(1 + D(-x)).mean()\nout += c\n")
