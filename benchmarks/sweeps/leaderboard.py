"""The leaderboard of a sweep: one entry per erasure and suite, one line per method, suite and kind of target.

Nothing in it depends on the clock: a sweep that was killed and run again gives the same file. Costs are kept apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from benchmarks.metrics.accuracy import bootstrap
from benchmarks.metrics.interference import Matrix, interference
from benchmarks.report import Report, Score, shown
from erase.errors import BadInput

VERSION = 1
COSTS = ("seconds", "peak_memory_bytes", "seconds_per_prompt")
ACCURACIES = ("UA", "IRA", "CRA")
HEAD = (*ACCURACIES, "FID", "CLIP")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Entry(_Frozen):
    """One erasure, judged on one suite; without scores it says why."""

    label: str
    method: str
    preset: str | None = None
    knobs: Mapping[str, Any] = {}
    concept: str
    kind: str
    seed: int = 0
    suite: str
    run: str = ""
    status: Literal["done", "failed", "missing"] = "done"
    message: str = ""
    edit: str = ""
    scores: Mapping[str, Score] = {}
    marks: tuple[str, ...] = ()
    excluded: Mapping[str, int] = {}


class Line(_Frozen):
    """The mean of one method over the targets of one kind on one suite; `missing` entries had no scores."""

    label: str
    suite: str
    kind: str
    targets: int
    missing: int
    scores: Mapping[str, Score]
    harmonic_mean: float | None = None
    lowest: Mapping[str, tuple[str, ...]] = {}


class Leaderboard(_Frozen):
    """All of a sweep that can be compared; `mean_of_six` is over UA, IRA, CRA of styles and of objects."""

    version: int = VERSION
    name: str
    entries: tuple[Entry, ...]
    lines: tuple[Line, ...]
    mean_of_six: Mapping[str, float] = {}
    interference: Mapping[str, Matrix] = {}

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if self.version > VERSION:
            raise ValueError(f"it is of version {self.version}, this program reads up to {VERSION}; update it")
        return self

    @classmethod
    def read(cls, text: str) -> Self:
        """A leaderboard from its JSON; BadInput says what is wrong with it."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            raise BadInput(f"This is not a leaderboard: {'.'.join(map(str, first['loc']))} {first['msg']}.") from None

    def table(self) -> str:
        """One line per method, suite and kind of target, then what failed."""
        attacked = sorted({name for line in self.lines for name in line.scores if name.startswith("ASR ")})
        names = [name for name in (*HEAD, *attacked) if any(name in line.scores for line in self.lines)]
        rows = [("method", "suite", "targets", *names, "harmonic mean")]
        rows += [
            (line.label, line.suite, _counted(line), *(_cell(name, line.scores.get(name)) for name in names),
             "" if line.harmonic_mean is None else f"{100 * line.harmonic_mean:.1f} %")
            for line in self.lines
        ]  # fmt: skip
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        text = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        text.insert(1, "  ".join("-" * width for width in widths))
        for line in self.lines:
            text += [
                f"{line.label}, {line.kind}s, lowest {name}: {', '.join(low)}" for name, low in line.lowest.items()
            ]
        text += [f"mean of the six accuracies, {where}: {100 * mean:.1f} %" for where, mean in self.mean_of_six.items()]
        text += [f"! {each.label} {each.concept}: {mark}" for each in self.entries for mark in each.marks]
        unmade = [each for each in self.entries if each.status != "done"]
        text += [f"! {each.label} {each.concept} seed {each.seed}: {each.status}. {each.message}" for each in unmade]
        return "\n".join(text)


def leaderboard(name: str, judged: Iterable[tuple[Entry, Sequence[Mapping[str, Any]]]]) -> Leaderboard:
    """The leaderboard of entries, each with its report's rows."""
    both = list(judged)
    entries = [entry for entry, _ in both]
    places = dict.fromkeys((entry.label, entry.suite, entry.kind) for entry in entries)
    lines = [_line(place, [e for e in entries if (e.label, e.suite, e.kind) == place]) for place in places]
    lines = [line for line in lines if line is not None]
    matrices = {}
    for label, suite in dict.fromkeys((entry.label, entry.suite) for entry in entries):
        of_it = [(e.concept, rows) for e, rows in both if (e.label, e.suite) == (label, suite) and rows]
        if of_it:
            matrices[f"{label} on {suite}"] = interference(of_it)
    return Leaderboard(
        name=name, entries=tuple(entries), lines=tuple(lines), mean_of_six=_six(lines), interference=matrices
    )


