"""README and docs: their code runs, their numbers are the record's, their links lead somewhere."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from critics import dcgan
from torch import nn

import ganloss_fast as gf
from benchmarks import picture, tables

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
SITE = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [README, *SITE]
BESIDE = [ROOT / name for name in ("CONTRIBUTING.md", "benchmarks/README.md", "demo/README.md")]


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S)


class Discriminators(nn.Module):
    """Two critics that give their feature maps too."""

    def __init__(self) -> None:
        super().__init__()
        self.critics = nn.ModuleList(dcgan(4, 16) for _ in range(2))

    def forward(self, x: torch.Tensor) -> tuple[list[torch.Tensor], list[list[torch.Tensor]]]:
        logits, maps = [], []
        for critic in self.critics:
            found = [x]
            for layer in critic:
                found.append(layer(found[-1].clone()))
            logits.append(found.pop())
            maps.append(found[1:])
        return logits, maps


def names_of_the_reader() -> dict[str, object]:
    """What whoever copies a block has already."""
    torch.manual_seed(0)
    critic, batch = dcgan(4, 16), (4, 3, 16, 16)
    generator = nn.Sequential(nn.Linear(8, 3 * 16 * 16), nn.Unflatten(1, batch[1:]))
    labels = torch.randint(10, batch[:1])
    embedding = nn.Embedding(10, 1)
    return {
        "torch": torch,
        "gf": gf,
        "device": "cpu",
        "critic": critic,
        "generator": generator,
        "discriminators": Discriminators(),
        "conditional_critic": lambda x, labels: critic(x).flatten(1) + embedding(labels),
        "inputs": torch.randn(batch),
        "real": torch.randn(batch),
        "fake": torch.randn(batch),
        "noise": torch.randn(4, 8),
        "labels": labels,
        "loader": [torch.randn(batch) for _ in range(2)],
        "optimizer": torch.optim.Adam(critic.parameters(), 1e-4),
    }


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda p: p.name)
def test_every_block_of_code_runs_as_it_stands(page):
    for block in blocks(page):
        exec(compile(block, f"{page.name}: {block[:40]!r}", "exec"), names_of_the_reader())


def test_what_you_write_and_what_you_wrote_are_the_same_step():
    theirs, ours = blocks(README)[:2]
    results = []
    for block in (theirs, ours):
        names = names_of_the_reader()
        torch.manual_seed(1)  # both draw the same alpha
        exec(block, names)
        gradients = [parameter.grad.flatten() for parameter in names["critic"].parameters()]
        results.append((names["loss"].detach(), torch.cat(gradients)))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


# ---- numbers -----------------------------------------------------------------------------------


def test_the_picture_is_what_the_record_says():
    assert picture.PICTURE.read_text() == picture.picture(tables.read_records()["cpu"])


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_the_tables_are_what_the_records_say(page):
    assert tables.MARKED.search(page.read_text())
    assert page.read_text() == tables.with_tables(page.read_text(), tables.read_records())


def test_another_record_makes_another_picture_and_other_tables():
    """Else the two tests above would prove nothing."""
    records = tables.read_records()
    (line,) = (
        line
        for line in records["cpu"]["speed"]
        if line["workload"] == "DCGAN: step, fast" and line["baseline"] == "eager"
    )
    line["ratio"] += 0.5
    steps = records["steps"]
    steps["rows"] = [replace(row, p50_us=2 * row.p50_us) for row in steps["rows"]]
    assert picture.PICTURE.read_text() != picture.picture(records["cpu"])
    for page in tables.PAGES:
        assert page.read_text() != tables.with_tables(page.read_text(), records)


def test_every_row_of_the_picture_stands_in_the_record_with_its_speed_up():
    drawn = picture.PICTURE.read_text()
    for rows in picture.GROUPS.values():
        for workload in rows:
            for line in tables.comparisons(tables.read_records()["cpu"], workload).values():
                if line["baseline"] in picture.COLUMNS:
                    assert f">{line['ratio']:.2f}x<" in drawn


# ---- the pages ---------------------------------------------------------------------------------


def test_the_readme_is_one_screen_and_a_bit():
    assert len(README.read_text().splitlines()) <= 120


@pytest.mark.parametrize("page", [*PAGES, *BESIDE], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert not target.startswith("/"), target
        assert target.startswith("https://") or (page.parent / target).exists(), target


def test_the_page_of_penalties_names_every_row_of_the_table():
    section = (ROOT / "docs" / "penalties.md").read_text().split("## The table", 1)[1]
    table = section.split("## ", 1)[0]
    first_cells = re.findall(r"^\| (.*?) \|", table, re.M)
    named = [name for cell in first_cells for name in re.findall(r'`"([^"]+)"`', cell)]
    assert sorted(named) == sorted(gf.PENALTIES)


def test_the_page_of_losses_names_every_loss():
    from ganloss_fast.losses.table import LOSSES

    page = (ROOT / "docs" / "losses.md").read_text()
    for name, loss in LOSSES.items():
        assert f'`"{name}"`' in page
        assert f"`~ganloss_fast.{type(loss).__name__}`" in page


ROOMS = ("ops", "graph_cut", "losses", "penalties")
PATHS = rf"(?<![\w/.])(?:csrc|docs|ganloss_fast|tests|benchmarks|{'|'.join(ROOMS)})/[\w./]*"


@pytest.mark.parametrize("page", [*PAGES, *BESIDE], ids=lambda page: str(page.relative_to(ROOT)))
def test_the_paths_that_people_are_sent_to_exist(page):
    """``name`` stands for an op there; norm_penalty has every storey."""
    for path in re.findall(PATHS, page.read_text()):
        path = re.sub(r"(?<!\w)name(?!\w)|(?<=_)name\b", "norm_penalty", path.rstrip("."))
        base = ROOT / "ganloss_fast" if path.startswith(ROOMS) else ROOT
        assert (base / path).exists(), path


def test_a_path_is_seen():
    found = re.findall(PATHS, "In `csrc/math/terms.h`, ops/name.py and tests/proofs/.")
    assert found == ["csrc/math/terms.h", "ops/name.py", "tests/proofs/."]
