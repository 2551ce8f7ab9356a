"""Every style and object of Pocket Canvas erased in turn and judged: the table a method is measured by."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.judge import judge
from benchmarks.metrics.accuracy import bootstrap
from benchmarks.metrics.cost import metered
from benchmarks.report import Report, shown
from benchmarks.suite import Suite, Target
from erase.errors import BadInput
from erase.methods import build, method
from erase.model import Concept, Generator
from erase.work import Step, Work

ACCURACIES = ("UA", "IRA", "CRA")


@dataclass(frozen=True)
class Round:
    """One method over many targets: a preset (None: the target kind's own, where there is one) and other knobs."""

    method: str
    preset: str | None = None
    knobs: Mapping[str, Any] | None = None
    keep_others: bool = False
    seed: int = 0

    def job(self, target: Target, canvas: Suite, model: Generator) -> dict[str, Any]:
        """Everything that decides one report, resolved, as JSON values."""
        presets = method(self.method).presets
        preset = self.preset or (target.kind if target.kind in presets else None)
        knobs = build(self.method, preset, self.knobs)
        return {
            "model": model.name, "base": model.fingerprint, "method": self.method, "preset": preset,
            "knobs": knobs.model_dump(mode="json"),  # type: ignore[attr-defined]
            "concepts": [target.label], "kind": target.kind, "keep_others": self.keep_others, "seed": self.seed,
            "suite": canvas.name, "suite_version": canvas.version,
        }  # fmt: skip


def erase_and_judge(
    model: Any, canvas: Suite, rounds: Sequence[Round], targets: Sequence[Target], folder: Path, *, batch: int = 32
) -> Work[dict[str, list[Report]]]:
    """One report per method and target in `folder`; those that are there, of the same job, are not made again."""
    total, reports = len(rounds) * len(targets), {}
    for number, (round_, target) in enumerate((r, t) for r in rounds for t in targets):
        job = round_.job(target, canvas, model)
        path = folder / round_.method / f"{target.label}.json"
        report = _finished(path, job)
        if report is None:
            edit, cost = yield from metered(_erased(model, canvas, round_, target, job), model.device)
            report = yield from judge(model, edit, [target.label], canvas, cost=cost, job=job, batch=batch)
            _write(path, report)
        reports.setdefault(round_.method, []).append(report)
        yield Step("targets", number + 1, total)
    return reports


def table(reports: Mapping[str, Sequence[Report]]) -> str:
    """Per method and kind of target: mean UA, IRA, CRA with intervals over targets, and the worst targets."""
    lines = [f"{'method':12}{'targets':16}" + "".join(f"{name:26}" for name in ACCURACIES) + "seconds"]
    for name, kind, group in _groups(reports):
        cells = []
        for accuracy in ACCURACIES:
            low, high = bootstrap([report.scores[accuracy].value for report in group])
            cells.append(f"{shown(accuracy, mean(group, accuracy))} [{100 * low:.1f}, {100 * high:.1f}]")
        seconds = mean(group, "seconds")
        lines.append(
            f"{name:12}{len(group)} {kind + 's':13} " + "".join(f"{cell:26}" for cell in cells) + f"{seconds:.1f}"
        )
        for accuracy in ACCURACIES:
            worst = sorted(group, key=lambda report: report.scores[accuracy].value)[:3]
            said = ", ".join(f"{_target(report)} {shown(accuracy, report.scores[accuracy].value)}" for report in worst)
            lines.append(f"{'':12}lowest {accuracy:4} {said}")
        if marked := [f"{_target(report)} ({'; '.join(report.marks)})" for report in group if report.marks]:
            lines.append(f"{'':12}! " + ", ".join(marked))
    return "\n".join(lines)


def summary(reports: Mapping[str, Sequence[Report]]) -> dict[str, Any]:
    """The table as JSON values: method → kind of target → accuracy → value, interval over targets, baseline."""
    found: dict[str, Any] = {}
    for name, kind, group in _groups(reports):
        scores = {}
        for accuracy in ACCURACIES:
            values = [report.scores[accuracy].value for report in group]
            low, high = bootstrap(values)
            baseline = math.fsum(report.scores[accuracy].baseline for report in group) / len(group)
            images = sum(report.scores[accuracy].n for report in group)
            scores[accuracy] = {
                "value": mean(group, accuracy), "n": images, "low": low, "high": high, "baseline": baseline,
                "better": "high", "probe": group[0].scores[accuracy].probe,
                "note": f"mean over {len(group)} {kind}s, bootstrap over targets",
                "targets": {_target(report): report.scores[accuracy].value for report in group},
            }  # fmt: skip
        found.setdefault(name, {})[kind] = scores
    return found


def mean(group: Sequence[Report], score: str) -> float:
    """The mean of a score over reports."""
    return math.fsum(report.scores[score].value for report in group) / len(group)


def _erased(model: Any, canvas: Suite, round_: Round, target: Target, job: Mapping[str, Any]) -> Work[Any]:
    eraser = build(round_.method, overrides=job["knobs"])
    others = [label for label in (*canvas.styles, *canvas.objects) if label not in (target.label, canvas.photo)]
    keep = [concept(canvas, canvas.target(label)) for label in others] if round_.keep_others else []
    return (yield from eraser.erase(model, [concept(canvas, target)], keep, seed=round_.seed))


def concept(canvas: Suite, target: Target) -> Concept:
    """A target as the word that prompts say."""
    return Concept(name=canvas.spoken(target.label), kind=target.kind)


def _finished(path: Path, job: Mapping[str, Any]) -> Report | None:
    """The report of this very job; BadInput when the file is of another one, so that no table mixes the two."""
    if not path.exists():
        return None
    report = Report.read(path)
    if dict(report.job) != dict(job):
        differing = next(key for key in {**job, **report.job} if job.get(key) != report.job.get(key))
        raise BadInput(
            f"{path} is the report of another job: {differing} was {report.job.get(differing)}, now it is "
            f"{job.get(differing)}. Give another --out, or remove it."
        )
    return report


def _write(path: Path, report: Report) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(report.json_text(), encoding="utf-8")
    os.replace(temporary, path)


def _groups(reports: Mapping[str, Sequence[Report]]) -> Iterator[tuple[str, str, list[Report]]]:
    for name, all_of_it in reports.items():
        for kind in ("style", "object"):
            if group := [report for report in all_of_it if report.job["kind"] == kind]:
                yield name, kind, group


def _target(report: Report) -> str:
    return report.job["concepts"][0]


def as_json(value: Any) -> str:
    """One JSON document; NaN becomes null."""
    return json.dumps(_plain(value), ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
