"""A profile on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from ganloss_fast.bench.profile.findings import Profile, loss_arithmetic
from ganloss_fast.bench.profile.watch import Cost, Ledger, Place
from ganloss_fast.bench.tables import bytes_text, time_text


def _name(ledger: Ledger, place: Place) -> str:
    """discriminator forward, generator backward to its weights; optimizer."""
    return place.part if place.call is None else f"{ledger.calls[place.call].side} {place.part}"


def by_part(ledger: Ledger) -> dict[tuple[str, str], Cost]:
    """(whose step, part) -> cost, the calls of a module together."""
    found: dict[tuple[str, str], Cost] = {}
    for (owner, place), cost in ledger.costs.items():
        found.setdefault((owner, _name(ledger, place)), Cost()).add(cost)
    return found


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


def show(profile: Profile, peak: int, console: Console) -> None:
    total = profile.ledger.total()
    console.print(parts_table(profile))
    console.print(f"Peak memory above what was there before: {bytes_text(peak)}.")
    arithmetic = loss_arithmetic(profile.ledger)
    console.print(
        f"Losses and all else outside of the networks and optimizers: "
        f"{_share(arithmetic.seconds, total.seconds)} of the time, "
        f"{arithmetic.operators} operators."
    )
    for note in profile.notes:
        console.print(note)
    if not profile.findings:
        console.print("Nothing is thrown away that an exact remedy would save.")
        return
    console.print("\nThrown away or done twice; each remedy is exact, and savings overlap little:")
    for finding in profile.findings:
        flops, seconds = finding.cost.flops, finding.cost.seconds
        console.print(
            f"\n[bold]{finding.what}[/]: {_share(flops, total.flops)} of the FLOPs, "
            f"{_share(seconds, total.seconds)} of the time ({time_text(1e6 * seconds)})"
        )
        for line in finding.lines.splitlines():
            console.print(f"    {line}", markup=False, highlight=False)
