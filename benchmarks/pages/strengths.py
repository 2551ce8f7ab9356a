"""The same shots at many strengths of an edit, each picture with a probe's verdict: what a strength slider shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from benchmarks.judging.judge import concepts_of, erased
from benchmarks.judging.predictions import sampled
from benchmarks.pages.gallery import rows_for, verdicts
from benchmarks.pictures.grid import Line, Pair, Verdict
from benchmarks.probes.base import identity
from benchmarks.probes.open_probe import probe_of
from benchmarks.suites.suite import Suite, Target
from erase.edit import Edit
from erase.errors import BadInput, plain
from erase.model import Denoiser, Shot
from erase.work import Work
from generators.pocket.canvas.words import SYNONYMS

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)
COLUMNS = 2


@dataclass(frozen=True)
class Looked:
    """Pictures [n 3 h w] and n verdicts by strength, n the cells of all lines in order; 0 is the unedited model."""

    lines: tuple[Line, ...]
    pictures: dict[float, Tensor]
    verdicts: dict[float, list[Verdict]]
    probe: str


def own_line(prompt: str, seeds: Sequence[int], concepts: Sequence[str], edit: Edit, suite: Suite) -> Line:
    """A row of a prompt of one's own: its pictures should lose the erased concepts that it names, by any word."""
    style, thing = "", ""
    for target in suite.targets(name for name in concepts if _known(name, suite)):
        words = {
            target.label,
            suite.spoken(target.label),
            *SYNONYMS.get(target.label, ()),
            *_words(edit, target, suite),
        }
        if any(f" {plain(word)} " in f" {_letters(prompt)} " for word in words):
            style, thing = (target.label, thing) if target.kind == "style" else (style, target.label)
    return Line(prompt, "", tuple(Pair(Shot(seed, prompt), style, thing) for seed in seeds), bool(style or thing))


def _known(name: str, suite: Suite) -> bool:
    try:
        return bool(suite.target(name))
    except BadInput:
        return False


def _words(edit: Edit, target: Target, suite: Suite) -> set[str]:
    """The names and prompts under which an edit erased a label."""
    entries = [concept for concept in concepts_of(edit) if _known(concept["name"], suite)]
    return {
        word
        for entry in entries
        if suite.target(entry["name"]) == target
        for word in (entry["name"], *entry.get("prompts", ()))
    }


def _letters(prompt: str) -> str:
    """A prompt as names are compared, without the marks between words."""
    return plain("".join(letter if letter.isalnum() or letter in "-_'" else " " for letter in prompt))


def look(
    model: Denoiser,
    edit: Edit,
    suite: Suite,
    *,
    prompts: Sequence[str] = (),
    seeds: Sequence[int] = (0, 1),
    strengths: Sequence[float] = STRENGTHS,
    batch: int = 32,
) -> Work[Looked]:
    """Draws target, paraphrase, neighbours and unrelated, or, given prompts, these with the seeds; at every strength.

    BadInput for a strength that is no plain size, and without any.
    """
    if not strengths or not all(0 <= value <= 10 for value in strengths):
        raise BadInput(
            f"The strengths {', '.join(map(str, strengths)) or '(none)'} are not valid; give some from 0 to 10."
        )
    concepts = list(erased(edit))
    if prompts:
        lines = [own_line(prompt, seeds, concepts, edit, suite) for prompt in prompts]
    else:
        lines = rows_for(model, concepts, suite, COLUMNS)
    shots = [pair.shot for line in lines for pair in line.pairs]
    reader = probe_of(suite, str(model.device))
    pictures: dict[float, Tensor] = {}
    told: dict[float, list[Verdict]] = {}
    for strength in sorted({0.0, *strengths}):
        with sampled(model, suite), edit.applied(model.network, strength):
            drawn = yield from model.sample(shots, steps=suite.steps, guidance=suite.guidance, batch=batch)
        pictures[strength] = drawn
        told[strength] = [after for _, after in verdicts(lines, pictures[0.0], drawn, concepts, suite, reader)]
    return Looked(tuple(lines), pictures, told, identity(reader))
