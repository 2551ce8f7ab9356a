"""Reports as one HTML file each: pictures and plots inside it, nothing loaded from anywhere, every text escaped."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from benchmarks.attacks.run import AttackReport
from benchmarks.metrics.interference import interference
from benchmarks.pages.published_numbers import published
from benchmarks.pictures.plots import Axis, Point, curves, heat, pareto
from benchmarks.report import Report, Score, shown
from benchmarks.sweeps.leaderboard import HEAD, Leaderboard, Line

AXES = (
    (Axis("UA", "high"), Axis("IRA", "high")),
    (Axis("UA", "high"), Axis("CRA", "high")),
    (Axis("UA", "high"), Axis("FID", "low")),
)


@dataclass(frozen=True)
class Attacked:
    """One attack on a run: its name, its report, and its sheet of pictures if there is one."""

    name: str
    report: AttackReport
    picture: Path | None


def run_page(
    title: str,
    report: Report,
    record: Mapping[str, Any],
    grid: Path | None,
    events: Sequence[Mapping[str, Any]],
    attacks: Sequence[Attacked],
) -> str:
    """The page of one run: `record` is its job.json, `events` its Steps."""
    concepts = [concept["name"] for concept in report.job.get("concepts", ()) if isinstance(concept, Mapping)]
    rows = [row for row in report.rows if "style" in row and "object" in row]
    labels = {label for row in rows for label in (row["style"], row["object"])}
    erased = [name.replace(" ", "_") for name in concepts if name.replace(" ", "_") in labels]
    matrix = interference((label, rows) for label in erased)
    losses = _losses(events)
    return _page(
        "run.html",
        title=title,
        command=record.get("typed", ""),
        report=report,
        grid=_embedded(grid),
        matrix=_svg(heat(matrix)) if matrix.cells else None,
        losses=_svg(curves(losses, "step", "loss")) if losses else None,
        attacks=[_attack(attack) for attack in attacks],
        provenance=_provenance(report, record),
    )


def sweep_page(board: Leaderboard, costs: Sequence[Mapping[str, Any]], file: str, command: str) -> str:
    """The page of a sweep: leaderboard, Pareto plots, interference, every cell, what failed."""
    names = dict.fromkeys(name for entry in board.entries for name in entry.scores)
    return _page(
        "sweep.html",
        title=f"Sweep {board.name}",
        command=command,
        board=board,
        unmade=[entry for entry in board.entries if entry.status != "done"],
        places=[_place(board, *key) for key in dict.fromkeys((line.suite, line.kind) for line in board.lines)],
        seconds=_seconds(board, costs),
        six=board.mean_of_six,
        published=published("unlearncanvas") if any("unlearncanvas" in e.suite for e in board.entries) else None,
        matrices=[
            {
                "name": name, "image": _svg(heat(matrix)), "worst": matrix.worst,
                "mean": _points(matrix.mean), "asymmetry": _points(matrix.asymmetry),
            }
            for name, matrix in board.interference.items()
        ],
        shown_names=[name for name in names if name in HEAD or name.startswith("ASR ")],
        file=file,
    )  # fmt: skip


def _place(board: Leaderboard, suite: str, kind: str) -> dict[str, Any]:
    """One suite and kind of target: its lines, the unedited model's scores, its plots."""
    lines = [line for line in board.lines if (line.suite, line.kind) == (suite, kind)]
    names = list(dict.fromkeys(name for line in lines for name in line.scores))
    baseline = {name: next(line.scores[name].baseline for line in lines if name in line.scores) for name in names}
    plots = [{"title": f"{x.name} and {y.name}", "image": _svg(pareto(points, x, y))}
             for x, y in AXES if (points := _points_on(lines, x, y))]  # fmt: skip
    return {"suite": suite, "kind": kind, "lines": lines, "names": names, "baseline": baseline, "plots": plots}


def _points_on(lines: Sequence[Line], x: Axis, y: Axis) -> list[Point]:
    scored = [
        (line.label, line.scores[x.name], line.scores[y.name])
        for line in lines
        if all(name in line.scores and not line.scores[name].unscored for name in (x.name, y.name))
    ]
    return [Point(label, a.value, b.value, (a.low, a.high), (b.low, b.high)) for label, a, b in scored]


def _seconds(board: Leaderboard, costs: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], str]:
    """The mean seconds of an erasure, by method, suite and kind."""
    spent = {(cost["cell"], cost["suite"]): cost.get("seconds") for cost in costs}
    found: dict[tuple[str, str, str], list[float]] = {}
    for entry in board.entries:
        seconds = spent.get((entry.run.removeprefix("runs/"), entry.suite))
        if isinstance(seconds, float | int) and not math.isnan(seconds):
            found.setdefault((entry.label, entry.suite, entry.kind), []).append(seconds)
    return {key: f"{math.fsum(values) / len(values):.1f}" for key, values in found.items()}


def _attack(attack: Attacked) -> dict[str, Any]:
    curve = attack.report.about.get("curve") or []
    drawn = _svg(curves({"ASR": curve}, "budget spent on a row", "share of rows")) if len(curve) > 1 else None
    return {
        "name": attack.name, "report": attack.report, "curve": drawn, "broken": attack.report.broken,
        "picture": _embedded(attack.picture),
    }  # fmt: skip


def _losses(events: Sequence[Mapping[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Every loss by its name over the number of the Step."""
    found: dict[str, list[tuple[float, float]]] = {}
    for number, event in enumerate(events, 1):
        for name, value in event.get("loss", {}).items():
            if isinstance(value, float | int) and math.isfinite(value):
                found.setdefault(name, []).append((number, value))
    return {name: points for name, points in found.items() if len(points) > 1}


def _provenance(report: Report, record: Mapping[str, Any]) -> dict[str, str]:
    """Everything that decided the numbers, as text."""
    about = {name: value for name, value in report.about.items() if name not in ("deviations", "erasure", "curve")}
    kept = {name: value for name, value in record.items() if name not in ("job", "version")}
    told = {"job": record.get("job", report.job), **{f"run: {name}": value for name, value in kept.items()}, **about}
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False) for name, value in told.items()
    }


def _page(template: str, **values: Any) -> str:
    folder = FileSystemLoader(Path(__file__).parent / "templates")
    made = Environment(loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    made.filters |= {"shown": lambda name, value: shown(name.split()[0], value), "span": _span}
    return made.get_template(template).render(**values)


def _span(score: Score, name: str) -> str:
    if not score.has_interval:
        return ""
    name = name.split()[0]
    return f"{shown(name, score.low)} – {shown(name, score.high)}"


def _points(change: float | None) -> str:
    return "" if change is None else f"{100 * change:+.1f} points"


def _svg(text: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(text.encode()).decode()


def _embedded(picture: Path | None) -> str | None:
    """A PNG as a data address; None where there is none."""
    if picture is None or not picture.is_file():
        return None
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
