"""The judge: the same shots before and after an edit, read by a probe and scored beside the unedited model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor

from benchmarks.judging.comparison import Comparison, alternative, costs, of_edit, of_model, table
from benchmarks.judging.predictions import Predictions, answers, remembered
from benchmarks.judging.reference import Reference
from benchmarks.judging.reference import reference as read_reference
from benchmarks.judging.sampler_agreement import agreement, sampler_of
from benchmarks.metrics.accuracy import PRESETS, Rules, wilson
from benchmarks.metrics.alignment import Clip, clip
from benchmarks.metrics.cost import Cost
from benchmarks.probes.base import Probe
from benchmarks.probes.open_probe import probe_of
from benchmarks.report import Report, Score
from benchmarks.suites.suite import Cell, Suite, load_suite
from erase.concept import Concept
from erase.edit import Edit
from erase.errors import BadInput, match, plain
from erase.model import Generator
from erase.work import Work

PUBLISHED_STEPS = 100  # of UnlearnCanvas' own DDIM
UNCHECKED = "{sampler.steps} denoising steps: this sampler was not cross-checked with the published one of 100 steps"
# Above this share of invalid target rows, "forgotten" means "destroyed".
NEVER_SHOWN = 0.9  # of the target rows without the target before the edit
COLLAPSED = 0.2
LEVEL = 0.05  # of all looks of a sequential stop together


@dataclass(frozen=True)
class JudgeSettings:
    """How pictures are drawn and read.

    `rules` and `probe` default to the suite's. `batch` is images drawn side by side. `limit` keeps at most that many of
    the images that show no target, evenly spread. `reference` is images [n 3 h w] that FID and KID compare with instead
    of the suite's data or, without any, the unedited model's own; n must match. With `until` an edit's pictures are
    drawn seed by seed, until UA, IRA and CRA are each known to plus or minus that share.
    """

    rules: Rules | str | None = None
    strength: float = 1.0
    batch: int = 32
    limit: int | None = None
    probe: Probe | None = None
    reference: Tensor | None = None
    until: float | None = None

    def __post_init__(self) -> None:
        if self.until is not None and self.until <= 0:
            raise BadInput(f"Scores cannot be known to plus or minus {self.until}; give a share above 0, such as 0.02.")


def judge(
    model: Generator,
    edit: Edit | None = None,
    concepts: Sequence[str | Concept] = (),
    suite: Suite | str = "pocket-canvas",
    settings: JudgeSettings = JudgeSettings(),
    *,
    cost: Cost | None = None,
    job: Mapping[str, Any] | None = None,
) -> Work[Report]:
    """Scores an edit; with `edit=None`, the model itself over the whole grid.

    `concepts` default to those the edit says it erased. `cost` is what erasing took, where the edit does not record it.
    `job` is recorded as it is. BadInput for a concept, suite, probe or preset that does not exist.
    """
    suite = _suite(suite)
    read_as = suite.reading if settings.rules is None else _rules(settings.rules)
    probe, text = tools(suite, str(model.device), settings.probe)
    names = [c.name if isinstance(c, Concept) else c for c in concepts] or list(erased(edit))
    targets = suite.targets(names) if edit is not None else ()
    if edit is not None and not targets:
        raise BadInput("This edit does not say what it erased; name the concept, for example 'Van Gogh'.")
    shots = suite.shots([target.label for target in targets])
    cells, left_out = _limited(shots, {target.label for target in targets}, settings.limit)
    start = Comparison((), Predictions((), {}), Predictions((), {}), targets, suite, probe, read_as)
    against: Tensor | Reference | None = settings.reference
    if against is None and suite.data is not None and edit is not None:  # read first: it may be unreadable
        against = yield from read_reference(Path(suite.data), suite, cells, probe)
    sitting, looks, cached = yield from _drawn(model, edit, start, cells, text, settings)
    if isinstance(against, Reference) and len(sitting.cells) < len(cells):
        against = against.of([cells.index(cell) for cell in sitting.cells])
    undrawn, cells, after = len(cells) - len(sitting.cells), list(sitting.cells), sitting.after
    about = _about(model, suite, probe, text) | {"rules": asdict(read_as), "cache": cached}
    about |= {"stopping": {"until": settings.until, "looks": looks}} if looks else {}
    dropped = {
        "by the limit": left_out,
        "known well enough without": undrawn,
        "not a picture": int((~after.finite).sum()),
        "no picture of theirs in the data set": int((~against.have & sitting.on_grid).sum())
        if isinstance(against, Reference)
        else 0,
    }
    excluded = {reason: count for reason, count in dropped.items() if count}
    rows = tuple(table(sitting))
    if edit is None:
        job = job or {"model": model.name, "suite": suite.name}
        return Report(job=job, scores=of_model(sitting), excluded=excluded, about=about, rows=rows)
    scores = of_edit(sitting, text, against) | costs(edit, cost)
    return Report(
        job=job or {"model": model.name, "concepts": names, "suite": suite.name, "method": edit.about.get("method")},
        scores=scores,
        excluded=excluded,
        marks=tuple(_marks(scores, edit, probe)),
        alternatives={name: alternative(sitting, PRESETS[name], against) for name in ("released", "strict")},
        about=about | {"edit": edit.hash, "strength": settings.strength, "erasure": dict(edit.about)},
        rows=rows,
    )


def _drawn(
    model: Generator,
    edit: Edit | None,
    sitting: Comparison,
    cells: Sequence[Cell],
    text: Clip | None,
    settings: JudgeSettings,
) -> Work[tuple[Comparison, list[dict[str, Any]], str]]:
    """Both sides of the cells, or of as many seeds as `until` takes; also the looks, and what the cache gave."""
    suite, probe, until, batch = sitting.suite, sitting.probe, settings.until, settings.batch
    blocks = [list(cells)] if edit is None or until is None else by_seed(cells, suite)
    looks, notes = [], []
    for block in blocks:
        shots = [cell.shot for cell in block]
        before, note = yield from remembered(model, shots, suite, probe, text, batch=batch)
        after = before
        if edit is not None:
            with edit.applied(model.network, settings.strength):
                after = yield from answers(model, shots, suite, probe, text, batch=batch, stage="draw after")
        together = (*sitting.cells, *block)
        sitting = replace(sitting, cells=together, before=sitting.before + before, after=sitting.after + after)
        notes.append(note)
        if edit is not None and until is not None:
            looks.append(look(sitting, block[0].seed, len(blocks)))
            if max(looks[-1]["half_widths"].values()) <= until:
                break
    drawn = set(sitting.cells)
    ordered = tuple(cell for cell in cells if cell in drawn)  # so that stopping late changes no number
    shots = [cell.shot for cell in ordered]
    before = sitting.before.of(shots)
    after = before if edit is None else sitting.after.of(shots)
    return replace(sitting, cells=ordered, before=before, after=after), looks, "; ".join(notes)


def by_seed(cells: Sequence[Cell], suite: Suite) -> list[list[Cell]]:
    """The cells in blocks, one for each seed of the suite; those of the grid come first."""
    order = sorted(suite.seeds, key=lambda seed: (seed not in suite.grid_seeds, suite.seeds.index(seed)))
    blocks = [[cell for cell in cells if cell.seed == seed] for seed in order]
    return [block for block in blocks if block]


def look(sitting: Comparison, seed: int, looks: int) -> dict[str, Any]:
    """One look at what is drawn so far; its intervals are wider, so that all looks together err in 5 % of cases."""
    z = NormalDist().inv_cdf(1 - LEVEL / looks / 2)
    shares = vars(sitting.accuracies(sitting.after, sitting.rules))
    spans = {name: wilson(share.value, share.n, z) for name, share in shares.items()}
    halves = {name: 1.0 if math.isnan(low) else (high - low) / 2 for name, (low, high) in spans.items()}
    return {"after_seed": seed, "n": len(sitting.cells), "level": LEVEL / looks, "half_widths": halves}


def erased(edit: Edit | None) -> list[str]:
    """The names of the concepts an edit says it erased, those of its parents included, each once."""
    names: dict[str, str] = {}
    for concept in () if edit is None else concepts_of(edit):
        names.setdefault(plain(concept["name"]), concept["name"])
    return list(names.values())


def concepts_of(edit: Edit) -> list[Mapping[str, Any]]:
    """The concepts an edit and its parents have erased, as on record; a stacked edit has some of them twice."""
    records = (edit.about, *(parent["about"] for parent in edit.about.get("parents", ())))
    found = [concept for record in records for concept in record.get("concepts", ())]
    return [concept if isinstance(concept, Mapping) else {"name": str(concept)} for concept in found]


def _suite(given: Suite | str) -> Suite:
    return given if isinstance(given, Suite) else load_suite(given)


def _rules(given: Rules | str) -> Rules:
    return given if isinstance(given, Rules) else PRESETS[match(given, PRESETS, "preset of the accuracies")]


def tools(suite: Suite, device: str, reader: Probe | None = None) -> tuple[Probe, Clip | None]:
    """The probe, unless one is given, and the CLIP that read a suite's pictures; BadInput when it lacks a label."""
    probe = reader or probe_of(suite, device)
    check_labels(suite, probe)
    return probe, clip(suite.clip, device) if suite.clip else None