def entry_scores(report: Report, attacks: Mapping[str, Report] = {}) -> dict[str, Score]:
    """A report's scores without costs, with the rates of each attack as `pre_ASR NAME` and `ASR NAME`."""
    scores = {name: score for name, score in report.scores.items() if name not in COSTS}
    for attack, found in attacks.items():
        scores |= {f"{name} {attack}": found.scores[name] for name in ("pre_ASR", "ASR") if name in found.scores}
    return scores


def over_targets(scores: Sequence[Score], what: str) -> Score:
    """The mean over targets with a bootstrap over them; a single one keeps its own interval, unscored ones are told."""
    known = [score for score in scores if not score.unscored]
    if len(known) < 2:
        return known[0] if known else scores[0]
    values = [score.value for score in known]
    value, (low, high) = math.fsum(values) / len(values), bootstrap(values)
    unscored = f", {len(scores) - len(known)} unscored" if len(known) < len(scores) else ""
    return Score(
        value=value, n=sum(score.n for score in known), low=min(low, value), high=max(high, value),
        baseline=math.fsum(score.baseline for score in known) / len(known), better=known[0].better,
        probe=known[0].probe, interval="bootstrap-over-targets", note=f"mean over {len(known)} {what}{unscored}",
    )  # fmt: skip


def harmonic(values: Sequence[float]) -> float:
    """The harmonic mean of shares; 0 as soon as one of them is."""
    return len(values) / math.fsum(1 / value for value in values) if all(value > 0 for value in values) else 0.0


def _line(place: tuple[str, str, str], entries: Sequence[Entry]) -> Line | None:
    label, suite, kind = place
    done = [entry for entry in entries if entry.status == "done"]
    if not done:
        return None
    names = dict.fromkeys(name for entry in done for name in entry.scores)
    scores = {
        name: over_targets([entry.scores[name] for entry in done if name in entry.scores], f"{kind}s") for name in names
    }
    three = [scores[name].value for name in ACCURACIES if name in scores and not scores[name].unscored]
    return Line(
        label=label, suite=suite, kind=kind, targets=len(done), missing=len(entries) - len(done), scores=scores,
        harmonic_mean=harmonic(three) if len(three) == len(ACCURACIES) else None,
        lowest={name: _lowest(name, done) for name in ACCURACIES if len(done) > 3 and name in scores},
    )  # fmt: skip


def _lowest(name: str, done: Sequence[Entry]) -> tuple[str, ...]:
    scored = [entry for entry in done if name in entry.scores and not entry.scores[name].unscored]
    worst = sorted(scored, key=lambda entry: (entry.scores[name].value, entry.concept, entry.seed))[:3]
    return tuple(f"{entry.concept} {shown(name, entry.scores[name].value)}" for entry in worst)


def _six(lines: Sequence[Line]) -> dict[str, float]:
    """The mean of the six accuracies of every method and suite that has both kinds of target."""
    found = {}
    for label, suite in dict.fromkeys((line.label, line.suite) for line in lines):
        here = [
            line for line in lines if (line.label, line.suite) == (label, suite) and line.kind in ("style", "object")
        ]
        values = [line.scores[name].value for line in here for name in ACCURACIES if name in line.scores]
        if len(values) == 2 * len(ACCURACIES) and not any(map(math.isnan, values)):
            found[f"{label} on {suite}"] = math.fsum(values) / len(values)
    return found


def _counted(line: Line) -> str:
    return f"{line.targets} {line.kind}{'s' if line.targets != 1 else ''}" + (
        f" ({line.missing} missing)" if line.missing else ""
    )


def _cell(name: str, score: Score | None) -> str:
    if score is None or score.unscored:
        return "unscored" if score else ""
    base = name.split()[0]
    return f"{shown(base, score.value)} [{shown(base, score.low)}, {shown(base, score.high)}]"
