"""What a before/after grid should show: the target, other words for it, its nearest neighbours, unrelated pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.judging.judge import JudgeSettings, erased
from benchmarks.judging.predictions import sampled
from benchmarks.pictures.grid import Line, Pair, Verdict, grid
from benchmarks.probes.base import Probe
from benchmarks.probes.open_probe import probe_of
from benchmarks.report import Report, shown
from benchmarks.suites.neighbours import by_distance
from benchmarks.suites.prompts import reworded
from benchmarks.suites.suite import Suite, Target, load_suite
from erase.concept import Concept
from erase.edit import Edit
from erase.errors import BadInput
from erase.model import Denoiser, Shot
from erase.work import Step, Work


# For concepts without listed synonyms: other sentences around the same word.
def rows_for(model: Denoiser, concepts: Sequence[str | Concept], suite: Suite, columns: int = 3) -> list[Line]:
    """The rows of a grid for these concepts; a column keeps its seed and the other half of its prompt all the way down.

    A concept the suite does not know is shown in the suite's sentence all the same; neighbours are the suite's labels
    nearest in the model's own text space, so collateral damage is looked for where this model would do it.
    """
    targets = [_target(concept, suite) for concept in concepts]
    if not targets:
        raise BadInput("A grid needs a concept to show; name at least one.")
    partners = {
        "style": _partners(suite.objects, suite.first_objects, targets, columns),
        "object": _partners(suite.styles, (suite.photo or "", *suite.first_styles), targets, columns),
    }
    turns = [targets[column % len(targets)] for column in range(max(columns, len(targets)))]
    orders = {target: by_distance(model, target, targets, suite) for target in dict.fromkeys(turns)}

    def pair(column: int, target: Target, label: str, prompt: str | None = None) -> Pair:
        partner = partners[target.kind][column % columns]
        style, thing = (label, partner) if target.kind == "style" else (partner, label)
        seed = suite.seeds[column % columns % len(suite.seeds)]
        return Pair(Shot(seed, prompt or suite.sentence(style, thing)), style, thing)

    def said_otherwise(column: int, target: Target) -> Pair:
        plain = pair(column, target, target.label)
        prompt = reworded(suite, plain.style, plain.object, target, column // len(targets))
        return pair(column, target, target.label, prompt)

    here = range(columns)
    asked = tuple(pair(column, target, target.label) for column, target in enumerate(turns))
    lines = [Line("Target", "should be gone", asked[:columns], True)]
    lines += [Line("", "", asked[start : start + columns], True) for start in range(columns, len(asked), columns)]
    lines.append(Line("Paraphrase", "the same in other words", tuple(said_otherwise(c, turns[c]) for c in here), True))
    if all(orders.values()):
        places = [(c, turns[c], orders[turns[c]], c // len(targets)) for c in here]
        near = tuple(pair(c, target, order[turn % len(order)]) for c, target, order, turn in places)
        far = tuple(pair(c, target, order[-1 - turn % len(order)]) for c, target, order, turn in places)
        lines.append(Line("Neighbours", "nearest in meaning, should stay", near, False))
        lines.append(Line("Unrelated", "should stay", far, False))
    return lines


def draw_grid(
    model: Denoiser,
    edit: Edit,
    path: str | Path,
    *,
    concepts: Sequence[str | Concept] = (),
    suite: Suite | str = "pocket-canvas",
    settings: JudgeSettings = JudgeSettings(),
    report: Report | None = None,
    title: str = "",
) -> Work[Path]:
    """Draws the grid of an edit: the same shots before and after, with the probe's verdict under every picture."""
    suite = suite if isinstance(suite, Suite) else load_suite(suite)
    reader = settings.probe or probe_of(suite, str(model.device))
    named = list(concepts) or list(erased(edit))
    lines = rows_for(model, named, suite)
    shots = [pair.shot for line in lines for pair in line.pairs]
    with sampled(model, suite):
        before = yield from model.sample(shots, steps=suite.steps, guidance=suite.guidance, batch=settings.batch)
    with sampled(model, suite), edit.applied(model.network, settings.strength):
        after = yield from model.sample(shots, steps=suite.steps, guidance=suite.guidance, batch=settings.batch)
    yield Step("grid", len(shots), len(shots), preview=after)

    both = verdicts(lines, before, after, named, suite, reader)
    names = ", ".join(concept.name if isinstance(concept, Concept) else concept.replace("_", " ") for concept in named)
    title = title or f"{names}, erased by {edit.about.get('method', 'an edit')} from {model.name}"
    seeds = ", ".join(str(seed) for seed in dict.fromkeys(shot.seed for shot in shots))
    footer = f"Under each picture: what {reader.name} reads in it, green where that is as it should be. Seeds {seeds}."
    return grid(before, after, lines, path, title, subtitle=_scores(report), footer=footer, verdicts=both)


