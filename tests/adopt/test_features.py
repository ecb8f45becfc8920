"""Feature-matching loops: only over the maps of one critic."""

import pytest

pytest.importorskip("libcst", reason="adopt reads scripts with libcst")

from adopted import left_alone, same_numbers

MAPS = """
def maps_of(images):
    first = D[0](images)
    return [first, first.tanh()], D(images)
real_maps, real_out = maps_of(x)
fake_maps, fake_out = maps_of(G(z))
out = 0
"""
LOOP = "for p, q in zip({}, {}):\n    out {} F.l1_loss(q, p)\n"
LISTS = "a = [torch.randn(3, 4) for _ in range(3)]\nb = [torch.randn(3, 4) for _ in range({})]\n"

OTHERS = {
    "parameters": "out = 0\n" + LOOP.format("D.parameters()", "N.parameters()", "+="),
    "named parameters": "a, b = list(D.parameters()), list(N.parameters())\nout = 0\n"
    + LOOP.format("a", "b", "+="),
    "tensors": "out = 0\na, b = torch.randn(3, 5), torch.randn(3, 5)\n"
    + LOOP.format("a", "b", "+="),
    "tensors of a function": "out = 0\ndef f(v):\n    return v\na, b = f(x), f(G(z))\n"
    + LOOP.format("a", "b", "+="),
    "values": "a, b = {'x': x}, {'x': G(z)}\nout = 0\n"
    + LOOP.format("a.values()", "b.values()", "+="),
    "generators": "out = 0\n" + LISTS.format(3)
    + LOOP.format("(f for f in a)", "(f for f in b)", "+="),
    "unequal lengths": "out = 0\n" + LISTS.format(2) + LOOP.format("a", "b", "+="),
    "broadcast maps": "out = 0\na, b = [x], [x[:1]]\n"
    "for p, q in zip(a, b):\n    out += torch.mean(torch.abs(p - q))\n",
    "weights": MAPS + "for p, q in zip(real_maps, fake_maps):\n    out += 2 * F.l1_loss(q, p)\n",
    "a range": MAPS + "for i in range(2):\n"
    "    out += F.l1_loss(fake_maps[i], real_maps[i].detach())\n",
    "loop names read later": MAPS + LOOP.format("real_maps", "fake_maps", "+=")
    + "out = out + p.sum()\n",
    "two functions": MAPS + "def other(v):\n    return [v, v], v\nfake_maps, _ = other(G.weight)\n"
    "real_maps, _ = other(G.weight * 2)\nfake_maps = [m for m in fake_maps]\n"
    + LOOP.format("real_maps", "fake_maps", "+="),
    "a part of one list": MAPS.replace("(x)\nfake", "(x)\nreal_maps = maps_of(x)[0][:1]\nfake")
    + LOOP.format("real_maps", "fake_maps", "+="),
    "a list that becomes shorter": MAPS + "real_maps.pop()\n"
    + LOOP.format("real_maps", "fake_maps", "+="),
    "a list without its first": MAPS + "del fake_maps[0]\n"
    + LOOP.format("real_maps", "fake_maps", "+="),
    "a list under another name": MAPS + "real_maps, real_out = both = maps_of(x)\nboth[0].pop()\n"
    + LOOP.format("real_maps", "fake_maps", "+="),
    "a map of another kind": MAPS + "fake_maps[0] = fake_maps[0][:1]\n"
    + "for p, q in zip(real_maps, fake_maps):\n    out += torch.mean(torch.abs(p - q))\n",
    "no gradient on either side": MAPS + "for p, q in zip(real_maps, fake_maps):\n"
    "    out += F.l1_loss(q.detach(), p.detach())\nout = out + D(x).sum()\n",
    "a loop that is awaited": MAPS.replace("out = 0", "async def pairs():\n"
    "    for pair in zip(real_maps, fake_maps):\n        yield pair\nimport asyncio\n"
    "async def step(zip):\n    out = 0\n    async for p, q in zip(real_maps, fake_maps):\n"
    "        out += F.l1_loss(q, p)\n    return out\n"
    "out = asyncio.run(step(lambda a, b: pairs()))"),
    "a zip of its own": "def zip(a, b):\n    return [(s, t) for s in a for t in b]\n" + MAPS
    + LOOP.format("real_maps", "fake_maps", "+="),
    "a star among the names": MAPS + "real_maps, *_ = maps_of(x)\n"
    + LOOP.format("real_maps", "fake_maps", "+="),
    "something beside the pair": MAPS + "r = torch.ones(6, 8)\n"
    "for p, q in zip(real_maps, fake_maps):\n    out += F.l1_loss(q, p - r)\n",
    "unlike slices": MAPS + LOOP.format("real_maps[:-1]", "fake_maps", "+="),
    "an else": MAPS + LOOP.format("real_maps", "fake_maps", "+=") + "else:\n    out = out * 2\n",
}  # fmt: skip


