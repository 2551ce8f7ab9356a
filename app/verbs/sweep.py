"""`studio sweep`: every method of a file on every concept, each in a RUN folder of its own, and the leaderboard."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.answer import Answer
from app.cli.options import COUNT, Parser
from app.cli.progress import duration
from erase.errors import BadInput
from erase.files import lock, write_json, write_text

if TYPE_CHECKING:
    from app.sweeps.cells import Task
    from app.sweeps.engines import Outcome, Setting
    from benchmarks.sweeps.leaderboard import Entry, Leaderboard
    from benchmarks.sweeps.sweep import Cell, Sweep


def sweep_options(parser: Parser) -> None:
    parser.add_argument("file", metavar="FILE.toml", help="what to sweep over")
    parser.add_argument("--out", required=True, metavar="DIR", help="one RUN folder per cell, and leaderboard.json")
    workers = "processes (default: one per GPU, else as many as the processors hold); the table does not depend on it"
    parser.add_argument("--workers", type=COUNT, metavar="N", help=workers)
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="run on a Ray cluster that sees --out; `local` starts one here"
    )


def sweep(args: argparse.Namespace) -> Answer:
    """Run what is missing of a sweep; failed cells are noted, and the others go on."""
    from benchmarks.sweeps.sweep import cells, read_sweep

    path, out = Path(args.file), Path(args.out)
    plan = read_sweep(path)
    wanted = cells(plan)
    _check(plan, wanted, out)
    with lock(out):
        write_text(out / "sweep.toml", path.read_text(encoding="utf-8"))
        _run(args, plan, wanted, out.resolve())
        board, costs = collected(plan, wanted, out)
        write_text(out / "leaderboard.json", board.model_dump_json(indent=1) + "\n")
        write_json(out / "costs.json", {"version": 1, "costs": costs})
    return _told(board, costs, out)


def _check(plan: Sweep, wanted: Sequence[Cell], out: Path) -> None:
    """BadInput for what a cell's own commands would refuse, before the first picture is drawn."""
    from app.cli.parser import parse
    from app.models import source
    from app.sweeps.cells import chain
    from app.verbs.erase import read_job
    from benchmarks.judging.reference import whole
    from benchmarks.probes.open_probe import probe_of

    for suite in plan.canvases():
        probe_of(suite)
        if suite.data is not None:
            whole(Path(suite.data), suite)
    what = source(plan.model.path)
    chains = [chain(plan, cell, out) for cell in wanted]
    for each in chains:
        read_job(parse(each.erase), what)
    for _, words in chains[0].then:  # the same for every cell but for its folder
        parse(words)


def collected(plan: Sweep, wanted: Sequence[Cell], out: Path) -> tuple[Leaderboard, list[dict[str, Any]]]:
    """The leaderboard of what lies in a sweep's folder, and what each cell has cost."""
    from app.sweeps.cells import failures
    from benchmarks.sweeps.leaderboard import leaderboard

    said, judged, costs = failures(out), [], []
    for cell in wanted:
        for suite in plan.canvases():
            entry, rows, cost = _entry(plan, cell, suite.name, out, said.get(cell.name, ""))
            judged.append((entry, rows))
            costs.append({"cell": cell.name, "suite": suite.name, **cost})
    return leaderboard(plan.name, judged), costs


def _run(args: argparse.Namespace, plan: Sweep, wanted: Sequence[Cell], out: Path) -> None:
    """Do all tasks; the unedited model's pictures come first, because every cell is compared with them."""
    from app.sweeps.cells import chain, note_failure, unedited
    from app.sweeps.engines import Setting

    setting = Setting(plan.threads, {"STUDIO_CACHE": str(out / "unedited")})
    first = list(unedited(plan, wanted))
    then = [chain(plan, cell, out) for cell in wanted]
    for outcome in _engine(args, setting, first, out):
        if outcome.status != "done":
            raise BadInput(f"Drawing {outcome.task} failed, so nothing can be compared with it. {outcome.message}")
    for done, outcome in enumerate(_engine(args, setting, then, out), 1):
        note_failure(out, outcome)
        how = outcome.message if outcome.status == "failed" else duration(outcome.seconds)
        print(f"{done}/{len(then)} {outcome.task}: {outcome.status}. {how}", file=sys.stderr, flush=True)


def _engine(args: argparse.Namespace, setting: Setting, tasks: Sequence[Task], out: Path) -> Iterator[Outcome]:
    from app.sweeps import engines
    from app.sweeps.cells import perform

    if args.ray is not None:
        return engines.ray(tasks, perform, setting, args.ray)
    workers = min(len(tasks), _workers(setting.threads) if args.workers is None else args.workers)
    if workers > 1:
        return engines.pool(tasks, perform, setting, workers, out / "logs")
    return engines.here(tasks, perform, setting)


def _workers(threads: int) -> int:
    """As many as there are GPUs; without one as many as there are processors for."""
    import torch

    return torch.cuda.device_count() or max(1, (os.cpu_count() or 1) // threads)


def _entry(plan: Sweep, cell: Cell, suite: str, out: Path, failed: str) -> tuple[Entry, Any, dict[str, Any]]:
    from app.sweeps.cells import folder
    from benchmarks.attacks.run import AttackReport
    from benchmarks.report import Report
    from benchmarks.sweeps.leaderboard import COSTS, Entry, entry_scores

    run = folder(out, cell)
    entry = Entry(
        label=cell.variant.label, method=cell.variant.method, preset=cell.variant.preset_for(cell.kind),
        knobs=cell.variant.knobs, concept=cell.target.label, kind=cell.kind, seed=cell.seed, suite=suite,
        run=f"runs/{cell.name}", status="failed" if failed else "missing", message=failed,
    )  # fmt: skip
    report = Report.found(run / "reports" / f"{suite}.json")
    if failed or report is None:
        return entry, (), {}
    attacks = {}
    for attack in plan.attacks if suite == plan.canvases()[0].name else ():
        told = AttackReport.found(run / "attacks" / attack.replace(":", "-") / "report.json")
        if told is not None:
            attacks[attack] = told
    costs = {name: report.scores[name].value for name in COSTS if name in report.scores}
    costs |= {f"{name} {attack}": each.scores[name].value
              for attack, each in attacks.items() for name in COSTS if name in each.scores}  # fmt: skip
    judged = {
        "status": "done", "message": "", "edit": report.about["edit"], "scores": entry_scores(report, attacks),
        "marks": report.marks, "excluded": report.excluded,
    }  # fmt: skip
    return entry.model_copy(update=judged), report.rows, costs


def _told(board: Leaderboard, costs: Sequence[dict[str, Any]], out: Path) -> Answer:
    unmade = [entry for entry in board.entries if entry.status != "done"]
    document = {
        **board.model_dump(mode="json"), "status": "failed" if unmade else "done", "folder": out, "costs": costs,
    }  # fmt: skip
    lines = [board.table(), f"The table: {out / 'leaderboard.json'}", f"Next: studio report {out} --out sweep.html"]
    if unmade:
        message = f"{len(unmade)} of {len(board.entries)} cells have no scores; the same command tries them again."
        document["error"] = {"kind": "some-jobs-failed", "message": message}
        lines.append(message)
    return Answer(document, "\n".join(lines), code=1 if unmade else 0)
