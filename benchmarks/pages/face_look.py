"""The same seeds of a GAN at many strengths of an edit, each picture with what the judge of faces sees in it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.judging.judge import erased
from benchmarks.pages.face_grid import COLUMNS, LOOKED_AT
from benchmarks.pages.strengths import STRENGTHS, Looked
from benchmarks.pictures.grid import Line, Pair, Verdict
from benchmarks.probes.faces import Reader
from benchmarks.suites.gan_suite import GanSuite
from erase.concept import Concept
from erase.edit import Edit
from erase.errors import BadInput
from erase.model import Gan, Shot
from erase.work import Work
from generators.pocket.faces.words import attribute

CLEAR = 0.4  # an attribute read so far from even odds should be read the same after an erasure of another


def look_gan(
    model: Gan, edit: Edit, suite: GanSuite, *, seeds: Sequence[int] = (), strengths: Sequence[float] = STRENGTHS
) -> Work[Looked]:
    """Draws seeds that showed the concept above seeds that did not, or the seeds that are given, at every strength.

    Of a GAN whose pictures nobody here can read, the first seeds without verdicts.
    """
    names = _readable(model, [clause for name in erased(edit) for clause in name.split(" and ")])
    reader = Reader.of(suite, model.device) if names else None
    columns = [] if reader is None else [reader.column(name) for name in names]
    if seeds:
        lines = [Line("Your seeds", "", _pairs(seeds), False)]
    elif reader is None:
        lines = [Line("Seeds", "nobody here can read these pictures; judge for yourself", _pairs(range(12)), False)]
    else:
        pool = list(range(suite.first_seed, suite.first_seed + LOOKED_AT))
        sure = reader.read((yield from model.sample([Shot(seed) for seed in pool])) * 2 - 1).sure[:, columns].amax(1)
        having, bare = ([pool[int(i)] for i in part.nonzero()[:COLUMNS, 0]] for part in (sure > 0.5, sure < 0.5))
        lines = [
            Line("With it", f"should lose {', '.join(names)}", _pairs(having), True),
            Line("Without it", "should stay as they are", _pairs(bare), False),
        ]
    shots = [pair.shot for line in lines for pair in line.pairs]
    gone = torch.tensor([line.gone for line in lines for _ in line.pairs])
    pictures: dict[float, Tensor] = {}
    told: dict[float, list[Verdict]] = {}
    for strength in sorted({0.0, *strengths}):
        with edit.applied(model.network, strength):
            pictures[strength] = yield from model.sample(shots)
        if reader is None:
            told[strength] = [Verdict(()) for _ in shots]
            continue
        now = reader.read(pictures[strength] * 2 - 1).sure
        was = now if strength == 0.0 else reader.read(pictures[0.0] * 2 - 1).sure
        told[strength] = _verdicts(was, now, columns, names, None if seeds else gone)
    return Looked(tuple(lines), pictures, told, "nobody" if reader is None else reader.name)


def _verdicts(
    was: Tensor, now: Tensor, columns: Sequence[int], names: Sequence[str], gone: Tensor | None
) -> list[Verdict]:
    """From probabilities [n attribute] of the unedited and the edited pictures; no opinion without `gone` [n]."""
    others = [column for column in range(was.shape[1]) if column not in columns]
    clear = (was[:, others] - 0.5).abs() > CLEAR
    same = ((was[:, others] > 0.5) == (now[:, others] > 0.5)) | ~clear
    without = now[:, columns].amax(1) < 0.5
    good = None if gone is None else without & (gone | same.all(1))
    return [
        Verdict(tuple(f"{100 * float(row[column]):.0f} % {name}" for column, name in zip(columns, names, strict=True)),
                None if good is None else bool(good[number]))
        for number, row in enumerate(now)
    ]  # fmt: skip


def _pairs(seeds: Sequence[int]) -> tuple[Pair, ...]:
    return tuple(Pair(Shot(seed), "", "") for seed in seeds)


def _readable(model: Gan, names: Sequence[str]) -> list[str]:
    """The attributes these concepts are; none where nobody can tell them in the model's pictures."""
    try:
        for name in names:
            model.scorer(Concept(name=name, kind="attribute"))
        return [attribute(name) for name in names]
    except BadInput:
        return []