@pytest.mark.parametrize("body", OTHERS.values(), ids=OTHERS)
def test_a_loop_over_anything_else_stays(body):
    left_alone(body)


@pytest.mark.parametrize("kind", ["weights", "a range", "loop names read later", "two functions"])
def test_a_loop_over_maps_that_is_left_alone_is_spoken_of(kind):
    reasons = left_alone(OTHERS[kind])
    assert "feature_matching_loss" in reasons or "read elsewhere" in reasons


@pytest.mark.parametrize(
    "loop",
    [
        LOOP.format("real_maps", "fake_maps", "+="),
        LOOP.format("real_maps", "fake_maps", "= out +"),
        LOOP.format("real_maps[:-1]", "fake_maps[:-1]", "+="),
        "for p, q in zip(real_maps, fake_maps): out += F.l1_loss(p, q)  # each layer\n",
        "for p, q in zip(real_maps, fake_maps):\n    # each layer\n"
        "    out += torch.mean(torch.abs(q - p.detach()))  # L1\n",
    ],
)
def test_a_loop_over_the_maps_of_one_critic_is_one_call(loop):
    proposal = same_numbers(MAPS + loop, may_vanish=("p", "q"))
    assert "feature_matching_loss(real_maps" in proposal.after
    assert proposal.after.count("#") == (MAPS + loop).count("#")


def test_comments_on_a_loop_stay_in_their_order():
    loop = "# the maps\nfor p, q in zip(real_maps, fake_maps):  # pairs\n    # each layer\n"
    after = same_numbers(MAPS + loop + "    out += F.l1_loss(p, q)  # L1\n", ("p", "q")).after
    assert (
        "# the maps\n# pairs\n# each layer\n# L1\n"
        "out += gf.feature_matching_loss(real_maps, fake_maps, detach_real=False)\n"
    ) in after


HANDED = """
def critic(images):
    first = D[0](images)
    return D(images), [first, first.tanh()]
def feature_loss(fmap_r, fmap_g):
    loss = 0
    for r, g in zip(fmap_r, fmap_g):
        loss += torch.mean(torch.abs(r - g))
    return loss
_, maps = critic(x)
_, generated = critic(G(z))
"""


@pytest.mark.parametrize(
    "call",
    [
        "out = feature_loss(*[maps, generated])\n",
        "handed = feature_loss\n"
        "out = feature_loss(maps, generated) + handed(maps, generated[:1])\n",
        "out = feature_loss(maps, generated) + feature_loss(maps, generated[:1])\n",
        "others = [G.weight]\nout = feature_loss(maps, generated) + feature_loss(others, others)\n",
    ],
)
def test_maps_of_a_function_stay_where_a_caller_may_give_others(call):
    left_alone(HANDED + call)


def test_maps_of_a_function_are_those_that_its_callers_give():
    body = """
        def critic(images):
            first = D[0](images)
            return D(images), [[first, first.tanh()], [first]]
        def feature_loss(fmap_r, fmap_g):
            loss = 0
            for dr, dg in zip(fmap_r, fmap_g):
                for rl, gl in zip(dr[:-1], dg[:-1]):
                    loss = loss + torch.mean(torch.abs(rl - gl))
            return loss * 2
        _, maps = critic(x)
        _, generated = critic(G(z))
        out = feature_loss(maps, generated)
        """
    after = same_numbers(body.replace("[first]]", "[first, first]]")).after
    assert "([maps[:-1] for maps in fmap_r], [maps[:-1] for maps in fmap_g]" in after
    assert "form that is not taken over" in left_alone(body.replace("dr[:-1]", "dr[1:]"))


@pytest.mark.parametrize(
    "loop",
    [
        "for i in range(2):\n    out += F.l1_loss(x, x * i)\n",  # of no maps
        "for i in range(2):\n    out += real_maps[i].sum()\n",  # of no distances
        "for p in real_maps:\n    out += F.l1_loss(p, p * 2)\n",  # of no pairs
    ],
)
def test_a_loop_over_anything_else_is_not_spoken_of(loop):
    assert left_alone(MAPS + loop) == ""
