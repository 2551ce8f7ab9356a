"""The judge of GANs: fixed seeds before and after an edit, read by a probe that steered nothing, and scored."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.judging.comparison import costs
from benchmarks.judging.gan_identity import judge_identity
from benchmarks.judging.gan_samples import BATCH, codes_of, draw_codes, to_score
from benchmarks.judging.judge import erased
from benchmarks.metrics.accuracy import wilson
from benchmarks.metrics.alignment import feature_distance
from benchmarks.metrics.cost import Cost
from benchmarks.metrics.distribution import BIAS, fid, kid
from benchmarks.metrics.gan import drift, gamma_normalised, pul, wasserstein
from benchmarks.metrics.intervals import normal
from benchmarks.metrics.perceptual import Lpips, lpips
from benchmarks.probes.faces import Read, Reader
from benchmarks.report import Report, Score
from benchmarks.suites.gan_suite import GanSuite, gan_suite
from erase.edit import Edit
from erase.errors import BadInput
from erase.model import Gan
from erase.work import Step, Work
from generators.pocket.faces.words import attribute

GAN_SUITE = "pocket-faces"


LENGTHS = (1.0, 1.5, 2.0, 3.0)  # how far codes are moved towards the concept, in steps of the usual difference


PLAIN = 0.8  # the mean score at which they are far enough


def judge_gan(
    model: Gan,
    edit: Edit | None = None,
    suite: GanSuite | str = "pocket-faces",
    *,
    cost: Cost | None = None,
    job: Mapping[str, Any] | None = None,
) -> Work[Report]:
    """Scores an edit of a GAN; with `edit=None` the GAN itself: how often it draws each attribute."""
    plan = suite if isinstance(suite, GanSuite) else gan_suite(suite)
    reader = Reader.of(plan, model.device)
    if edit is not None and edit.about.get("seeds"):
        return (yield from judge_identity(model, edit, plan, reader, cost, job))
    targets = [attribute(clause) for name in erased(edit) for clause in name.split(" and ")] if edit else []
    if edit is not None and not targets:
        raise BadInput("This edit does not say what it erased, so nothing can be scored.")
    seeds = range(plan.first_seed, plan.first_seed + plan.images)
    ws = codes_of(model, seeds)
    before = yield from draw_codes(model, ws, reader, "draw before")
    about = {
        "base": model.fingerprint, "suite": {"name": plan.name, "version": plan.version},
        "seeds": [seeds[0], seeds[-1]],
        "probe": {"name": reader.name, "held_out": reader.probe.about.get("held_out")}, "torch": torch.__version__,
        "psi": 1.0, "noise": "const",
    }  # fmt: skip
    if edit is None:
        return Report(job=job or {"model": model.name, "suite": plan.name}, about=about, scores=of_gan(before, reader),
                      marks=tuple(_foreign(model)))  # fmt: skip
    columns = [reader.column(name) for name in targets]
    bare, move = _move(ws, before, columns, plan.pairs)
    original = yield from draw_codes(model, bare, reader, "draw pairs")
    for length in LENGTHS:
        moved = bare + length * move
        added = yield from draw_codes(model, moved, reader, f"draw pairs moved {length:g} times")
        if float(added.sure[:, columns].amax(1).mean()) > PLAIN:
            break
    with edit.applied(model.network):
        after = yield from draw_codes(model, codes_of(model, seeds), reader, "draw after")
        left = yield from draw_codes(model, moved, reader, "draw pairs after")
    scores = of_unlearning(before, after, reader, targets) | _gamma(reader, targets, original, added, left)
    if (perceived := lpips(model.device)) is not None:
        bare_seeds = [seed for seed, had in zip(seeds, before.labels[:, columns].any(1), strict=True) if not had]
        scores["LPIPS"] = yield from _lpips(model, edit, bare_seeds, perceived)
    steered = str(edit.about.get("steered_by", ""))
    own = [f"circular evaluation: {steered} steered this edit and now scores it"] if steered == reader.name[:-9] else []
    return Report(
        job=job or {"model": model.name, "concepts": targets, "suite": plan.name, "method": edit.about.get("method")},
        scores=scores | costs(edit, cost),
        marks=(*own, *_foreign(model)),
        about=about | {"edit": edit.hash, "targets": targets, "erasure": dict(edit.about)},
    )


def _foreign(model: Gan) -> list[str]:
    """A warning where the GAN does not draw what the probe was taught."""
    if getattr(model, "about", {}).get("world") == "pocket-faces":
        return []
    return [f"the probe was taught cartoon faces, and {model.name} may draw others: look at the pictures"]


def of_gan(seen: Read, reader: Reader) -> dict[str, Score]:
    """How often a GAN draws each attribute, beside the data, and how far its pictures are from the data's."""
    scores, n = {}, len(seen.sure)
    for column, name in enumerate(reader.probe.attributes):
        rate, data = (float(read.labels[:, column].double().mean()) for read in (seen, reader.reference))
        low, high = wilson(rate, n)
        note = f"the data: {100 * data:.1f} %"
        scores[f"attribute_rate.{_key(name)}"] = to_score(rate, n, low, high, rate, "high", reader.name, note)
    sure = float(((seen.sure - 0.5).abs() > 0.4).all(1).double().mean())
    scores["certain"] = to_score(sure, n, *wilson(sure, n), sure, "high", reader.name,
                               "share of images whose every attribute the probe is 90 % sure of")  # fmt: skip
    return scores | _distances(seen, seen, reader, torch.ones(len(reader.reference.sure), dtype=torch.bool), "all data")


