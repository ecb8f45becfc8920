"""Sums of terms as one call: what may be moved and dropped for it, and what may not."""

from __future__ import annotations

from dataclasses import dataclass, replace

import libcst as cst

from ganloss_fast.adopt import detaching, moving, roles, sums
from ganloss_fast.adopt.edits import Edits
from ganloss_fast.adopt.effects import pure
from ganloss_fast.adopt.names import Names
from ganloss_fast.adopt.sums import Summand
from ganloss_fast.adopt.syntax import assigned_name, code, small
from ganloss_fast.adopt.terms import NotUnderstood, Term

Pair = tuple[Summand, Summand]


@dataclass(frozen=True)
class _Place:
    """An expression, in statement ``k`` of a block."""

    expression: cst.BaseExpression
    statement: cst.CSTNode
    body: list[cst.CSTNode]
    k: int


def read_sum(
    expression: cst.BaseExpression,
    statement: cst.CSTNode,
    conditional: bool,
    names: Names,
    edits: Edits,
) -> bool:
    """Whether an expression was rewritten, or is said to be left alone.

    ``conditional``: it is evaluated at another time than its statement, or not always.
    """
    found_place = names.facts.place(statement)
    if found_place is None or edits.changed_within(expression):
        return False
    place = _Place(expression, statement, *found_place)
    try:
        expandable = frozenset[str]() if conditional else _expandable(place, names, edits)
        for behind in {expandable: None, frozenset[str](): None}:
            found = sums.without_means(sums.summands(expression, names, behind))
            pair = sums.pairs(found)
            if pair is None or not _is_loss(pair, expression, names):
                continue
            if _may_move(found, pair, place, names):
                _write_pair(found, pair, place, names, edits)
                return True
        (only,) = found if len(found) == 1 else (None,)
        if only is not None and isinstance(only.content, Term):
            side = sums.side_of(only)
            if side is not None:
                edits.replace(expression, side, "side", statement)
            return side is not None
    except NotUnderstood as why:
        edits.leave(expression, why)
        return True
    return False


def _is_loss(pair: Pair, expression: cst.BaseExpression, names: Names) -> bool:
    """Whether two terms are certainly a critic's loss. Means and squares alone may be anything.

    Raises:
        NotUnderstood: if they are those of one critic, and something else is not seen.
    """
    real, fake = (summand.content for summand in pair)
    assert isinstance(real, Term)
    assert isinstance(fake, Term)
    if real.kind == "clamped hinge":
        raise NotUnderstood(
            "a hinge by torch.clamp has the slope 1 at the margin itself, one by torch.min a half, "
            "and ours none, as F.relu has: where that does not matter, it is "
            'gf.discriminator_loss(real, fake, "hinge")'
        )
    if real.kind in ("bce", "hinge") or (real.has_target and fake.has_target):
        return True
    walked = roles.is_walked_back(expression, names, returned=real.of_torch and fake.of_torch)
    calls = roles.calls_of_one_critic(real.logits, fake.logits, names)
    if calls is None:
        named = roles.named_side(real.logits, fake.logits, names)
        squares = real.kind == "least_squares"
        if squares and real.of_torch and fake.of_torch and named == 1 and walked:
            return True
        if named is not None or (squares and walked):
            raise NotUnderstood(
                "it may be a critic's loss, but it is not seen that both are one critic's outputs, "
                "on real and on generated samples: if so, it is gf.discriminator_loss(real, fake, "
                f'"{"least_squares" if squares else "wasserstein"}")'
            )
        return False
    side = roles.generated_side(calls, names)
    if walked and side is None:
        raise NotUnderstood("it is not seen which of the critic's two inputs is generated")
    if walked and side == 0:
        raise NotUnderstood(
            "the sign looks reversed: a critic's Wasserstein loss is mean(fake) - mean(real); "
            "check it before it is replaced"
            if real.kind == "linear"
            else "the larger label is that of the generated side; check it before it is replaced"
        )
    if not walked and side is not None:
        raise NotUnderstood(
            "a figure from a critic's outputs on real and generated samples, of which no "
            "backward() is seen"
        )
    return walked


def _expandable(place: _Place, names: Names, edits: Edits) -> frozenset[str]:
    """Names that were assigned above, in this block, and are read once."""
    statements = [
        s for s in place.body[: place.k] if not edits.has_penalty(s) and not edits.spoken_within(s)
    ]
    above = {assigned_name(statement) for statement in statements} - {None}
    return frozenset(
        name
        for name in above
        if name is not None and names.once(name) is not None and names.uses(name) == 1
    )


def _places(pair: Pair, place: _Place) -> dict[str, int]:
    """Where the names were assigned that are dropped."""
    sources = {summand.source for summand in pair} - {""}
    return {
        name: j for j in range(place.k) if (name := assigned_name(place.body[j]) or "") in sources
    }


