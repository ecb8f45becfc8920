"""A profile on the terminal. Names are anybody's: styles are Text, never markup."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ganloss_fast.bench.profile.findings import Profile, loss_arithmetic
from ganloss_fast.bench.profile.ledger import Cost, D, Ledger, Operator
from ganloss_fast.bench.tables import bytes_text, time_text


def _name(ledger: Ledger, operator: Operator) -> str:
    """discriminator forward, generator backward to its weights; optimizer."""
    side = ledger.side(operator)
    return operator.place.part if side is None else f"{side} {operator.place.part}"


def by_part(ledger: Ledger) -> dict[tuple[str, str], Cost]:
    """(whose step, part) -> cost, the calls of a module together, in the order of the step."""
    found: dict[tuple[str, str], Cost] = {}
    for operator in ledger.operators:
        part = ledger.owner(operator), _name(ledger, operator)
        found.setdefault(part, Cost()).add(operator)
    return {part: cost for part, cost in found.items() if cost.seconds}


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.1%}" if whole else ""


def parts_table(profile: Profile) -> Table:
    ledger, total = profile.ledger, profile.ledger.total()
    table = Table(title=f"One step of {profile.name}", title_justify="left")
    for column in ("in the step of", "part", "GFLOP", "of FLOPs", "time", "of time", "written"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for (owner, part), cost in by_part(ledger).items():
        table.add_row(
            owner,
            part,
            f"{cost.flops / 1e9:.3f}",
            _share(cost.flops, total.flops),
            time_text(1e6 * cost.seconds),
            _share(cost.seconds, total.seconds),
            bytes_text(cost.written),
        )
    table.add_section()
    whole = (f"{total.flops / 1e9:.3f}", "", time_text(1e6 * total.seconds), "")
    table.add_row("all", "", *whole, bytes_text(total.written))
    return table


def show(profile: Profile, peak: int, step_seconds: float, console: Console) -> None:
    """``step_seconds``: of the step when nobody watches."""
    total = profile.ledger.total()
    console.print(parts_table(profile))
    console.print(f"Without the watching the step takes {time_text(1e6 * step_seconds)}.")
    console.print(f"Peak memory above what was there before: {bytes_text(peak)}.")
    arithmetic = loss_arithmetic(profile.ledger)
    if arithmetic.operators:
        console.print(
            f"Losses and all else outside of networks and optimizers: "
            f"{_share(arithmetic.seconds, total.seconds)} of the time, "
            f"{arithmetic.operators} operators."
        )
    for note in profile.notes:
        console.print(note, highlight=False)
    if profile.findings:
        _show_findings(profile, step_seconds, console)
    elif any(call.side == D for call in profile.ledger.calls):
        console.print("Nothing is thrown away that an exact remedy would save.")


def _show_findings(profile: Profile, step_seconds: float, console: Console) -> None:
    total, together = profile.ledger.total(), profile.together
    console.print(
        f"\nThrown away or done twice: together {_share(together.flops, total.flops)} of the FLOPs "
        f"and {_share(together.seconds, total.seconds)} of the time; without it the step is about "
        f"{profile.speedup:.2f} times as fast. Every remedy is exact; what several of them leave "
        "out counts once in the sum."
    )
    for finding in profile.findings:
        cost = finding.cost
        share = cost.seconds / max(total.seconds, 1e-12)
        said = (
            f"keeps {bytes_text(finding.keeps)} in vain"
            if finding.keeps
            else f"{_share(cost.flops, total.flops)} of the FLOPs, {share:.1%} of the time "
            f"(about {time_text(1e6 * share * step_seconds)} of the step)"
        )
        console.print(Text.assemble("\n", (finding.what, "bold"), f": {said}"))
        for line in finding.lines.splitlines():
            console.print(f"    {line}", highlight=False)
