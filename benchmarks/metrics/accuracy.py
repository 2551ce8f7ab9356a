"""UA, IRA and CRA of UnlearnCanvas (arXiv 2402.11846), from one row per image, with every ambiguity a named option."""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Themes = Literal["without photo", "with photo"]
BOOTSTRAPS = 2000
# A bootstrap over fewer targets than this says more about the resampling than about the method.
ENOUGH_TARGETS = 5


@dataclass(frozen=True)
class Row:
    """What a probe saw in one image: wanted labels, seen labels, and the softmax share of each wanted label."""

    style: str
    object: str
    seed: int
    style_seen: str
    object_seen: str
    style_share: float = math.nan
    object_share: float = math.nan


class Target(Protocol):
    """One erased concept: `kind` is "style" or "object", `label` is spelled as in the rows."""

    @property
    def kind(self) -> str: ...
    @property
    def label(self) -> str: ...


@dataclass(frozen=True)
class Rules:
    """How to read the definitions; the presets below say who reads them how."""

    ira_themes: Themes = "without photo"
    cra_themes: Themes = "without photo"
    photo_rows_in_object_acc: bool = True
    target_rows_in_cra: bool = False
    hit: Literal["argmax", "probability"] = "argmax"
    averaging: Literal["mean", "pooled"] = "mean"
    fid_rows: Literal["all", "keep"] = "keep"


PRESETS: Mapping[str, Rules] = {
    # The released script and its maintainer's answers: what published numbers claim.
    "released": Rules(photo_rows_in_object_acc=True, target_rows_in_cra=True, fid_rows="all"),
    # What the paper's prose says, and the un-stylised theme, whose prompt no training caption held, left out.
    "strict": Rules(photo_rows_in_object_acc=False, target_rows_in_cra=False, fid_rows="keep"),
    # As strict, but Pocket Canvas is trained on its "Photo" prompt, so its photo rows are fair pictures of objects.
    "pocket": Rules(photo_rows_in_object_acc=True, target_rows_in_cra=False, fid_rows="keep"),
}


@dataclass(frozen=True)
class Share:
    """A share or a mean of shares (0..1; NaN when nothing was there to count), its n and its 95 % interval."""

    value: float
    n: int
    low: float
    high: float
    interval: str
    parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Accuracies:
    """UA (forgotten?), IRA (same domain kept?), CRA (other domain kept?), each with its value per label in `parts`."""

    UA: Share
    IRA: Share
    CRA: Share