def check_labels(suite: Suite, probe: Probe) -> None:
    """Raises BadInput unless the probe knows every label the suite asks for."""
    for what, wanted, known in (("style", suite.styles, probe.styles), ("object", suite.objects, probe.objects)):
        if missing := set(wanted) - set(known):
            raise BadInput(
                f"Probe {probe.name} cannot see the {what} {sorted(missing)[0]!r} that suite {suite.name} asks for; "
                f"it knows {', '.join(known)}."
            )


def _limited(cells: list[Cell], labels: set[str], limit: int | None) -> tuple[list[Cell], int]:
    """The cells with at most `limit` of those that show no target, and how many that leaves out."""
    kept = [i for i, cell in enumerate(cells) if cell.style not in labels and cell.object not in labels]
    if limit is None or len(kept) <= limit:
        return cells, 0
    if limit < 1:
        raise BadInput(f"limit {limit} leaves no image that shows what was kept; give 1 or more.")
    chosen = {kept[round(k * (len(kept) - 1) / max(1, limit - 1))] for k in range(limit)}
    dropped = set(kept) - chosen
    return [cell for i, cell in enumerate(cells) if i not in dropped], len(dropped)


def _marks(scores: Mapping[str, Score], edit: Edit, probe: Probe) -> Iterator[str]:
    """The honesty checks that run by themselves."""
    share = scores["invalid"].value
    if share > COLLAPSED:
        yield f"collapsed: {share:.0%} of the target rows show nothing, and UA counts them as forgotten"
    if (unaware := scores["UA"].baseline) >= NEVER_SHOWN:
        yield (
            f"UA is meaningless here: in {unaware:.0%} of the target rows the probe does not see the target in the "
            "unedited model's pictures either"
        )
    if edit.about.get("steered_by") == probe.name:
        yield f"circular evaluation: {probe.name} steered this edit and now scores it"


def _about(model: Generator, suite: Suite, probe: Probe, text: Clip | None) -> dict[str, Any]:
    """What decided the numbers, for whoever wants them again."""
    sampler = sampler_of(model, suite)
    checked = agreement(model.fingerprint, sampler)
    doubts = [] if checked is None or checked.holds else [checked.sentence]
    doubts += [UNCHECKED.format(sampler=sampler)] if checked is None and sampler.steps < PUBLISHED_STEPS else []
    return {
        "base": model.fingerprint,
        "suite": {
            "name": suite.name, "version": suite.version, "digest": suite.digest, "noise": suite.noise,
            "encode": suite.encode, "data": suite.data,
        },
        "seeds": list(suite.seeds),
        "sampler": sampler.model_dump(),
        "agreement": {"hash": checked.hash, "found": checked.sentence} if checked else None,
        "probe": {
            "name": probe.name, "version": probe.version, "sha256": probe.sha256, "held_out": dict(probe.held_out),
        },
        "clip": {"name": text.name, "sha256": text.sha256} if text else None,
        "device": str(model.device),
        "dtype": str(model.dtype),
        "torch": torch.__version__,
        "deviations": [*suite.deviations, *doubts],
    }  # fmt: skip
