"""UnlearnCanvas' two further tracks: concepts erased one after another, and one object in one style (finer scale).

Sequence: after every erasure, is each earlier concept still gone (UA), and what is left of the never-erased (RA, the
mean of IRA and CRA)? Pair: UA of the pair itself, SC over the same style with other objects, OC over the same object in
other styles, UP over everything else; a picture counts as kept when both its style and its object are seen.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.judging.judge import judge, tools
from benchmarks.judging.predictions import Predictions, answers, remembered
from benchmarks.metrics.accuracy import wilson
from benchmarks.probes.base import Probe
from benchmarks.report import Report
from benchmarks.studies.common import Round, concept, kept_beside
from benchmarks.suites.suite import Cell, Suite, Target
from erase.concept import Concept
from erase.edit import Edit
from erase.methods.registry import build
from erase.model import Generator
from erase.request import Request, run_method
from erase.work import Work

PAIRS = (
    ("Van_Gogh", "Cats"), ("Neon_Lines", "Towers"), ("Sketch", "Dogs"), ("Watercolor", "Flowers"), ("Rust", "Horses"),
    ("Crayon", "Trees"), ("Pop_Art", "Birds"), ("Winter", "Sea"), ("Cartoon", "Fishes"), ("Ink_Art", "Statues"),
)  # fmt: skip
BESIDE, REST = 6, 12  # pictures of the same style, of the same object; and of neither


@dataclass(frozen=True)
class After:
    """What holds after one step of a sequence: UA of everything erased so far, IRA and CRA of the never-erased."""

    method: str
    order: str
    erased: tuple[str, ...]
    UA: Mapping[str, float]
    IRA: float
    CRA: float
    n: int

    @property
    def RA(self) -> float:
        """The mean of both retentions."""
        return (self.IRA + self.CRA) / 2


def sequences(model: Generator, suite: Suite, rounds: Sequence[Round], targets: Sequence[Target]) -> Work[list[After]]:
    """Each method forwards, backwards, and all at once; the never-erased labels are kept in every step."""
    lines = []
    for round_ in rounds:
        for name, order in (("forwards", targets), ("backwards", targets[::-1])):
            applied: Edit | None = None
            for done in range(1, len(order) + 1):
                edit = yield from _erased(model, suite, round_, order[done - 1 : done], targets, applied)
                applied = edit if applied is None else applied + edit
                lines.append((yield from _after(model, suite, round_, name, order[:done], applied)))
        together = yield from _erased(model, suite, round_, targets, targets, None)
        lines.append((yield from _after(model, suite, round_, "at once", targets, together)))
    return lines


def _erased(
    model: Generator, suite: Suite, round_: Round, now: Sequence[Target], ever: Sequence[Target], applied: Edit | None
) -> Work[Edit]:
    """The edit that erases `now` from the model as it is with the edits before on."""
    concepts = [concept(suite, target) for target in now]
    keep = kept_beside(suite, ever)
    eraser = build(round_.method, round_.preset_for(now[0]), round_.knobs)
    if applied is None:
        return (yield from run_method(eraser, Request(model, concepts, keep, seed=round_.seed)))
    with applied.applied(model.network):
        return (yield from run_method(eraser, Request(model, concepts, keep, seed=round_.seed)))


def _after(
    model: Generator, suite: Suite, round_: Round, order: str, erased: Sequence[Target], edit: Edit
) -> Work[After]:
    report = yield from judge(model, edit, [target.label for target in erased], suite)
    IRA, CRA = (report.scores[name] for name in ("IRA", "CRA"))
    gone = {target.label: forgotten(report, target) for target in erased}
    return After(round_.label, order, tuple(gone), gone, IRA.value, CRA.value, IRA.n)


def forgotten(report: Report, target: Target) -> float:
    """UA of one of several targets: the share of its pictures in which it is not seen."""
    shown = [row["after"][target.kind] for row in report.rows if row[target.kind] == target.label and "after" in row]
    return sum(seen != target.label for seen in shown) / len(shown) if shown else math.nan


@dataclass(frozen=True)
class Finer:
    """One pair erased: each share with its n, and the unedited model's beside it."""

    method: str
    style: str
    object: str
    shares: Mapping[str, tuple[float, int]]
    unedited: Mapping[str, tuple[float, int]]


