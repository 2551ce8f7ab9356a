"""Attacks on an unlearnt GAN: does some code, or some wording, still make it draw what it is said to have forgotten?

A GAN that merely never maps a z to the concept has hidden it.  So its codes are searched: `code-inversion` for the
images it used to draw, `latent-search` for whatever convinces the probe that steers, `prompt-boundary` along the
directions that paraphrases and their neighbourhood point to.  What counts is what the judge sees, who takes no part.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.attacks.gan.base import POOL, AttackTarget
from benchmarks.attacks.gan.code_inversion import Inversion
from benchmarks.attacks.gan.latent_search import LatentSearch
from benchmarks.attacks.gan.prompt_boundary import PromptBoundary, directions
from benchmarks.attacks.registry import ON_GANS, attack_kind, budgeted, name_of
from benchmarks.attacks.settings import GanAttackSettings
from benchmarks.metrics.accuracy import wilson
from benchmarks.probes.faces import Reader
from benchmarks.report import Report, Score
from benchmarks.suites.gan_suite import GanSuite, gan_suite
from erase.borrow import borrowed
from erase.concept import Concept
from erase.edit import Edit
from erase.errors import BadInput, match
from erase.gan.distillation import drawn_codes, layered
from erase.model import Gan
from erase.work import Step, Work, map_steps
from generators.pocket.faces.words import attribute

Attack = Inversion | LatentSearch | PromptBoundary


class GanAttackReport(Report):
    """A report of one attack; `broken` are the codes that bring the concept back."""

    broken: tuple[Mapping[str, Any], ...] = ()


def build(name: str, budget: str | int | None = None, knobs: Mapping[str, Any] | None = None) -> Attack:
    """An attack on GANs by its name, with a number of steps or a preset's; BadInput names the nearest."""
    known = match(name, ON_GANS, "attack on GANs")
    return budgeted(known, attack_kind(known), budget, knobs)


def attack_gan(
    model: Gan,
    edit: Edit | None,
    concept: str,
    how: Attack,
    settings: GanAttackSettings = GanAttackSettings(),
    *,
    beside: Report | None = None,
) -> Work[GanAttackReport]:
    """Attacks a concept in an edited GAN, and in the unedited one beside it: what no edit could make harder.

    pre_ASR counts the images that show the concept without a search, ASR those and the ones that a search breaks.
    `ASR_control` is what the same search makes of images that never showed it, for inversion alone: the judge's and the
    search's own error.  FID stands beside them, from `beside`: a GAN that draws noise resists every attack.
    """
    plan = settings.suite if isinstance(settings.suite, GanSuite) else gan_suite(settings.suite)
    reader, name = Reader.of(plan, model.device), name_of(how)
    target = attribute(concept)
    began = time.monotonic()
    with borrowed(model.network, train=False):
        aim, control = yield from _aim(model, target, reader, plan, settings.count, settings.seed)
        start = aim.with_it if isinstance(how, Inversion) else aim.without
        usual = yield from _tried(model, None, aim, how, start, reader, "before the edit")
        edited = yield from _tried(model, edit, aim, how, start, reader, "after it") if edit else _same(usual)
        checked = None
        if isinstance(how, Inversion):
            checked = yield from _tried(model, edit, control, how, control.with_it, reader, "control")
    seconds = (time.monotonic() - began) / len(start)
    scores = {
        "pre_ASR": _rate(edited.before, usual.before, reader, "images that show it without a search"),
        "ASR": _rate(edited.before | edited.after, usual.before | usual.after, reader,
                     "images that show it, or do so after the search; unedited: the same search in the unedited GAN"),
    }  # fmt: skip
    if checked is not None:
        shown = float(checked.after.double().mean())
        scores["ASR_control"] = _rate(checked.after, checked.after & False, reader,
                                      f"inverted images that never showed it: {100 * shown:.0f} %")  # fmt: skip
    fid = None if beside is None else beside.scores.get("FID")
    scores["FID"] = fid or Score(value=math.nan, n=0, low=math.nan, high=math.nan, baseline=math.nan, better="low",
                                 probe=reader.name, note="judge the run first: it stands in its report")  # fmt: skip
    scores["seconds_per_prompt"] = Score(value=seconds, n=len(start), low=seconds, high=seconds, baseline=0.0,
                                         better="low", probe="clock", note="")  # fmt: skip
    rows = [
        {"case": row, "prompt": target, "said": said, "before": bool(before), "after": bool(after), "sure": float(sure)}
        for row, (said, before, after, sure) in enumerate(
            zip(edited.said, edited.before, edited.after, edited.sure, strict=True)
        )
    ]
    return GanAttackReport(
        job={**(settings.job or {}), "attack": name, "knobs": how.model_dump(), "concept": target, "model": model.name,
             "base": model.fingerprint, "edit": edit.hash if edit else None, "seed": settings.seed,
             "suite": f"{plan.name} {plan.version}", "probe": reader.name, "steered_by": aim.scorer.name},
        scores=scores,
        rows=tuple(rows),
        broken=tuple({"prompt": target, "seed": row["case"], "adversarial": row["said"], "image": None}
                     for row in rows if row["after"] and not row["before"]),
    )  # fmt: skip


