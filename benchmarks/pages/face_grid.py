"""The before/after picture of an unlearnt GAN: seeds that showed the concept above seeds that did not."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.pictures.grid import Line, Pair, Verdict, grid
from benchmarks.probes.faces import Reader
from benchmarks.report import Report, shown
from benchmarks.suites.gan_suite import GanSuite
from erase.edit import Edit
from erase.model import Gan, Shot
from erase.work import Work

COLUMNS, LOOKED_AT = 6, 96


def draw_faces(model: Gan, edit: Edit, path: Path, suite: GanSuite, report: Report) -> Work[Path]:
    """Six seeds of each kind before and after, each with what the judge sees of the concept.

    Of an erased identity: its seeds above everybody else's, each with how alike the judge finds the two pictures.
    """
    if not report.about["targets"]:
        return (yield from _draw_identity(model, edit, path, suite, report))
    reader = Reader.of(suite, model.device)
    names: list[str] = list(report.about["targets"])
    columns = [reader.column(name) for name in names]
    seeds = list(range(suite.first_seed, suite.first_seed + LOOKED_AT))
    pool = yield from model.sample([Shot(seed) for seed in seeds])
    sure = reader.read(pool * 2 - 1).sure[:, columns].amax(1)
    rows = [(sure > 0.5).nonzero()[:, 0][:COLUMNS], (sure < 0.5).nonzero()[:, 0][:COLUMNS]]
    chosen = torch.cat(rows)
    with edit.applied(model.network):
        after = yield from model.sample([Shot(seeds[int(i)]) for i in chosen])
    now = reader.read(after * 2 - 1).sure[:, columns].amax(1)
    said = ", ".join(names)
    headings = (("with it", f"should lose {said}"), ("without", "should stay as it is"))
    lines = [
        Line(heading, hint, tuple(Pair(Shot(seeds[int(i)], f"seed {seeds[int(i)]}"), "", "") for i in row), first == 0)
        for first, ((heading, hint), row) in enumerate(zip(headings, rows, strict=True))
    ]
    verdicts = [(_verdict(sure[i], None), _verdict(value, bool(value < 0.5))) for i, value in
                zip(chosen, now, strict=True)]  # fmt: skip
    return grid(
        pool[chosen], after, lines, path, f"{said} erased from {model.name} by {edit.about.get('method')}",
        subtitle=_headline(report), footer=f"how sure {reader.name} is of {said}", verdicts=verdicts,
    )  # fmt: skip


def _draw_identity(model: Gan, edit: Edit, path: Path, suite: GanSuite, report: Report) -> Work[Path]:
    reader, who = Reader.of(suite, model.device), list(report.about["seeds"])[:COLUMNS]
    others = [seed for seed in range(suite.first_seed, suite.first_seed + 2 * COLUMNS) if seed not in who][:COLUMNS]
    shots = [Shot(seed) for seed in (*who, *others)]
    before = yield from model.sample(shots)
    with edit.applied(model.network):
        after = yield from model.sample(shots)
    seen = [reader.read(images * 2 - 1).features for images in (before, after)]
    alike = F.cosine_similarity(*seen, dim=1)
    lines = [
        Line(heading, hint, tuple(Pair(Shot(seed, f"seed {seed}"), "", "") for seed in row), gone)
        for heading, hint, row, gone in (("erased", "should become somebody else", who, True),
                                         ("others", "should stay who they are", others, False))
    ]  # fmt: skip
    verdicts = [(Verdict(()), Verdict((f"cosine {float(value):.2f}",))) for value in alike]
    return grid(before, after, lines, path, f"{len(who)} seeds erased from {model.name} by {edit.about.get('method')}",
                subtitle=_headline(report), footer=f"cosine of {reader.name} features", verdicts=verdicts)  # fmt: skip


def _verdict(sure: Tensor, good: bool | None) -> Verdict:
    return Verdict((f"{100 * float(sure):.0f} % sure",), good)


def _headline(report: Report) -> str:
    parts = [
        f"{name} {shown(name, score.value)} (unedited {shown(name, score.baseline)})"
        for name, score in report.scores.items()
        if name in ("PUL", "FID", "gamma_normalised", "ID", "ID_others") and not score.unscored
    ]
    return "   ·   ".join([*parts, *report.marks])
