"""Leaderboard and interference matrix from hand-made reports."""

from __future__ import annotations

import math
import random

import pytest

from benchmarks.metrics.accuracy import bootstrap
from benchmarks.metrics.interference import changed, interference
from benchmarks.pages.html import sweep_page
from benchmarks.pages.published_numbers import published
from benchmarks.pictures.plots import Axis, Point, front
from benchmarks.report import Score
from benchmarks.sweeps.leaderboard import Entry, Leaderboard, harmonic, leaderboard, over_targets
from erase.errors import BadInput


def score(value: float, n: int = 10, baseline: float = 0.5) -> Score:
    if math.isnan(value):
        return Score(value=value, n=0, low=value, high=value, baseline=value, better="high", probe="p", note="no")
    return Score(value=value, n=n, low=0.0, high=1.0, baseline=baseline, better="high", probe="p")


def entry(label: str, concept: str, kind: str, three: tuple[float, float, float], seed: int = 0) -> Entry:
    scores = dict(zip(("UA", "IRA", "CRA"), map(score, three), strict=True))
    return Entry(label=label, method="uce", concept=concept, kind=kind, seed=seed, suite="s", scores=scores)


ENTRIES = [
    entry("a", "Rust", "style", (1.0, 0.8, 0.9)),
    entry("a", "Winter", "style", (0.5, 0.6, 0.7)),
    entry("a", "Cats", "object", (0.9, 0.9, 0.3)),
    entry("b", "Rust", "style", (0.2, 1.0, 1.0)),
]


def test_lines_are_means_over_targets_of_one_kind() -> None:
    board = leaderboard("x", [(each, ()) for each in ENTRIES])
    assert [(line.label, line.kind, line.targets) for line in board.lines] == [
        ("a", "style", 2), ("a", "object", 1), ("b", "style", 1),
    ]  # fmt: skip
    styles = board.lines[0]
    assert [styles.scores[name].value for name in ("UA", "IRA", "CRA")] == pytest.approx([0.75, 0.7, 0.8])
    assert (styles.scores["UA"].low, styles.scores["UA"].high) == bootstrap([1.0, 0.5])
    assert styles.scores["UA"].n == 20
    assert styles.harmonic_mean == pytest.approx(3 / (1 / 0.75 + 1 / 0.7 + 1 / 0.8))
    assert board.mean_of_six == {"a on s": pytest.approx((0.75 + 0.7 + 0.8 + 0.9 + 0.9 + 0.3) / 6)}
    assert "a       s      2 styles" in board.table()


def test_failed_cells_are_counted_and_told() -> None:
    broken = ENTRIES[1].model_copy(update={"status": "failed", "message": "It broke.", "scores": {}})
    board = leaderboard("x", [(ENTRIES[0], ()), (broken, ())])
    assert (board.lines[0].targets, board.lines[0].missing) == (1, 1)
    assert "! a Winter seed 0: failed. It broke." in board.table()
    only = leaderboard("x", [(broken, ())])
    assert only.lines == ()


def test_unscored_entries_are_left_out_of_the_mean_and_told() -> None:
    mean = over_targets([score(0.2), score(math.nan), score(0.4)], "styles")
    assert mean.value == pytest.approx(0.3)
    assert mean.note == "mean over 2 styles, 1 unscored"
    assert over_targets([score(math.nan)], "styles").unscored
    assert harmonic([0.5, 0.0]) == 0.0


def test_it_reads_back_and_refuses_what_is_newer() -> None:
    board = leaderboard("x", [(each, ()) for each in ENTRIES])
    text = board.model_dump_json()
    assert Leaderboard.read(text) == board
    with pytest.raises(BadInput, match="version 9"):
        Leaderboard.read(text.replace('"version":1', '"version":9', 1))


def row(style: str, thing: str, before: tuple[str, str], after: tuple[str, str]) -> dict[str, object]:
    told = [{"style": seen[0], "object": seen[1]} for seen in (before, after)]
    return {"style": style, "object": thing, "before": told[0], "after": told[1]}