def of_unlearning(before: Read, after: Read, reader: Reader, targets: Sequence[str]) -> dict[str, Score]:
    """PUL, distances to data without the concept, and what else moved."""
    columns = [reader.column(name) for name in targets]
    had, has = (read.labels[:, columns].any(1) for read in (before, after))
    share, n = pul(had, has), int(had.sum())
    rates = f"{', '.join(targets)}: {100 * float(had.double().mean()):.1f} % of images before, "
    rates += f"{100 * float(has.double().mean()):.1f} % after, the same {len(had)} seeds"
    scores = {"PUL": to_score(share.value, n, share.low, share.high, 0.0, "high", reader.name, rates)}
    bare = ~reader.reference.labels[:, columns].any(1)
    scores |= _distances(before, after, reader, bare, f"data without {' or '.join(targets)}; unedited: all data")
    scores["Ret-FID"] = _to_retrained(before, after, had, reader)
    scores["LPIPS"] = _untouched(
        feature_distance(before.features[~had], after.features[~had]), f"{reader.name} feature distance"
    )
    for column, name in enumerate(reader.probe.attributes):
        if column in columns:
            continue
        found = drift(before.labels[:, column], after.labels[:, column])
        note = (
            f"{100 * found.before:.1f} % before, {100 * found.after:.1f} % after; {100 * found.churn:.1f} % of seeds "
        )
        note += "changed; nearer zero is better"
        scores[f"drift.{_key(name)}"] = to_score(
            found.net.value, len(had), found.net.low, found.net.high, 0.0, "low", reader.name, note
        )
    return scores


def _lpips(model: Gan, edit: Edit, seeds: Sequence[int], perceived: Lpips) -> Work[Score]:
    """LPIPS itself between the images of seeds before and after."""
    parts: list[Tensor] = []
    for start in range(0, len(seeds), BATCH):
        chunk = seeds[start : start + BATCH]
        with torch.no_grad():
            one = model.synthesis(codes_of(model, chunk))
            with edit.applied(model.network):
                other = model.synthesis(codes_of(model, chunk))
            parts.append(perceived(one, other))
        yield Step("LPIPS", start + len(chunk), len(seeds))
    return _untouched(torch.cat(parts) if parts else torch.zeros(0), perceived.name)


def _untouched(moved: Tensor, name: str) -> Score:
    """How far images [n] that never showed the concept have moved, on average."""
    mean = normal(moved)
    return to_score(mean.value, mean.n, mean.low, mean.high, 0.0, "low", name, "images that never showed the concept")