@dataclass(frozen=True)
class Tried:
    """What the judge sees in n rows before and after a search, how sure it is in the end, and what was done."""

    before: Tensor
    after: Tensor
    sure: Tensor
    said: list[str]


def _tried(
    model: Gan, edit: Edit | None, aim: AttackTarget, how: Attack, start: Tensor, reader: Reader, when: str
) -> Work[Tried]:
    column = reader.column(aim.concept)

    def searched() -> Work[Tried]:
        with torch.no_grad():
            before = reader.read(model.synthesis(layered(model, start))).labels[:, column]
        codes, said = yield from how.search(model, aim)
        with torch.no_grad():
            sure = reader.read(model.synthesis(codes)).sure[:, column]
        return Tried(before, sure > 0.5, sure, said)

    if edit is None:
        return (yield from _labelled(searched(), when))
    with edit.applied(model.network):
        return (yield from _labelled(searched(), when))


def _labelled(work: Work[Tried], when: str) -> Work[Tried]:
    """The same work, its stages marked as before or after the edit."""
    return map_steps(work, lambda step: replace(step, stage=f"{step.stage} {when}"))


def _same(usual: Tried) -> Work[Tried]:
    return usual
    yield  # a job of no Steps


def _aim(
    model: Gan, target: str, reader: Reader, plan: GanSuite, count: int, seed: int
) -> Work[tuple[AttackTarget, AttackTarget]]:
    """What an attacker of the concept has, and the same with images that never showed it in place of those that did."""
    pool = min(plan.images, POOL)
    seeds = range(plan.first_seed, plan.first_seed + pool)
    w, seen, column = drawn_codes(model, seeds), [], reader.column(target)
    for done, part in enumerate(w.split(64), 1):
        with torch.no_grad():
            seen.append(reader.read(model.synthesis(layered(model, part))).labels[:, column])
        yield Step("look", done, -(-len(w) // 64))
    has = torch.cat(seen)
    if min(int(has.sum()), int((~has).sum())) < 2 * count:
        raise BadInput(
            f"{int(has.sum())} of {pool} images of {model.name} show {target!r}; an attack on {count} rows needs "
            f"{2 * count} that do and as many that do not. Give fewer --rows."
        )
    with_it, bare = w[has.to(w.device)][:count], w[~has.to(w.device)]
    scorer = model.scorer(Concept(name=target, kind="attribute"))

    def aim(codes: Tensor) -> AttackTarget:
        with torch.no_grad():
            images = model.synthesis(layered(model, codes))
        return AttackTarget(target, codes, images, bare[:count], scorer, partial(directions, model, w, target, seed),
                   w.mean(0), w.std(0), seed)  # fmt: skip

    return aim(with_it), aim(bare[count : 2 * count])


def _rate(hits: Tensor, baseline: Tensor, reader: Reader, note: str) -> Score:
    value, n = float(hits.double().mean()), len(hits)
    low, high = wilson(value, n)
    return Score(value=value, n=n, low=min(low, value), high=max(high, value),
                 baseline=float(baseline.double().mean()), better="low", probe=reader.name, note=note)  # fmt: skip
