"""Every style and object of Pocket Canvas erased in turn and judged: the table a method is measured by."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from benchmarks.attacks.engine import Attack
from benchmarks.attacks.registry import name_of
from benchmarks.attacks.run import AttackReport, attack
from benchmarks.attacks.settings import AttackSettings
from benchmarks.judging.judge import JudgeSettings, judge
from benchmarks.metrics.cost import metered
from benchmarks.report import Report
from benchmarks.suites.suite import Suite, Target
from benchmarks.sweeps.leaderboard import Entry, Leaderboard, entry_scores, leaderboard
from erase.concept import Concept
from erase.edit import Edit
from erase.errors import BadInput, match
from erase.files import file_name
from erase.methods.registry import build, method, method_names
from erase.model import Generator
from erase.request import Request, run_method
from erase.work import Step, Work


@dataclass(frozen=True)
class Round:
    """One method over many targets: a preset (None: the target kind's own, where there is one) and other knobs."""

    method: str
    preset: str | None = None
    knobs: Mapping[str, Any] | None = None
    keep_others: bool = False
    seed: int = 0
    # Whether its network grew out of the unedited one, so that their features can be compared.
    kin: ClassVar[bool] = True

    @classmethod
    def read(cls, text: str, settings: Sequence[str] = (), **options: Any) -> Round:
        """A round from METHOD, METHOD:PRESET or METHOD:PRESET+KNOB=VALUE+…, and further settings KNOB=VALUE.

        BadInput for a method that does not exist or a setting without a value.
        """
        head, *own = text.split("+")
        name, _, preset = head.partition(":")
        knobs = {}
        for setting in (*settings, *own):
            knob, sign, value = setting.partition("=")
            if not sign:
                raise BadInput(f"{setting!r} should read KNOB=VALUE.")
            knobs[knob] = value
        return cls(match(name, method_names(), "method"), preset or None, knobs, **options)

    @property
    def label(self) -> str:
        """What tables and folders call it."""
        head = f"{self.method}-{self.preset}" if self.preset else self.method
        return "+".join([head, *(f"{knob}={value}" for knob, value in (self.knobs or {}).items())])

    def preset_for(self, target: Target) -> str | None:
        """Its preset in the form for the target's kind, such as pocket-style, where the method has one."""
        own = f"{self.preset}-{target.kind}" if self.preset else target.kind
        return own if own in method(self.method).presets else self.preset

    def resolved(self, target: Target) -> dict[str, Any]:
        """Every knob's value for the target, as JSON values."""
        eraser: Any = build(self.method, self.preset_for(target), self.knobs)
        return eraser.model_dump(mode="json")

    def suite(self, suite: Suite, target: Target) -> Suite:
        """The suite as this line is judged on it."""
        return suite

    def edit(self, model: Any, suite: Suite, target: Target) -> Work[Edit]:
        """The erasure of a target; every other label of the suite is kept where that was asked for."""
        eraser = build(self.method, self.preset_for(target), self.knobs)
        keep = kept_beside(suite, [target]) if self.keep_others else []
        return (yield from run_method(eraser, Request(model, [concept(suite, target)], keep, seed=self.seed)))

    def job(self, target: Target, suite: Suite, model: Generator) -> dict[str, Any]:
        """Everything that decides one report, resolved, as JSON values."""
        return {
            "model": model.name, "base": model.fingerprint, "method": self.method,
            "preset": self.preset_for(target), "knobs": self.resolved(target),
            "concepts": [target.label], "kind": target.kind, "keep_others": self.keep_others, "seed": self.seed,
            "suite": suite.name, "suite_version": suite.version,
        }  # fmt: skip


def erase_and_judge(
    model: Any,
    suite: Suite,
    rounds: Sequence[Round],
    targets: Sequence[Target],
    folder: Path,
    *,
    batch: int = 32,
    attacks: Sequence[Attack] = (),
    attacked: int = 0,
) -> Work[dict[str, list[Report]]]:
    """One report per round and target in `folder`; those that are there, of the same job, are not made again.

    Edits of the first `attacked` targets undergo `attacks` too, and the reports of that lie in a folder beside.
    """
    total, reports = len(rounds) * len(targets), {}
    for number, (round_, target) in enumerate((r, t) for r in rounds for t in targets):
        job = round_.job(target, suite, model)
        path = folder / round_.label / f"{file_name(target.label)}.json"
        report = Report.kept(path, job)
        hows = attacks if target in targets[:attacked] else ()
        left = [how for how in hows if report is None or not attack_of(path, report, how)]
        if report is None or left:
            edit, cost = yield from metered(round_.edit(model, suite, target), model.device)
            seen = round_.suite(suite, target)
            if report is None or report.about["edit"] != edit.hash:
                report = yield from judge(
                    model, edit, [target.label], seen, JudgeSettings(batch=batch), cost=cost, job=job
                )
                report.write(path)
            for how in left:
                place = _attack_folder(path, how)
                work = attack(model, edit, target.label, how, AttackSettings(suite=seen), folder=place, beside=report)
                (yield from work).write(place / "report.json")
        reports.setdefault(round_.label, []).append(report)
        yield Step("targets", number + 1, total)
    return reports


def attack_of(path: Path, report: Report, how: Attack) -> AttackReport | None:
    """The report of this attack on the very edit that the report at a path is about, where there is one."""
    found = AttackReport.found(_attack_folder(path, how) / "report.json")
    known = how.model_dump(mode="json")  # type: ignore[attr-defined]
    if found is None or (found.job["edit"], found.job["knobs"]) != (report.about["edit"], known):
        return None
    return found


def _attack_folder(path: Path, how: Attack) -> Path:
    return path.parent / "attacks" / f"{path.stem}-{name_of(how)}"


def board(
    reports: Mapping[str, Sequence[Report]], attacks: Mapping[tuple[str, str], Mapping[str, Report]] | None = None
) -> Leaderboard:
    """The leaderboard of the reports, as a sweep would have made it; `attacks` by edit and concept, then by attack."""
    entries = []
    for name, all_of_it in reports.items():
        for report in all_of_it:
            job, edit = report.job, report.about["edit"]
            scores = entry_scores(report, (attacks or {}).get((edit, job["concepts"][0]), {}))
            entry = Entry(
                label=name, method=job["method"], preset=job["preset"], knobs=job["knobs"], seed=job["seed"],
                concept=job["concepts"][0], kind=job["kind"], suite=job["suite"], edit=edit,
                scores=scores, marks=report.marks, excluded=report.excluded,
            )  # fmt: skip
            entries.append((entry, report.rows))
    return leaderboard("pocket", entries)


def kept_beside(suite: Suite, erased: Sequence[Target]) -> list[Concept]:
    """Every label of the suite but the erased ones and the photo."""
    gone = {suite.photo, *(target.label for target in erased)}
    return [concept(suite, suite.target(label)) for label in (*suite.styles, *suite.objects) if label not in gone]


def concept(suite: Suite, target: Target) -> Concept:
    """A target as the word that prompts say."""
    return Concept(name=suite.spoken(target.label), kind=target.kind)


def as_json(value: Any) -> str:
    """One JSON document; NaN becomes null."""
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