def verdicts(
    lines: Sequence[Line],
    before: torch.Tensor,
    after: torch.Tensor,
    concepts: Sequence[str | Concept],
    suite: Suite,
    reader: Probe,
) -> list[tuple[Verdict, Verdict]]:
    """What a probe says of the pictures [n 3 h w] of all pairs before and after these concepts were erased."""
    gone = {_target(concept, suite).label for concept in concepts}
    pairs = [(pair, line.gone) for line in lines for pair in line.pairs]
    return [
        (
            Verdict(_said(suite, was)),
            Verdict(_said(suite, now), _fine(was, now, pair, gone if lost else None, suite)),
        )
        for (pair, lost), was, now in zip(pairs, _read(reader, before), _read(reader, after), strict=True)
    ]


def _target(concept: str | Concept, suite: Suite) -> Target:
    """The suite's label for a concept, or the concept's own words where the suite has none."""
    name = concept.name if isinstance(concept, Concept) else concept
    try:
        return suite.target(name)
    except BadInput:
        style = isinstance(concept, Concept) and concept.kind == "style"
        return Target("style" if style else "object", name)


def _partners(labels: Sequence[str], first: Sequence[str], targets: Sequence[Target], columns: int) -> list[str]:
    """The other half of each column's prompt: labels that are not erased themselves, spread over the vocabulary."""
    gone = {target.label for target in targets}
    spread = [labels[(3 * k + 4) % len(labels)] for k in range(len(labels))]
    free = [label for label in dict.fromkeys([*first, *spread]) if label in labels and label not in gone]
    if not free:
        raise BadInput("Every label of the suite is erased, so there is nothing left to show it with.")
    return [free[column % len(free)] for column in range(columns)]


@torch.no_grad()
def _read(reader: Probe, images: torch.Tensor) -> list[tuple[str, str]]:
    seen = reader(images.nan_to_num(0.0))
    both = zip(seen.style_prob.argmax(1).tolist(), seen.object_prob.argmax(1).tolist(), strict=True)
    return [(reader.styles[style], reader.objects[thing]) for style, thing in both]


def _said(suite: Suite, seen: tuple[str, str]) -> tuple[str, str]:
    return suite.spoken(seen[1]), suite.spoken(seen[0])


def _fine(was: tuple[str, str], now: tuple[str, str], pair: Pair, gone: set[str] | None, suite: Suite) -> bool | None:
    """Whether an edited picture is as it should be: without the `gone` labels it asks for, or, with none, unharmed.

    No opinion (None) on a concept the probe has no word for, and on a prompt of which nobody said what it should show.
    """
    wanted = (pair.style, pair.object)
    if gone is None:
        return now in (was, wanted) if any(wanted) else None
    known = {*suite.styles, *suite.objects} & gone
    asked = [(seen, label) for seen, label in zip(now, wanted, strict=True) if label in known]
    return all(seen != label for seen, label in asked) if asked else None


def _scores(report: Report | None) -> str:
    """The headline scores in one line, each beside the unedited model's."""
    if report is None:
        return ""
    parts = [
        f"{name} {shown(name, score.value)} (unedited {shown(name, score.baseline)})"
        for name, score in report.scores.items()
        if name in ("UA", "IRA", "CRA", "FID") and not score.unscored
    ]
    return "   ·   ".join([*parts, *report.marks])