def wilson(share: float, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Wilson's score interval of a share out of n; (NaN, NaN) when n is 0."""
    if n == 0 or math.isnan(share):
        return math.nan, math.nan
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(values: Sequence[float], seed: int = 0, rounds: int = BOOTSTRAPS) -> tuple[float, float]:
    """The 95 % percentile interval of the mean over targets; the seed is fixed so that a report repeats to the bit."""
    if not values:
        return math.nan, math.nan
    draw, ordered = random.Random(seed), sorted(values)
    means = sorted(math.fsum(draw.choices(ordered, k=len(ordered))) / len(ordered) for _ in range(rounds))
    return means[round(0.025 * (rounds - 1))], means[round(0.975 * (rounds - 1))]


def accuracies(
    rows: Iterable[Row],
    targets: Sequence[Target],
    rules: Rules = PRESETS["pocket"],
    *,
    photo: str | None = None,
    grid_seeds: Collection[int] | None = None,
) -> Accuracies:
    """The three accuracies after erasing all `targets` at once.

    Each is the mean over targets. What is kept excludes every target; with `target_rows_in_cra` off, an image that
    involves any target counts for UA only. `grid_seeds` names the seeds at which every cell of the grid was drawn: IRA
    and CRA count those alone, so that target rows drawn at more seeds do not weigh more.
    """
    rows = list(rows)
    styles = frozenset(t.label for t in targets if t.kind == "style")
    objects = frozenset(t.label for t in targets if t.kind == "object")
    kept = [row for row in rows if grid_seeds is None or row.seed in grid_seeds]
    if not rules.target_rows_in_cra:
        kept = [row for row in kept if row.style not in styles and row.object not in objects]

    kept_styles = _by_label(kept, "style", styles, rules)
    kept_objects = _by_label(_objects_counted(kept, photo, rules), "object", objects, rules)
    forgotten: dict[str, list[float]] = {}
    same: list[dict[str, list[float]]] = []
    other: list[dict[str, list[float]]] = []
    for target in targets:
        shown = rows if target.kind == "style" else _objects_counted(rows, photo, rules)
        forgotten[target.label] = [
            1.0 - _hit(row, target.kind, rules) for row in shown if getattr(row, target.kind) == target.label
        ]
        if target.kind == "style":
            same.append(_without(kept_styles, photo, rules.ira_themes))
            other.append(kept_objects)
        else:
            same.append(kept_objects)
            other.append(_without(kept_styles, photo, rules.cra_themes))
    return Accuracies(_over_targets(forgotten, rules), _retained(same, rules), _retained(other, rules))


def label_accuracy(rows: Iterable[Row], kind: Literal["style", "object"]) -> Share:
    """The share of all images in which the head of that kind sees the wanted label; per label in `parts`."""
    by_label = _by_label(list(rows), kind, frozenset(), Rules())
    hits = [hit for label in sorted(by_label) for hit in by_label[label]]
    value = _mean(hits)
    parts = {label: _mean(values) for label, values in sorted(by_label.items())}
    return Share(value, len(hits), *wilson(value, len(hits)), "wilson", parts)


def _over_targets(by_target: Mapping[str, list[float]], rules: Rules) -> Share:
    """One target: its share with Wilson's interval. Several: their mean, with a bootstrap where there are enough."""
    parts = {label: _mean(hits) for label, hits in by_target.items()}
    pooled = [hit for hits in by_target.values() for hit in hits]
    means = [value for value in parts.values() if not math.isnan(value)]
    value = _mean(pooled) if rules.averaging == "pooled" else _mean(means)
    if len(means) >= ENOUGH_TARGETS:
        return Share(value, len(pooled), *bootstrap(means), "bootstrap-over-targets", parts)
    return Share(value, len(pooled), *wilson(value, len(pooled)), "wilson", parts)


def _retained(per_target: Sequence[Mapping[str, list[float]]], rules: Rules) -> Share:
    """The mean over targets of what was kept; n counts each image once, however many targets look at it."""
    means, parts, images = [], {}, {}
    for by_label in per_target:
        labels = {label: _mean(hits) for label, hits in by_label.items()}
        pooled = [hit for hits in by_label.values() for hit in hits]
        means.append(_mean(pooled) if rules.averaging == "pooled" else _mean(list(labels.values())))
        parts |= labels
        images |= {label: len(hits) for label, hits in by_label.items()}
    value, n = _mean([mean for mean in means if not math.isnan(mean)]), sum(images.values())
    return Share(value, n, *wilson(value, n), "wilson", dict(sorted(parts.items())))


def _by_label(rows: Sequence[Row], kind: str, erased: Collection[str], rules: Rules) -> dict[str, list[float]]:
    """Hits of every label that was not erased."""
    found: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        if getattr(row, kind) not in erased:
            found[getattr(row, kind)].append(_hit(row, kind, rules))
    return dict(found)


def _hit(row: Row, kind: str, rules: Rules) -> float:
    if rules.hit == "probability":
        return getattr(row, f"{kind}_share")
    return float(getattr(row, f"{kind}_seen") == getattr(row, kind))


def _objects_counted(rows: Sequence[Row], photo: str | None, rules: Rules) -> list[Row]:
    return [row for row in rows if rules.photo_rows_in_object_acc or row.style != photo]


def _without(by_style: Mapping[str, list[float]], photo: str | None, themes: Themes) -> dict[str, list[float]]:
    return {style: hits for style, hits in by_style.items() if themes == "with photo" or style != photo}


def _mean(values: Sequence[float]) -> float:
    """The mean, the same to the last bit whatever the order of the values; NaN of nothing."""
    return math.fsum(values) / len(values) if values else math.nan