def _gamma(reader: Reader, targets: Sequence[str], original: Read, added: Read, left: Read) -> dict[str, Score]:
    """γ on images whose codes were moved to show the concept: raw, and as a share of what the move had added."""
    columns = [reader.column(name) for name in targets]
    o, a, b = (read.sure[:, columns].amax(1) for read in (original, added, left))
    raw, share, n = wasserstein(a, b), gamma_normalised(a, b, o), len(a)
    shown = (
        f"mean score {float(o.mean()):.2f} unmoved, {float(a.mean()):.2f} moved, {float(b.mean()):.2f} moved and erased"
    )
    resampled = _resampled(a, b, o)
    return {
        "gamma": to_score(raw, n, raw, raw, 0.0, "high", reader.name, f"Wasserstein-1 of scores; {shown}"),
        "gamma_normalised": to_score(share, n, *resampled, 0.0, "high", reader.name, f"1 is back to unmoved; {shown}"),
    }


def _resampled(a: Tensor, b: Tensor, o: Tensor) -> tuple[float, float]:
    rng, n = torch.Generator().manual_seed(0), len(a)
    found = []
    for _ in range(500):
        some = torch.randint(n, (n,), generator=rng)
        found.append(gamma_normalised(a[some], b[some], o[some]))
    ordered = sorted(value for value in found if not math.isnan(value)) or [math.nan]
    return ordered[int(0.025 * (len(ordered) - 1))], ordered[int(0.975 * (len(ordered) - 1))]


def _distances(before: Read, after: Read, reader: Reader, rows: Tensor, against: str) -> dict[str, Score]:
    """FID and KID of the probe's features: after, against some rows of the data; before, against all of it."""
    goal = reader.reference.features[rows]
    n = min(len(goal), len(reader.reference.features), len(after.features))
    scores = {}
    for name, distance in (("FID", fid), ("KID", kid)):
        found = distance(goal[:n], after.features[:n])
        base = distance(reader.reference.features[:n], before.features[:n]).value
        low, high = (found.value if math.isnan(edge) else edge for edge in (found.low, found.high))
        note = f"against {against}" + (f"; {BIAS}" if name == "FID" else "")
        scores[name] = to_score(found.value, n, low, high, base, "low", f"{reader.name} features", note)
    return scores


def _to_retrained(before: Read, after: Read, had: Tensor, reader: Reader) -> Score:
    """FID to the unedited GAN's own images without the concept: a GAN retrained without it, if the rest came out alike.

    One half of the seeds stands for that GAN, the other half is compared with it.
    """
    first = torch.arange(len(had)) % 2 == 0
    goal = before.features[first & ~had]
    n = min(len(goal), int((~first).sum()))
    found, base = (fid(goal[:n], read.features[~first][:n]) for read in (after, before))
    note = "against the unedited GAN's images without the concept, of other seeds; no GAN was retrained"
    return to_score(found.value, n, found.low, found.high, base.value, "low", f"{reader.name} features", note)


def _move(ws: Tensor, seen: Read, columns: Sequence[int], most: int) -> tuple[Tensor, Tensor]:
    """Codes whose images lack the concept, and the move by which images that have it usually differ from those.

    The move follows a ridge regression of the judge's own log odds on w, so no method has seen it.
    """
    odds = seen.sure[:, columns].double().clamp(1e-4, 1 - 1e-4).logit().amax(1).to(ws.device)
    had = seen.labels[:, columns].any(1).to(ws.device)
    if not 2 <= int(had.sum()) <= len(had) - 2:
        raise BadInput("All of the model's images agree on the concept, so there is nothing to move between.")
    w = ws[:, 0].double()
    x, y = w - w.mean(0), odds - odds.mean()
    damping = 0.01 * x.square().sum() / x.shape[1] * torch.eye(x.shape[1]).to(x)
    slope = torch.linalg.solve(x.T @ x + damping, x.T @ y)
    length = (odds[had].mean() - odds[~had].mean()) / slope.square().sum()
    bare = ws[~had][:most]
    return bare, (length * slope).to(ws)


def _key(name: str) -> str:
    return name.replace(" ", "_")