def _may_move(found: list[Summand], pair: Pair, place: _Place, names: Names) -> bool:
    """Whether both terms may be computed in one call, at the place of the first one.

    Raises:
        NotUnderstood: if something stands between them in the sum itself.
    """
    where = _places(pair, place)
    if where:
        return _may_move_down(found, pair, place, where, names)
    order = [k for k, summand in enumerate(found) if summand is pair[0] or summand is pair[1]]
    between = [summand.content for summand in found[order[0] + 1 : order[1]]]
    if any(isinstance(rest, cst.BaseExpression) and not pure(rest, names) for rest in between):
        raise NotUnderstood(
            "a call stands between the two sides of the loss, and may draw random numbers"
        )
    return True


def _may_move_down(
    found: list[Summand], pair: Pair, place: _Place, where: dict[str, int], names: Names
) -> bool:
    """Whether what was computed above may be computed here: nothing between acts on it."""
    body, k = place.body, place.k
    for summand in pair:
        assert isinstance(summand.content, Term)
        start = where.get(summand.source, k)
        between = [body[j] for j in range(start, k) if j not in where.values()]
        runs = not pure(summand.content.logits, names)
        if runs and (between or not _alone(found, pair, place, names)):
            return False
        if not moving.may_pass(summand.content.logits, between, names):
            return False
    return len(where) == len({summand.source for summand in pair} - {""})


def _alone(found: list[Summand], pair: Pair, place: _Place, names: Names) -> bool:
    """Whether nothing else in the statement may draw random numbers before the critic does."""
    line = small(place.statement)
    rest = [s.content for s in found if s is not pair[0] and s is not pair[1]]
    if not all(isinstance(r, Term) or pure(r, names) for r in rest):
        return False
    match line:
        case cst.Expr(value=cst.Call(func=cst.Attribute(value=inner), args=args)) if (
            inner is place.expression
        ):
            return all(pure(argument, names) for argument in args)
    return line is not None and pure(line, names, {place.expression})


def _write_pair(
    found: list[Summand], pair: Pair, place: _Place, names: Names, edits: Edits
) -> None:
    where = _places(pair, place)

    def turn(summand: Summand) -> tuple[int, int]:  # when its critic runs
        index = next(k for k, other in enumerate(found) if other is summand)
        return where.get(summand.source, place.k), index

    fake_first = turn(pair[1]) < turn(pair[0])
    fake, sample = _detached(pair[1], place, names, edits)
    call = sums.call_of(pair[0], fake, fake_first)
    dropped = [place.body[j] for j in sorted(where.values())]
    written = sums.without(found, pair, call)
    edits.replace(place.expression, written, "loss", place.statement, dropped)
    if sample is not None:
        edits.change(sample, _without_graph(sample), "detach")


def _without_graph(sample: cst.Arg) -> cst.Arg:
    return sample.with_changes(value=cst.parse_expression(f"{code(sample.value)}.detach()"))


def _detached(
    fake: Summand, place: _Place, names: Names, edits: Edits
) -> tuple[Summand, cst.Arg | None]:
    """The fake's term without a way back into the generator, if certainly nobody needs it, and the
    argument that changes."""
    assert isinstance(fake.content, Term)
    called = roles.critic_call(fake.content.logits, names)
    if called is None or not isinstance(called.args[0].value, cst.Name):
        return fake, None
    logits, sample = fake.content.logits, called.args[0]
    if isinstance(logits, cst.Name) and names.uses(logits.value) != 1:
        return fake, None
    assert isinstance(sample.value, cst.Name)
    made = names.definition(sample.value)
    if not isinstance(made, cst.Call) or not roles.is_generator(made.func):
        return fake, None
    if code(made.func) == code(called.func):
        return fake, None
    unread = (
        not detaching.reads_gradients(names.facts.module, names)
        and all(detaching.without_learners(a.value, names) for a in made.args if not a.star)
        and not any(a.star for a in made.args)
        and not detaching.share_weights(code(made.func), code(called.func), names)
        and detaching.only_walked_back(place.statement, names)
        and detaching.zeroed_before_read(
            place.body, place.k, code(made.func), code(called.func), names
        )
    )
    if not unread:
        edits.leave(
            sample,
            f"{sample.value.value} is not detached, so that the critic's backward walks through "
            f"the generator: if nobody reads what it leaves there, write "
            f"{sample.value.value}.detach()",
        )
        return fake, None
    if called in (logits, *_shaping(logits)):
        edits.explain(sample, "detach")
        new = logits.with_deep_changes(sample, value=_without_graph(sample).value)
        return replace(fake, content=replace(fake.content, logits=new)), None
    return fake, sample


def _shaping(logits: cst.BaseExpression) -> list[cst.BaseExpression]:
    found = []
    inner: cst.BaseExpression | None = logits
    while inner is not None and (inner := roles.shaped(inner)) is not None:
        found.append(inner)
    return found
