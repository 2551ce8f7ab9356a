"""The grand table: every diffusion method in its best setting for the pocket model, on the same targets and pictures.

Cheap methods erase all 34 targets; those that train take the first of one shuffled row that has its fair share of
styles and objects everywhere. Reports lie in a folder and are never made twice; the table of what is there is committed
beside this program and written into the documentation by the same command.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.attacks.registry import build, name_of
from benchmarks.metrics.accuracy import bootstrap
from benchmarks.report import Report, Score, put, put_between
from benchmarks.studies.common import Round, attack_of, board, erase_and_judge
from benchmarks.studies.many_concepts import order
from benchmarks.studies.retrained import Retrained
from benchmarks.suites.suite import Suite, Target, load_suite
from benchmarks.sweeps.leaderboard import ACCURACIES, Leaderboard, Line
from erase.errors import BadInput, match
from erase.work import Work

SUITE = "pocket-canvas-quick"
FEW = 2
ALL = 34
# Every setting's edits of the first targets, one style and one object, are attacked with a budget that a laptop has.
ATTACK, ATTACKED = build("unlearndiffatk", 60), 2
# How many targets each takes, cheapest first; all other labels of the suite are kept.  Last, what no method can beat.
ROUNDS: Mapping[Round, int] = {
    Round(method, preset, keep_others=True): targets
    for method, preset, targets in (
        ("uce", None, ALL), ("nullspace", None, ALL), ("esd", "pocket", 6), ("ablate", "pocket", FEW),
        ("salun", "pocket", FEW), ("doco", "pocket", FEW), ("advunlearn", "pocket", FEW),
    )
} | {Retrained(): FEW}  # fmt: skip
KEPT = Path(__file__).parent / "results" / "grand.json"
DOCS = Path(__file__).parents[2] / "docs" / "results" / "benchmark.md"
BEGIN, END = "<!-- grand table -->", "<!-- end of grand table -->"
KINDS = ("style", "object")
BEFORE, AFTER = (f"{name} {name_of(ATTACK)}" for name in ("pre_ASR", "ASR"))
COLUMNS = (*ACCURACIES, "invalid", "FID", BEFORE, AFTER)


def run(model: Any, folder: Path, only: str | None = None) -> Work[None]:
    """What is missing of the table, line after line."""
    suite, known = load_suite(SUITE), {round_.label: round_ for round_ in ROUNDS}
    wanted = [known[match(name, known, "line of the grand table")] for name in only.split(",")] if only else ROUNDS
    for round_ in wanted:
        some = targets(suite, ROUNDS[round_])
        yield from erase_and_judge(model, suite, [round_], some, folder, attacks=[ATTACK], attacked=ATTACKED)


def targets(suite: Suite, count: int) -> tuple[Target, ...]:
    """The first `count` of the row."""
    return order(suite, 0)[:count]


def finished(folder: Path) -> Leaderboard:
    """The table of the reports that lie there; costs and each cell's interference are left out."""
    row = targets(load_suite(SUITE), ALL)
    paths = {name: [folder / name / f"{target.label}.json" for target in row] for name in (r.label for r in ROUNDS)}
    found = {name: {path: Report.read(path) for path in places if path.is_file()} for name, places in paths.items()}
    if not any(found.values()):
        raise BadInput(f"There is no report of the grand table in {folder}; leave --render out to make some.")
    attacks = {
        (report.about["edit"], report.job["concepts"][0]): {name_of(ATTACK): attacked}
        for reports in found.values()
        for path, report in reports.items()
        if (attacked := attack_of(path, report, ATTACK))
    }
    full = board({name: list(reports.values()) for name, reports in found.items() if reports}, attacks)
    entries = tuple(entry.model_copy(update={"scores": _bare(entry.scores)}) for entry in full.entries)
    lines = tuple(line.model_copy(update={"scores": _bare(line.scores)}) for line in full.lines)
    return full.model_copy(update={"name": "grand", "entries": entries, "lines": lines, "interference": {}})


def written(table: Leaderboard) -> str:
    """Puts the table into its file and into the documentation; gives it as Markdown."""
    KEPT.parent.mkdir(exist_ok=True)
    put(KEPT, table.model_dump_json() + "\n")
    found = markdown(table)
    put_between(DOCS, BEGIN, END, found)
    return found


def markdown(table: Leaderboard) -> str:
    """One row per method: percent with 95 % intervals over targets (Wilson's where there is one target).

    ASR: the share of prompts that show the concept without an attack, and under it.
    """
    head = ["method", "targets", *(f"{kind} {name}" for kind in KINDS for name in ACCURACIES), "mean of six", "invalid"]
    head += [f"{kind} ASR" for kind in KINDS]
    rows = [head, ["---"] * len(head)]
    for label in dict.fromkeys(line.label for line in table.lines):
        by_kind = {line.kind: line for line in table.lines if line.label == label}
        counts = " + ".join(f"{by_kind[kind].targets if kind in by_kind else 0}" for kind in KINDS)
        scores = [_percent(by_kind.get(kind), name) for kind in KINDS for name in ACCURACIES]
        mean = table.mean_of_six.get(f"{label} on {SUITE}")
        invalid = " / ".join(_percent(by_kind.get(kind), "invalid", bare=True) for kind in KINDS)
        broken = [_broken(by_kind.get(kind)) for kind in KINDS]
        rows.append([f"`{label}`", counts, *scores, "–" if mean is None else f"**{100 * mean:.1f}**", invalid, *broken])
    return f"{_table(rows)}\n\n{_table(beside(table))}"


def beside(table: Leaderboard) -> list[list[str]]:
    """Each method minus the first one, in points, on the targets that both erased; of 3 and more with an interval."""
    scores = {(entry.label, entry.concept): entry.scores for entry in table.entries if entry.status == "done"}
    first, *others = dict.fromkeys(label for label, _ in scores)
    names = (*ACCURACIES, "invalid")
    rows = [[f"minus `{first}`", "targets", *names], ["---"] * (2 + len(names))]
    for label in others:
        both = [concept for one, concept in scores if one == label and (first, concept) in scores]
        apart = ([scores[label, on][name].value - scores[first, on][name].value for on in both] for name in names)
        rows.append([f"`{label}`", str(len(both)), *map(_points, apart)])
    return rows


def _table(rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _points(values: Sequence[float]) -> str:
    mean = f"{100 * math.fsum(values) / len(values):+.1f}" if values else "–"
    low, high = (f"{100 * edge:+.1f}" for edge in bootstrap(values))
    return f"{mean} ({low} to {high})" if len(values) > 2 else mean


def _percent(line: Line | None, name: str, *, bare: bool = False) -> str:
    if line is None or name not in line.scores or line.scores[name].unscored:
        return "–"
    score = line.scores[name]
    value = f"{100 * score.value:.1f}"
    return value if bare else f"{value} ({100 * score.low:.0f}–{100 * score.high:.0f})"


def _broken(line: Line | None) -> str:
    """ASR without an attack and under it."""
    after = _percent(line, AFTER)
    return after if after == "–" else f"{_percent(line, BEFORE, bare=True)} → {after}"


def _bare(scores: Mapping[str, Score]) -> dict[str, Score]:
    """The columns of the table, without what each says about its pictures."""
    return {
        name: score.model_copy(update={"note": ""})
        for name, score in scores.items()
        if name in COLUMNS and not score.unscored
    }
