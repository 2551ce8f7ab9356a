"""Many concepts erased at once: what is forgotten and what is kept at n = 1, 10, 30, and how long the solve takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, cycle, islice, product
from typing import Any

import torch

from benchmarks.judging.comparison import Comparison, costs, of_edit
from benchmarks.judging.predictions import answers, remembered
from benchmarks.metrics.accuracy import PRESETS
from benchmarks.metrics.cost import metered
from benchmarks.probes.open_probe import open_probe
from benchmarks.report import Score, shown
from benchmarks.studies.common import concept
from benchmarks.suites.suite import Cell, Suite, Target
from erase.errors import BadInput
from erase.methods.registry import build
from erase.model import Denoiser
from erase.request import Request, run_method
from erase.rng import stream
from erase.work import Work

COLUMNS = ("UA", "IRA", "CRA", "invalid", "seconds")


@dataclass(frozen=True)
class Line:
    """One method after erasing the first n concepts of the order, everything else kept."""

    method: str
    erased: tuple[str, ...]
    kept: tuple[str, ...]
    scores: Mapping[str, Score]


def order(suite: Suite, seed: int) -> tuple[Target, ...]:
    """Every style and object once, shuffled; each beginning of the row has its fair share of both kinds."""
    placed = []
    for labels in (tuple(style for style in suite.styles if style != suite.photo), suite.objects):
        drawn = torch.randperm(len(labels), generator=stream(seed, "many", labels[0])).tolist()
        placed += [((rank + 0.5) / len(labels), labels[which]) for rank, which in enumerate(drawn)]
    return suite.targets([label for _, label in sorted(placed)])


def cells(suite: Suite, erased: Sequence[Target], kept: Sequence[Target], images: int, seed: int) -> list[Cell]:
    """`images` cells that show one erased label beside a kept one, each label in turn, and as many that show none.

    A picture of two erased labels would not tell which of them was forgotten; and where little is kept, what is kept
    is drawn again from other noise.
    """
    left = {kind: [target.label for target in kept if target.kind == kind] for kind in ("style", "object")}
    if not all(left.values()):
        raise BadInput("Erasing that many leaves no style or no object to draw the others with; erase fewer.")
    shuffled = {kind: _shuffled(labels, seed, kind) for kind, labels in left.items()}
    partner = {kind: cycle(labels) for kind, labels in shuffled.items()}
    turns: Iterator[tuple[int, Target]] = ((k // len(erased), erased[k % len(erased)]) for k in count())
    forgotten = [
        suite.cell(target.label, next(partner["object"]), turn)
        if target.kind == "style"
        else suite.cell(next(partner["style"]), target.label, turn)
        for turn, target in islice(turns, max(images, len(erased)))
    ]
    pairs = _shuffled(list(product(shuffled["style"], shuffled["object"])), seed, "pairs")
    spared = (suite.cell(style, thing, turn) for turn in count() for style, thing in pairs)
    return forgotten + list(islice(spared, images))


def erase_many(
    model: Denoiser,
    suite: Suite,
    methods: Mapping[str, Mapping[str, Any]],
    counts: Sequence[int],
    *,
    images: int = 30,
    seed: int = 0,
) -> Work[list[Line]]:
    """Each method, with its knobs, on the first n concepts of one order for each n: the same shots for every method."""
    targets = order(suite, seed)
    for n in counts:
        if not 1 <= n < len(targets):
            raise BadInput(f"{n} concepts cannot be erased of {len(targets)} with any left to keep; give 1 to 30.")
    probe = open_probe(suite.probe, str(model.device))
    lines = []
    for n in counts:
        erased, kept = targets[:n], targets[n:]
        drawn = cells(suite, erased, kept, images, seed)
        shots = [cell.shot for cell in drawn]
        # Every shot of this benchmark counts for what is kept, whatever seeds the suite gives its grid.
        sheet = suite.model_copy(update={"grid_seeds": tuple({cell.seed for cell in drawn})})
        before, _ = yield from remembered(model, shots, suite, probe)
        for name, knobs in methods.items():
            work = run_method(
                build(name, None, knobs),
                Request(
                    model, [concept(suite, one) for one in erased], [concept(suite, one) for one in kept], seed=seed
                ),
            )
            edit, cost = yield from metered(work, model.device)
            with edit.applied(model.network):
                after = yield from answers(model, shots, suite, probe, stage=f"draw {name} {n}")
            sitting = Comparison(tuple(drawn), before, after, erased, sheet, probe, PRESETS["pocket"])
            scores = of_edit(sitting, None, None) | costs(edit, cost)
            lines.append(
                Line(
                    name,
                    tuple(one.label for one in erased),
                    tuple(one.label for one in kept),
                    {column: scores[column] for column in COLUMNS},
                )
            )
    return lines


def table(lines: Sequence[Line]) -> str:
    """A line per method and n: the value, in brackets its 95 % interval, and what the unedited model has."""
    text = [f"{'n':>3}  {'method':12}" + "".join(f"{column:24}" for column in COLUMNS).rstrip()]
    for line in lines:
        said = [_said(column, line.scores[column]) for column in COLUMNS]
        text.append(f"{len(line.erased):3}  {line.method:12}" + "".join(f"{cell:24}" for cell in said).rstrip())
    for n, line in {len(line.erased): line for line in lines}.items():
        base = "   ".join(f"{name} {shown(name, line.scores[name].baseline)}" for name in ("UA", "IRA", "CRA"))
        text.append(f"unedited, n {n}: {base}; UA of {line.scores['UA'].n} images, IRA of {line.scores['IRA'].n}")
    return "\n".join(text)


def summary(lines: Sequence[Line]) -> dict[str, Any]:
    """The same as JSON values: method → n → scores, what was erased, what was kept."""
    found: dict[str, Any] = {}
    for line in lines:
        scores = {name: score.model_dump(mode="json") for name, score in line.scores.items()}
        entry = {"scores": scores, "erased": list(line.erased), "kept": list(line.kept)}
        found.setdefault(line.method, {})[str(len(line.erased))] = entry
    return found


def _said(name: str, score: Score) -> str:
    if name == "seconds":
        return f"{score.value:.2f}"
    return f"{100 * score.value:.0f} % [{100 * score.low:.0f}, {100 * score.high:.0f}]"


def _shuffled(things: Sequence[Any], seed: int, *purpose: str) -> list[Any]:
    return [things[k] for k in torch.randperm(len(things), generator=stream(seed, "many", *purpose)).tolist()]
