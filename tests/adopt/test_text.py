"""The text of a script: comments, line breaks, layouts, and what is in no form that is read."""

import ast
import tokenize
from io import StringIO

import pytest

pytest.importorskip("libcst", reason="adopt reads scripts with libcst")

from ganloss_fast.adopt.script import propose

HEAD = "import torch\nimport torch.nn.functional as F\n"
HINGE = "F.relu(1 - r).mean() + F.relu(1 + f).mean()"


def comments(source: str) -> list[str]:
    tokens = tokenize.generate_tokens(StringIO(source).readline)
    return sorted(token.string for token in tokens if token.type == tokenize.COMMENT)


CHANGED = {
    "a break within a summand": f"loss = ({HINGE} + lam\n    * gp)\n",
    "a comment behind a summand": "loss = (\n    F.relu(1 - r).mean()  # real\n"
    "    + F.relu(1 + f).mean()  # fake\n    + lam * gp  # penalty\n)\n",
    "a comment within a call": "loss = F.relu(1 - D(\n    x,  # real\n)).mean() "
    "+ F.relu(1 + D(y)).mean()\n",
    "comments on dropped lines": "def step():\n    # real side\n"
    "    real = F.relu(1 - r).mean()  # hinge\n    fake = F.relu(\n        1 + f  # fake\n"
    "    ).mean()\n    # sum\n    return real + fake  # both\n",
    "tabs": "def s():\n\treal = F.relu(1 - r).mean()  # a\n\tfake = F.relu(1 + f).mean()\n"
    "\treturn real + fake\n",
    "the only statements": "def step():\n    if c:\n        real = F.relu(1 - r).mean()\n"
    "        fake = F.relu(1 + f).mean()\n        loss = real + fake\n    return loss\n",
    "a lambda": f"h = lambda r, f: {HINGE}\n",
    "an annotation": f"loss: torch.Tensor = {HINGE}\n",
    "a condition": f"loss = {HINGE} if hinge else r.mean()\n",
    "await beside": f"async def s():\n    loss = await g() + {HINGE}\n",
    "a star": "loss = F.relu(1 - D(*x)).mean() + F.relu(1 + D(*y)).mean()\n",
    "keywords": "x = F.relu(input=1 - a).mean() + F.relu(input=1 + b).mean()\n",
    "comments of two losses": "def s():\n    # first\n    a = F.relu(1 - r).mean()  # one\n"
    "    b = F.relu(1 + f).mean()  # two\n    c = F.softplus(-p).mean()  # three\n"
    "    d = F.softplus(q).mean()  # four\n    return a + b, c + d\n",
    "a comment within a penalty": "def gp(y, x):\n    # the gradient\n"
    "    g = torch.autograd.grad(\n        y.sum(),\n        x,  # points\n"
    "        create_graph=True,\n    )[0]\n"
    "    # its norm\n    n = g.norm(2, dim=1)\n    return ((n - 1) ** 2).mean()\n",
}  # fmt: skip


@pytest.mark.parametrize("body", CHANGED.values(), ids=CHANGED)
def test_what_is_rewritten_is_python_and_keeps_its_comments(body):
    proposal = propose(HEAD + body)
    assert proposal.changes
    ast.parse(proposal.after)
    assert comments(proposal.after) == comments(HEAD + body)


