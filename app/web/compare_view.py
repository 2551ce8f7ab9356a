"""All measured runs compared, and two of them side by side, as HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from app.cli.progress import duration
from app.runs.run import Run
from app.web.actions import finished
from app.web.run_view import before_after, scores
from app.web.task_view import readable
from app.web.templates import render
from benchmarks.metrics.interference import Matrix, interference
from benchmarks.pictures.plots import Axis, Point, inline, pareto
from benchmarks.report import SHARES, Report, shown

HEADLINE = ("UA", "IRA", "CRA", "FID", "CLIP")
GAN_HEADLINE = ("PUL", "FID", "gamma_normalised")
ARROWS = {"FID": "↓"} | dict.fromkeys(("UA", "IRA", "CRA", "CLIP", "PUL", "gamma_normalised"), "↑")
SPARED, ERASED = Axis("mean of IRA and CRA", "high"), Axis("UA", "high")


def compare() -> str:
    """All measured runs by family: in a table, between erasing and sparing, and what each erasure did to the rest."""
    listed = _measured()
    diffusion = [report for _, report in listed if not _of_gan(report)]
    suites = sorted({str(suite) for report in diffusion if (suite := report.job.get("suite"))})
    points = _points(listed)
    plot = inline(pareto(points, SPARED, ERASED)) if points else ""
    return render("compare_view.compare", suites, plot, _boards(listed), _matrices(listed))


def contrast(one: str, other: str) -> str:
    """Two runs side by side: what differs in what was asked, and their pictures at strength 1."""
    if not one or not other or one == other:
        return ""
    runs = [finished(one), finished(other)]
    sides = [(run.job.title, scores(run.folder.name), before_after(run.folder.name)) for run in runs]
    return render("compare_view.contrast", runs[0].job.differences(runs[1].job), sides)


def _measured() -> list[tuple[Run, Report]]:
    runs = [run for run in readable() if (run.folder / "report.json").is_file()]
    return [(run, Report.read(run.folder / "report.json")) for run in runs]


def _of_gan(report: Report) -> bool:
    return "PUL" in report.scores


def _boards(listed: Sequence[tuple[Run, Report]]) -> list[dict[str, Any]]:
    """The table of the diffusion models' runs, then that of the GANs', each with the scores of its family."""
    boards = []
    for names, gan in ((HEADLINE, False), (GAN_HEADLINE, True)):
        rows = [
            (str(number), run.job.title, Path(run.job.model).stem, *(_value(report, name) for name in names),
             duration(run.state["seconds"]))
            for number, (run, report) in enumerate(listed, 1) if _of_gan(report) == gan
        ]  # fmt: skip
        head = ("#", "run", "model", *(f"{name} {ARROWS[name]}" for name in names), "time")
        boards += [{"head": head, "rows": rows}] if rows else []
    return boards


def _matrices(listed: Sequence[tuple[Run, Report]]) -> list[dict[str, Any]]:
    """What erasing one concept did to every other: a matrix for each method and model."""
    groups: dict[str, list[tuple[str, Sequence[Mapping[str, Any]]]]] = {}
    for run, report in listed:
        rows = [row for row in report.rows if "style" in row and "object" in row]
        labels = {label for row in rows for label in (row["style"], row["object"])}
        for concept in run.job.concepts:
            if (label := concept.name.replace(" ", "_")) in labels:
                groups.setdefault(f"{run.job.method} on {Path(run.job.model).stem}", []).append((label, rows))
    return [_matrix(name, interference(judged)) for name, judged in sorted(groups.items())]


def _matrix(name: str, matrix: Matrix) -> dict[str, Any]:
    labels = sorted({label for row in matrix.cells.values() for label in row})
    return {
        "name": name,
        "labels": [_spaced(label) for label in labels],
        "rows": [(_spaced(erased), [row.get(label) for label in labels]) for erased, row in matrix.cells.items()],
        "worst": [
            (_spaced(erased), [_spaced(label) for label in lost]) for erased, lost in matrix.worst.items() if lost
        ],
    }


def _spaced(label: str) -> str:
    return label.replace("_", " ")


def _points(listed: Sequence[tuple[Run, Report]]) -> list[Point]:
    """The runs whose UA, IRA and CRA are scored, labelled with their numbers in the table."""
    points = []
    for number, (_, report) in enumerate(listed, 1):
        if any(name not in report.scores or report.scores[name].unscored for name in ("UA", "IRA", "CRA")):
            continue
        erased, within, across = (report.scores[name] for name in ("UA", "IRA", "CRA"))
        spared = ((within.low + across.low) / 2, (within.high + across.high) / 2)
        middle = (within.value + across.value) / 2
        points.append(Point(str(number), middle, erased.value, spared, (erased.low, erased.high)))
    return points


def _value(report: Report, name: str) -> str:
    score = report.scores.get(name)
    if score is None or score.unscored:
        return "–"
    if name in SHARES and score.low == score.low:
        return f"{100 * score.value:.0f} % ± {50 * (score.high - score.low):.0f}"
    return shown(name, score.value)
