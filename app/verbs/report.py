"""`studio report`: a run, a sweep, or a folder of runs as one HTML file that needs nothing else."""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.answer import Answer
from app.cli.options import Parser
from erase.errors import BadInput
from erase.files import require_writable, size, write_text

if TYPE_CHECKING:
    from app.runs.run import Run
    from benchmarks.attacks.run import AttackReport


def report_options(parser: Parser) -> None:
    parser.add_argument("source", metavar="RUN|DIR", help="a judged run, the folder of a sweep, or one with runs below")
    parser.add_argument("--out", required=True, metavar="HTML", help="the file to write")


def report(args: argparse.Namespace) -> Answer:
    """Write the page of a run, of a sweep's folder, or of all judged runs below a folder."""
    from app.runs.run import is_run, open_run

    folder, out = Path(args.source), Path(args.out)
    if out.suffix.lower() not in (".html", ".htm"):
        raise BadInput(f"--out {out} should end in .html.")
    if not folder.is_dir():
        raise BadInput(f"There is no folder {folder}. `studio runs` lists the runs below a folder.")
    require_writable(out.parent)
    if is_run(folder):
        page, what = _of_run(open_run(folder)), "run"
    elif (folder / "leaderboard.json").is_file():
        page, what = _of_sweep(folder), "sweep"
    else:
        page, what = _of_runs(folder), "folder"
    write_text(out, page)
    document = {"version": 1, "status": "done", "of": what, "source": folder, "out": out, "bytes": len(page.encode())}
    return Answer(document, f"Written: {out} ({size(len(page.encode()))}); open it in any browser.")


def _of_run(run: Run) -> str:
    from benchmarks.pages.html import Attacked, run_page
    from benchmarks.report import Report

    path = run.folder / "report.json"
    if not path.is_file():
        raise BadInput(f"{run.folder} has not been judged yet; `studio judge {run.folder}` does that.")
    attacks = [
        Attacked(name, found, run.folder / "attacks" / name / "attack.png") for name, found in _attacks(run.folder)
    ]
    return run_page(run.job.title, Report.read(path), run.record, run.folder / "grid.png", _events(run.folder), attacks)


def _of_sweep(folder: Path) -> str:
    from benchmarks.pages.html import sweep_page
    from benchmarks.sweeps.leaderboard import Leaderboard

    board = Leaderboard.read((folder / "leaderboard.json").read_text(encoding="utf-8"))
    costs = json.loads(_text(folder / "costs.json") or '{"costs": []}')["costs"]
    return sweep_page(board, costs, _text(folder / "sweep.toml"), f"studio sweep sweep.toml --out {folder}")


def _of_runs(folder: Path) -> str:
    """Runs that were made one by one: a method under two settings of its knobs is two methods."""
    from app.runs.run import find_runs
    from benchmarks.pages.html import sweep_page
    from benchmarks.report import Report
    from benchmarks.sweeps.leaderboard import COSTS, Entry, entry_scores, leaderboard

    judged = [(run, found) for run in find_runs(folder)
              if (found := Report.found(run.folder / "report.json")) is not None]  # fmt: skip
    if not judged:
        raise BadInput(f"There is no judged run below {folder}; `studio judge RUN` makes a report.")
    settings: dict[str, set[str]] = {}
    for run, _ in judged:
        settings.setdefault(run.job.method, set()).add(_digest(run.job.knobs))
    entries, costs = [], []
    for run, found in judged:
        job, place = run.job, run.folder.relative_to(folder).as_posix()
        label = job.method if len(settings[job.method]) == 1 else f"{job.method} {_digest(job.knobs)}"
        suite = str(found.job.get("suite", ""))
        entry = Entry(
            label=label, method=job.method, knobs=job.knobs, kind=job.concepts[0].kind, seed=job.seed, run=place,
            concept=", ".join(concept.name.replace(" ", "_") for concept in job.concepts), suite=suite,
            edit=str(found.about.get("edit", "")), scores=entry_scores(found, dict(_attacks(run.folder))),
            marks=found.marks, excluded=found.excluded,
        )  # fmt: skip
        entries.append((entry, found.rows))
        costs.append({"cell": place, "suite": suite} | {n: found.scores[n].value for n in COSTS if n in found.scores})
    return sweep_page(leaderboard(folder.name, entries), costs, "", "")


def _attacks(folder: Path) -> Iterator[tuple[str, AttackReport]]:
    from benchmarks.attacks.run import AttackReport

    for path in sorted((folder / "attacks").glob("*/report.json")):
        found = AttackReport.found(path)
        if found is not None:
            yield path.parent.name, found


def _events(folder: Path) -> list[Mapping[str, Any]]:
    """The Steps of a run; a line torn by a kill ends them."""
    events = []
    for line in _text(folder / "events.jsonl").splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            break
    return events


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _digest(knobs: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(knobs, sort_keys=True).encode()).hexdigest()[:4]