LEFT = {
    "walrus": "loss = F.relu(1 + (f := D(y))).mean() + F.relu(1 - (r := D(x))).mean()\n",
    "walrus in a criterion": "loss = F.mse_loss((r := D(x)), torch.ones(3))\n",
    "await in a criterion": "async def s():\n    loss = F.mse_loss(await D(x), torch.ones(3))\n",
    "yield in a criterion": "def s():\n    loss = F.mse_loss((yield), torch.ones(3))\n",
    "await within": "async def s():\n    loss = F.relu(1 + await g()).mean()\n",
    "one line": f"if c: loss = {HINGE}\n",
    "one line of a function": f"def hinge(r, f): return {HINGE}\n",
    "semicolons": "a = F.relu(1 - r).mean(); b = F.relu(1 + f).mean(); loss = a + b\n",
    "a formatted string": 'print(f"{F.relu(1 - r).mean():.3f}")\n',
    "a formatted string of a pair": f'print(f"{{{HINGE}}}")\n',
    "a formatted string of a penalty": "g = torch.autograd.grad(y.sum(), x, create_graph=True)[0]\n"
    'text = f"{((g.norm(2, dim=1) - 1) ** 2).mean()}"\n',
    "a condition of an if": "if F.relu(1 - r).mean() > 0:\n    pass\n",
    "a linter's comment": "def s():\n    real = F.relu(1 - r).mean()  # type: ignore\n"
    "    fake = F.relu(1 + f).mean()\n    return real + fake\n",
    "a star before the outputs": "g = torch.autograd.grad(*args, create_graph=True)[0]\n",
    "no inputs": "g = torch.autograd.grad(outputs=y, create_graph=True)[0]\n",
    "no arguments": "g = torch.autograd.grad(create_graph=True)\n",
    "a tuple of gradients": "g = torch.autograd.grad(y, x, create_graph=True)\n",
    "options": "x = F.mse_loss(a, torch.ones_like(a), reduction='sum')\n",
}  # fmt: skip


TOOLS = ["noqa: E501", "type: ignore[misc]", "pylint: disable=all", "fmt: skip", "pragma: no cover"]
TOOLS += ["ruff: noqa", "mypy: ignore", "pyright: ignore", "pyre-ignore", "pytype: disable=all"]
TOOLS += ["NOQA", "flake8: noqa", "isort: skip", "yapf: disable", "autopep8: off", "nosec"]
TOOLS += ["noinspection PyTypeChecker"]


@pytest.mark.parametrize("comment", TOOLS)
def test_a_comment_for_a_tool_keeps_its_line(comment):
    line = f"    real = F.relu(1 - r).mean()  # {comment}\n"
    proposal = propose(f"{HEAD}def s():\n{line}    return real + F.relu(1 + f).mean()\n")
    assert (
        f'    real = gf.discriminator_side_loss(r, True, "hinge")  # {comment}\n' in proposal.after
    )
    assert any("a comment for a tool" in remark.text for remark in proposal.left_alone)


@pytest.mark.parametrize("body", LEFT.values(), ids=LEFT)
def test_what_is_in_no_form_that_is_read_stays_with_a_word(body):
    proposal = propose(HEAD + body)
    assert proposal.left_alone
    if "ignore" not in body:
        assert proposal.after == HEAD + body
    ast.parse(proposal.after)
    assert comments(proposal.after) == comments(HEAD + body)


DROPPED = """
def step():
    x = 1

    # real
    real = F.relu(1 - r).mean()
    y = 2

    # fake
    fake = F.relu(1 + f).mean()

    loss = real + fake

    return loss
"""


def test_remarks_stand_in_the_order_of_the_lines():
    proposal = propose(
        f"{HEAD}def outer():\n    x = F.mse_loss(a, b)\n    def inner(v=F.mse_loss(a, c)):\n"
        f"        return {HINGE}\n    y = F.mse_loss(a, d)\n    fake = F.relu(1 + f).mean()\n"
    )
    for remarks in (proposal.changes, proposal.left_alone):
        lines = [remark.line for remark in remarks]
        assert len(lines) > 1
        assert lines == sorted(lines)


def test_empty_lines_stay_between_what_stays():
    proposal = propose(HEAD + DROPPED)
    (change,) = proposal.changes
    assert proposal.before.splitlines()[change.line - 1] == "    loss = real + fake"
    assert proposal.after.endswith(
        """
def step():
    x = 1

    y = 2
    # real

    # fake

    loss = gf.discriminator_loss(r, f, "hinge")

    return loss
"""
    )


def test_empty_lines_stay_above_what_several_lines_became():
    function = "def step():\n    x = 1\n\n    real = F.relu(1 - r).mean()\n"
    function += "    fake = F.relu(1 + f).mean()\n    return real + fake\n"
    after = propose(HEAD + function).after
    assert after.endswith('    x = 1\n\n    return gf.discriminator_loss(r, f, "hinge")\n')


