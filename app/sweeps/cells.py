"""A cell of a sweep is a RUN folder made by the studio's own commands: erase, judge, attack. What is there stays."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.cli.main import CANCELLED, answered, explain
from app.cli.progress import follow
from app.models import Loading, load
from app.runs.run import is_run, open_run
from app.sweeps.engines import Outcome
from benchmarks.attacks.run import AttackReport
from benchmarks.judging.judge import tools
from benchmarks.judging.predictions import remembered
from benchmarks.suites.suite import Suite
from benchmarks.sweeps.sweep import Cell, ModelLine, Sweep
from erase.errors import BadInput
from erase.files import write_json, write_text

Words = tuple[str, ...]


@dataclass(frozen=True)
class Unedited:
    """The pictures of the unedited model that several cells need, drawn once and in one order for all of them.

    Whichever cell came first would else decide which pictures share a batch, and with it their last bits.
    """

    name: str
    model: ModelLine
    suite: Suite
    labels: tuple[str, ...]

    def perform(self) -> None:
        """Draw what the cache has not."""
        model = load(self.model.path, loading(self.model))
        shots = dict.fromkeys(cell.shot for label in self.labels for cell in self.suite.shots([label]))
        reader, text = tools(self.suite, str(model.device))
        follow(remembered(model, list(shots), self.suite, reader, text), f"drawing {self.name}")


@dataclass(frozen=True)
class Chain:
    """The commands of one cell; one whose result lies there already, of this very edit, is not run again."""

    name: str
    run: Path
    erase: Words
    then: tuple[tuple[Path, Words], ...]  # where each leaves its report

    def perform(self) -> None:
        """Erase, then judge and attack what has not been."""
        words = (*self.erase, "--resume") if is_run(self.run) else self.erase
        answered(words)
        edit = open_run(self.run).edit().hash
        for report, words in self.then:
            if not reported(report, edit):
                answered(words)
                if words[0] == "judge":  # a run keeps one report, a sweep one for each suite
                    write_text(report, (self.run / "report.json").read_text(encoding="utf-8"))


Task = Unedited | Chain


def perform(task: Task) -> Outcome:
    """Do a task; whatever goes wrong becomes its outcome, except that somebody wants it to stop."""
    began = time.monotonic()
    try:
        task.perform()
    except BaseException as error:
        kind, code, message = explain(error)
        if code == CANCELLED:
            raise
        return Outcome(task.name, "failed", time.monotonic() - began, kind, message)
    return Outcome(task.name, "done", time.monotonic() - began)


def unedited(sweep: Sweep, cells: Sequence[Cell]) -> Iterator[Unedited]:
    """One task per suite, to be done before any cell."""
    labels = tuple(dict.fromkeys(cell.target.label for cell in cells))
    for suite in sweep.canvases():
        yield Unedited(f"the unedited model on {suite.name}", sweep.model, suite, labels)


def chain(sweep: Sweep, cell: Cell, out: Path) -> Chain:
    """A cell's commands, in the words a person would type."""
    run = folder(out, cell)
    # One value for each option, as `--option=value`: a value may begin with a dash.
    erase = ["erase", sweep.model.path, f"--concept={cell.said}", f"--kind={cell.kind}"]
    erase += [f"--anchor={cell.anchor}"] if cell.anchor is not None else []
    erase += [f"--keep={name}" for name in cell.keep]
    preset = cell.variant.preset_for(cell.kind)
    erase += [f"--method={cell.variant.method}", *([f"--preset={preset}"] if preset else [])]
    erase += [f"--{knob}={_typed(value)}" for knob, value in sorted(cell.variant.knobs.items())]
    erase += [f"--seed={cell.seed}", f"--out={run}", *_loading_words(sweep.model)]
    places = _places(sweep)
    then: list[tuple[Path, Words]] = []
    # The first suite's report is written last, and so it is the one that the run itself keeps.
    for suite, name in reversed(list(zip(sweep.canvases(), sweep.suites, strict=True))):
        words = ("judge", str(run), f"--suite={name}", *places, *_loading_words(sweep.model))
        then.append((run / "reports" / f"{suite.name}.json", words))
    for attack in sweep.attacks:
        name, _, budget = attack.partition(":")
        place = run / "attacks" / attack.replace(":", "-")
        words = ["attack", str(run), f"--concept={cell.target.label}", f"--attack={name}", f"--suite={sweep.suites[0]}"]
        words += [f"--budget={budget}"] if budget else []
        words += [f"--rows={sweep.attack_rows}", f"--seed={cell.seed}", f"--out={place}", *places[:1]]
        then.append((place / "report.json", (*words, *_loading_words(sweep.model))))
    return Chain(cell.name, run, tuple(erase), tuple(then))


def folder(out: Path, cell: Cell) -> Path:
    """A cell's RUN."""
    return out / "runs" / cell.name


def loading(line: ModelLine) -> Loading:
    """A sweep's [model] as loading options."""
    return Loading(line.device, line.dtype, line.attention_slicing, line.offload, line.config, line.online)


def reported(path: Path, edit: str) -> bool:
    """Whether a whole report of this edit lies there."""
    # An attack's is a report and more; what counts here is what both have.
    report = AttackReport.found(path)
    return report is not None and edit in (report.about.get("edit"), report.job.get("edit"))


def note_failure(out: Path, outcome: Outcome) -> None:
    """Keep the sentence of a failed cell, or forget the one of a cell that has worked now."""
    path = out / "failed" / f"{outcome.task.replace('/', '+')}.json"
    if outcome.status == "done":
        path.unlink(missing_ok=True)
    else:
        write_json(path, {"cell": outcome.task, "kind": outcome.kind, "message": outcome.message})


def failures(out: Path) -> Mapping[str, str]:
    """The sentences of the cells that failed."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((out / "failed").glob("*.json"))]
    return {each["cell"]: each["message"] for each in found}


def _places(sweep: Sweep) -> Words:
    return tuple(f"--{name}={value}" for name, value in (("probe", sweep.probe), ("data", sweep.data)) if value)


def _loading_words(line: ModelLine) -> Words:
    given = line.model_dump(exclude_defaults=True, exclude={"path"})
    named = {name.replace("_", "-"): value for name, value in given.items()}
    return tuple(f"--{name}" if value is True else f"--{name}={value}" for name, value in named.items())


def _typed(value: Any) -> str:
    """A TOML value as the command line takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return json.dumps(list(value), ensure_ascii=False)
    if isinstance(value, dict):
        raise BadInput(f"A knob takes one value, not the table {value}.")
    return str(value)