def test_interference_by_hand() -> None:
    """Erasing Cats makes Dogs frogs half of the time; what stands in a Cats picture says nothing about styles."""
    rows = [
        row("Rust", "Cats", ("Rust", "Cats"), ("Winter", "Dogs")),
        row("Rust", "Dogs", ("Rust", "Dogs"), ("Rust", "Frogs")),
        row("Winter", "Dogs", ("Winter", "Dogs"), ("Winter", "Dogs")),
        row("Winter", "Frogs", ("Rust", "Frogs"), ("Winter", "Frogs")),
    ]
    matrix = interference([("Cats", rows)])
    cells = matrix.cells["Cats"]
    assert {label: (cell.change, cell.n) for label, cell in cells.items()} == {
        "Cats": (-1.0, 1), "Dogs": (-0.5, 2), "Frogs": (0.0, 1), "Rust": (0.0, 1), "Winter": (0.5, 2),
    }  # fmt: skip
    assert matrix.worst["Cats"] == ("Dogs",)
    assert matrix.mean == pytest.approx((-0.5 + 0 + 0 + 0.5) / 4)
    assert matrix.asymmetry is None
    shuffled = rows.copy()
    random.Random(1).shuffle(shuffled)
    assert interference([("Cats", shuffled)]) == matrix


def test_runs_of_one_label_are_pooled_and_asymmetry_compares_both_ways() -> None:
    lost = [row("Rust", "Dogs", ("Rust", "Dogs"), ("Rust", "Cats"))]
    kept = [row("Rust", "Cats", ("Rust", "Cats"), ("Rust", "Cats"))]
    matrix = interference([("Cats", lost), ("Cats", kept), ("Dogs", kept)])
    assert (matrix.cells["Cats"]["Dogs"].change, matrix.cells["Dogs"]["Cats"].change) == (-1.0, 0.0)
    assert matrix.asymmetry == 1.0


def test_the_interval_of_a_paired_change_is_agresti_and_mins() -> None:
    # 10 pairs, 4 lost, 1 won: d' = -3/12, variance (6 - 9/12) / 144.
    found = changed([(True, False)] * 4 + [(False, True)] + [(True, True)] * 5)
    half = 1.959963984540054 * math.sqrt(6 - 9 / 12) / 12
    assert found.change == -0.3
    assert (found.low, found.high) == pytest.approx((-0.25 - half, -0.25 + half))
    none = changed([(True, True)] * 3)
    assert none.low < 0 < none.high


def test_the_front_keeps_whoever_nobody_beats() -> None:
    def point(label: str, x: float, y: float) -> Point:
        return Point(label, x, y, (x, x), (y, y))

    points = [point("a", 0.9, 5.0), point("b", 0.5, 1.0), point("c", 0.4, 4.0), point("d", 0.9, 5.0)]
    best = front(points, Axis("UA", "high"), Axis("FID", "low"))
    assert [each.label for each in best] == ["b", "a", "d"]


def test_the_published_means_are_the_quoted_ones() -> None:
    means = {line["method"]: round(line["mean"], 2) for line in published("unlearncanvas")["rows"]}
    assert means == {
        "SalUn": 92.43, "SAeUron": 90.77, "EDiff": 82.41, "SLUG": 82.24, "SPM": 80.23, "CA": 78.05, "ESD": 77.61,
        "SHS": 74.90, "SEOT": 72.90, "FMN": 66.93, "UCE": 62.44,
    }  # fmt: skip


def test_the_page_escapes_what_users_wrote() -> None:
    evil = "<script>alert(1)</script> $x_{y}$"
    rows = [row("Rust", "Dogs", ("Rust", "Dogs"), ("Rust", "Cats"))]
    named = ENTRIES[0].model_copy(update={"label": evil, "marks": (evil,), "status": "done"})
    failed = ENTRIES[1].model_copy(update={"label": evil, "status": "failed", "message": evil, "scores": {}})
    board = leaderboard(evil, [(named, rows), (ENTRIES[3], rows), (failed, ())])
    page = sweep_page(board, [], evil, evil)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    assert page.count("data:image/svg+xml;base64,") >= 3