def test_a_function_begins_without_the_space_that_stood_below_what_went():
    function = (
        "def step():\n    real = F.relu(1 - r).mean()\n\n    return real + F.relu(1 + f).mean()\n"
    )
    after = propose(HEAD + function).after
    assert after.endswith('def step():\n    return gf.discriminator_loss(r, f, "hinge")\n')
    after = propose(HEAD + function.replace("step():\n", "step():\n\n")).after
    assert after.endswith('def step():\n\n    return gf.discriminator_loss(r, f, "hinge")\n')


def test_the_cells_of_a_notebook_stay_apart():
    cells = (
        "\n\n# In[1]:\n\n\nreal = F.relu(1 - r).mean()\n\n\n"
        "# In[2]:\n\n\nloss = real + F.relu(1 + f).mean()\n"
    )
    after = propose(HEAD + cells).after
    assert after.endswith(
        '\n\n# In[1]:\n\n\n# In[2]:\n\n\nloss = gf.discriminator_loss(r, f, "hinge")\n'
    )


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_line_ends_stay(newline):
    source = (HEAD + DROPPED).replace("\n", newline)
    after = propose(source).after
    assert after.count("\n") == after.count(newline)
    assert after.replace(newline, "\n") == propose(HEAD + DROPPED).after


def test_the_import_stands_below_what_is_done_ahead_of_torch():
    """Threads are counted once, when torch is imported."""
    source = f"import os\nos.environ['OMP_NUM_THREADS'] = '1'\n{HEAD}import sys\nloss = {HINGE}\n"
    assert "import sys\nimport ganloss_fast as gf\nloss = " in propose(source).after


@pytest.mark.parametrize(
    ("head", "last"),
    [
        ("try:\n    import torch\n    import torch.nn.functional as F\n", "except ImportError:\n"),
        ("with quiet():\n    import torch\n    import torch.nn.functional as F\n", "if torch:\n"),
    ],
)
def test_the_import_stands_in_the_block_of_torchs(head, last):
    after = propose(f"{head}{last}    pass\nloss = {HINGE}\n").after
    assert after.startswith(f"{head}    import ganloss_fast as gf\n{last}")


@pytest.mark.parametrize("around", ["def step(r, f):", "if ready:"])
def test_a_script_that_imports_torch_in_functions_or_conditions_alone_is_left_alone(around):
    indented = "".join(f"    {line}\n" for line in HEAD.splitlines())
    source = f"{around}\n{indented}    loss = {HINGE}\n"
    proposal = propose(source)
    assert proposal.after == source
    (remark,) = proposal.left_alone
    assert "torch is imported in functions or under conditions alone" in remark.text


@pytest.mark.parametrize(
    "line",
    [
        "import os; os.environ['OMP_NUM_THREADS'] = '1'; import torch",
        "import torch; torch.set_num_threads(1)",
    ],
)
def test_the_import_stands_below_torchs_in_a_line_of_several_statements(line):
    after = propose(f"{line}\nfrom . import data\nloss = torch.relu(1 - r).mean()\n").after
    assert after.startswith(f"{line}\nfrom . import data\nimport ganloss_fast as gf\nloss = gf.")


@pytest.mark.parametrize("mark", ["\x0c", "x = 'a\u2028b'", "x = '\x1c'"])
def test_a_diff_has_the_lines_of_the_file(mark):
    lines = propose(f"{HEAD}{mark}\nloss = {HINGE}\n").diff().split("\n")
    assert lines[3:] == [
        " import torch",
        " import torch.nn.functional as F",
        "+import ganloss_fast as gf",
        f" {mark}",
        f"-loss = {HINGE}",
        '+loss = gf.discriminator_loss(r, f, "hinge")',
        "",
    ]


def test_a_diff_says_where_a_newline_is_missing():
    lines = propose(f"{HEAD}loss = {HINGE}").diff().splitlines()
    assert lines[-5:] == [
        f"-loss = {HINGE}",
        "\\ No newline at end of file",
        "+import ganloss_fast as gf",
        '+loss = gf.discriminator_loss(r, f, "hinge")',
        "\\ No newline at end of file",
    ]
