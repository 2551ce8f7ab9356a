"""The report: every number with its n, interval, direction, probe and the same number for the unedited model."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, ValidationError, model_validator

from erase.errors import BadInput
from erase.files import write_text

VERSION = 1
# These hold shares; tables print them in percent, files as 0..1.
SHARES = (
    "UA", "IRA", "CRA", "invalid", "style_accuracy", "object_accuracy", "pre_ASR", "ASR", "ASR_confirmed", "PUL",
    "gamma_normalised", "certain",
)  # fmt: skip
# Half-widths above this are marked: two runs that differ by less cannot be told apart.
WIDE = 0.05

# NaN means unscored; JSON has no NaN, so it travels as null.
Number = Annotated[
    float,
    BeforeValidator(lambda value: math.nan if value is None else value),
    PlainSerializer(lambda value: None if math.isnan(value) else value, when_used="json"),
]


Better = Literal["high", "low"]


class Score(BaseModel):
    """One number with everything that gives it meaning; NaN with a note is an unscored one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: Number
    n: int
    low: Number
    high: Number
    baseline: Number
    better: Better
    probe: str
    interval: str = ""
    note: str = ""

    @model_validator(mode="after")
    def _never_alone(self) -> Self:
        if math.isnan(self.value):
            if not self.note:
                raise ValueError("an unscored entry (NaN) needs a note that says why")
            return self
        if math.isnan(self.baseline):
            raise ValueError("a score needs a baseline: the same number for the unedited model")
        if self.n < 1 or not self.probe:
            raise ValueError("a score needs n and the name of its probe")
        if any(math.isinf(number) for number in (self.value, self.low, self.high, self.baseline)):
            raise ValueError("a score must be finite")
        slack = 1e-9 * max(1.0, abs(self.value))
        if self.low > self.value + slack or self.high < self.value - slack:
            raise ValueError(f"the interval [{self.low}, {self.high}] does not hold the value {self.value}")
        return self

    @property
    def unscored(self) -> bool:
        """Whether there is no number, only a note."""
        return math.isnan(self.value)

    @property
    def has_interval(self) -> bool:
        """Whether the edges say something: not of what was counted once, nor where all of a few values were equal."""
        return not self.unscored and self.low < self.high


class Report(BaseModel):
    """All scores of one model or run; `alternatives` are the same images read by other presets of the definitions."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int = VERSION
    status: Literal["started", "done", "cancelled", "failed"] = "done"
    message: str = ""
    job: Mapping[str, Any] = {}
    scores: Mapping[str, Score] = {}
    excluded: Mapping[str, int] = {}
    marks: tuple[str, ...] = ()
    alternatives: Mapping[str, Mapping[str, Score]] = {}
    about: Mapping[str, Any] = {}
    rows: tuple[Mapping[str, Any], ...] = ()

    @model_validator(mode="after")
    def _readable(self) -> Self:
        if self.version > VERSION:
            raise ValueError(f"this report is of version {self.version}, this program reads up to {VERSION}; update it")
        return self

    def json_text(self) -> str:
        """The document of `report.json`."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False)

    @classmethod
    def read(cls, text: str | Path) -> Self:
        """A report from its JSON, or from the file at that path; BadInput says what is wrong with it."""
        what = f"{text} is not a whole report, remove it" if isinstance(text, Path) else "This is not a report"
        try:
            return cls.model_validate_json(text.read_bytes() if isinstance(text, Path) else text)
        except FileNotFoundError:
            raise BadInput(f"There is no report {text}; `studio judge` writes one.") from None
        except OSError as error:
            raise BadInput(f"The report {text} cannot be read ({error.strerror}).") from None
        except ValidationError as error:
            first = error.errors()[0]
            raise BadInput(f"{what}: {'.'.join(map(str, first['loc']))} {first['msg']}.") from None

    @classmethod
    def found(cls, path: Path) -> Self | None:
        """The report at a path; None where there is none, or one that cannot be read."""
        try:
            return cls.read(path)
        except BadInput:
            return None

    @classmethod
    def kept(cls, path: Path, job: Mapping[str, Any]) -> Self | None:
        """The report of this very job at a path, None where there is none; BadInput when it is of another job."""
        if not path.exists():
            return None
        report = cls.read(path)
        same_job(path, report.job, job)
        return report

    def write(self, path: Path) -> None:
        """Puts the document at a path, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        put(path, self.json_text())

    def table(self) -> str:
        """The scores as aligned text for a terminal: value, interval, n, the unedited model's number, direction."""
        head = ("score", "value", "95 % interval", "n", "unedited", "better", "probe")
        lines = [head] + [_line(name, score) for name, score in self.scores.items()]
        widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
        text = [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
        ]
        text.insert(1, "  ".join("-" * width for width in widths))
        text += [f"{name}: {score.note}" for name, score in self.scores.items() if score.note]
        text += [f"left out: {count} images, {reason}" for reason, count in self.excluded.items()]
        text += [f"! {mark}" for mark in self.marks]
        if self.status != "done":
            text.append(f"! {self.status}{': ' if self.message else ''}{self.message}")
        return "\n".join(text)


def same_job(path: Path, had: Mapping[str, Any], job: Mapping[str, Any]) -> None:
    """BadInput when what lies at a path was made by another job than this one."""
    wanted = json.loads(json.dumps(job))
    if had != wanted:
        differing = next(key for key in {**wanted, **had} if wanted.get(key) != had.get(key))
        raise BadInput(
            f"{path} is the report of another job: {differing} was {had.get(differing)}, now it is "
            f"{wanted.get(differing)}. Give another --out, or remove it."
        )


def put(path: Path, text: str) -> None:
    """Replaces a file by a text, whole or not at all."""
    write_text(path, text, durable=False)


def put_between(path: Path, begin: str, end: str, text: str) -> None:
    """Replaces what stands between two marks of a document, which stay."""
    before, rest = path.read_text(encoding="utf-8").split(begin)
    put(path, f"{before}{begin}\n{text}\n{end}{rest.split(end)[1]}")


def _line(name: str, score: Score) -> tuple[str, ...]:
    arrow = "↑ higher" if score.better == "high" else "↓ lower"
    if score.unscored:
        return name, "unscored", "", "", shown(name, score.baseline), arrow, score.probe
    known = score.has_interval
    interval = f"{shown(name, score.low)} – {shown(name, score.high)}" if known else ""
    if known and name in SHARES and score.high - score.low > 2 * WIDE:
        interval += " (wide)"
    return name, shown(name, score.value), interval, str(score.n), shown(name, score.baseline), arrow, score.probe


def shown(name: str, value: float) -> str:
    """A score's number as people read it: shares in percent, memory in MiB, seconds with their unit."""
    if math.isnan(value):
        return ""
    if name in SHARES or name.startswith(("attribute_rate.", "drift.")):
        return f"{100 * value:.1f} %"
    if name.endswith("_bytes"):
        return f"{value / 2**20:.1f} MiB"
    if name.startswith("seconds"):
        return f"{value:.1f} s"
    return f"{value:.4g}"