def erase_pairs(
    model: Generator, suite: Suite, rounds: Sequence[Round], pairs: Sequence[tuple[str, str]]
) -> Work[list[Finer]]:
    """Each method on each pair; what shares its style or its object is named as kept."""
    probe, _ = tools(suite, str(model.device))
    lines = []
    for style, thing in pairs:
        groups = pair_cells(suite, style, thing)
        shots = [cell.shot for cells in groups.values() for cell in cells]
        before, _ = yield from remembered(model, shots, suite, probe)
        both = Concept(
            name=f"{suite.spoken(thing)} image in {suite.spoken(style)}", kind="object",
            anchor=f"{suite.spoken(thing)} image in {suite.photo_word}",
        )  # fmt: skip
        keep = [Concept(name=f"{suite.spoken(c.object)} image in {suite.spoken(c.style)}", kind="object")
                for name in ("SC", "OC") for c in groups[name]]  # fmt: skip
        for round_ in rounds:
            eraser = build(round_.method, round_.preset, round_.knobs)
            edit = yield from run_method(eraser, Request(model, [both], keep, seed=round_.seed))
            with edit.applied(model.network):
                after = yield from answers(model, shots, suite, probe)
            lines.append(Finer(round_.label, style, thing, shares(groups, after, probe), shares(groups, before, probe)))
    return lines


def pair_cells(suite: Suite, style: str, thing: str) -> dict[str, list[Cell]]:
    """Whose pictures say what: the pair at every seed, its row, its column, and others; neighbours come first."""
    seed = suite.grid_seeds[0]
    styles, objects = (
        [*near, *(label for label in labels if label not in (own, suite.photo, *near))][:BESIDE]
        for own, labels in ((style, suite.styles), (thing, suite.objects))
        for near in [suite.neighbours.get(own, ())]
    )
    others = [(a, b) for k in range(BESIDE) for a, b in zip(styles, objects[k:] + objects[:k], strict=True)]
    return {
        "UA": [suite.cell(style, thing, each) for each in suite.seeds],
        "SC": [suite.cell(style, other, seed) for other in objects],
        "OC": [suite.cell(other, thing, seed) for other in styles],
        "UP": [suite.cell(a, b, seed) for a, b in others[:REST]],
    }


def shares(groups: Mapping[str, Sequence[Cell]], found: Predictions, probe: Probe) -> dict[str, tuple[float, int]]:
    """UA: the pair is not seen; SC, OC, UP: both labels are."""
    told, place = {}, 0
    for name, cells in groups.items():
        rows = [found.row(place + i, cell, probe) for i, cell in enumerate(cells)]
        place += len(cells)
        seen = [row.style_seen == row.style and row.object_seen == row.object for row in rows]
        told[name] = (sum(hit != (name == "UA") for hit in seen) / len(seen), len(seen))
    return told


def sequences_table(lines: Sequence[After]) -> str:
    """Markdown: a row per step."""
    rows = ["| method | order | erased so far: UA | RA | IRA | CRA | n kept |", "|---|---|---|---|---|---|---|"]
    for line in lines:
        gone = ", ".join(f"{label} {100 * share:.0f}" for label, share in line.UA.items())
        kept = " | ".join(f"{100 * share:.1f}" for share in (line.RA, line.IRA, line.CRA))
        rows.append(f"| `{line.method}` | {line.order} | {gone} | {kept} | {line.n} |")
    return "\n".join(rows)


def pairs_table(lines: Sequence[Finer]) -> str:
    """Markdown: a row per method, pooled over its pairs, the unedited model's first."""
    rows = ["| method | pairs | UA | SC | OC | UP |", "|---|---|---|---|---|---|"]
    pooled = {"unedited": [line.unedited for line in lines if line.method == lines[0].method]}
    pooled |= {
        name: [each.shares for each in lines if each.method == name] for name in dict.fromkeys(o.method for o in lines)
    }
    for name, told in pooled.items():
        rows.append(f"| `{name}` | {len(told)} | " + " | ".join(_pooled(told, score) for score in told[0]) + " |")
    return "\n".join(rows)


def _pooled(told: Sequence[Mapping[str, tuple[float, int]]], score: str) -> str:
    n = sum(each[score][1] for each in told)
    share = math.fsum(each[score][0] * each[score][1] for each in told) / n
    low, high = wilson(share, n)
    return f"{100 * share:.1f} ({100 * low:.0f}–{100 * high:.0f}, n {n})"
