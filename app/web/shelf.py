"""All runs on a shelf, as HTML: compared, two side by side, the edits one wears, the formats it can be carried in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from app.cli.progress import duration
from app.runs.run import Run
from app.web import charts
from app.web.actions import exported, finished
from app.web.html import empty, table
from app.web.run_view import before_after, scores
from app.web.task_view import readable
from benchmarks.metrics.interference import Change, Matrix, interference
from benchmarks.report import SHARES, Report, shown
from erase.files import size

HEADLINE = ("UA", "IRA", "CRA", "FID", "CLIP")
GAN_HEADLINE = ("PUL", "FID", "gamma_normalised")
ARROWS = {"FID": "↓"} | dict.fromkeys(("UA", "IRA", "CRA", "CLIP", "PUL", "gamma_normalised"), "↑")
STATEMENT = (
    "Erasing a concept is not a security boundary. The concept may be recovered by learned embeddings, image guidance, "
    "inpainting or fine-tuning, and a LoRA can simply be left out. Use it together with other measures."
)


def compare() -> str:
    """All measured runs by family: in a table, between erasing and sparing, and what each erasure did to the rest."""
    listed = _measured()
    if not listed:
        return empty(
            "Nothing to compare yet.", "Runs appear here once they are measured. Two or more make a comparison."
        )
    suites = {suite for _, report in listed if "PUL" not in report.scores and (suite := report.job.get("suite"))}
    warning = ""
    if len(suites) > 1:
        differ = escape(", ".join(sorted(map(str, suites))))
        warning = f'<p class="error">Not comparable as they stand: the suites differ ({differ}).</p>'
    points = _points(listed)
    named = ("spared: mean of IRA and CRA", "erased: UA", "Pareto plot of all measured runs")
    note = "<p><small>Whiskers are 95 % intervals. Filled: no other run erases and spares more.</small></p>"
    chart = charts.scatter(points, *named) + note if points else ""
    return warning + chart + _scoreboard(listed) + interferences(listed)


def interferences(listed: Sequence[tuple[Run, Report]]) -> str:
    """What erasing one concept did to every other, a matrix for each method and model; red lost, blue won."""
    groups: dict[str, list[tuple[str, Sequence[Mapping[str, Any]]]]] = {}
    for run, report in listed:
        rows = [row for row in report.rows if "style" in row and "object" in row]
        labels = {label for row in rows for label in (row["style"], row["object"])}
        for concept in run.job.concepts:
            if (label := concept.name.replace(" ", "_")) in labels:
                groups.setdefault(f"{run.job.method} on {Path(run.job.model).stem}", []).append((label, rows))
    if not groups:
        return ""
    parts = [_heat(name, interference(judged)) for name, judged in sorted(groups.items())]
    note = (
        "<p><small>Change of accuracy in percentage points on the images that ask for each label; point at a cell for "
        "its n and 95 % interval. Outlined: the erased concept itself.</small></p>"
    )
    return f"<h3>What an erasure did to everything else</h3>{note}{''.join(parts)}"


def _heat(name: str, matrix: Matrix) -> str:
    labels = sorted({label for row in matrix.cells.values() for label in row})
    head = "".join(f"<th><span>{escape(label.replace('_', ' '))}</span></th>" for label in labels)
    body = []
    for erased, row in matrix.cells.items():
        cells = [_cell(row.get(label), label == erased) for label in labels]
        body.append(f'<tr><th scope="row">{escape(erased.replace("_", " "))}</th>{"".join(cells)}</tr>')
    worst = [
        f"{escape(erased.replace('_', ' '))}: {escape(', '.join(lost).replace('_', ' '))}"
        for erased, lost in matrix.worst.items() if lost
    ]  # fmt: skip
    hurt = f"<p>Lost most after erasing {'; '.join(worst)}.</p>" if worst else "<p>Nothing else lost anything.</p>"
    return (
        f'<h4>{escape(name)}</h4><div class="scroll"><table class="heat"><thead><tr><th>erased</th>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>{hurt}"
    )


def _cell(change: Change | None, own: bool) -> str:
    if change is None:
        return "<td>–</td>"
    points, colour = 100 * change.change, "190 40 40" if change.change < 0 else "30 90 200"
    span = f"{points:+.0f} points, 95 % interval {100 * change.low:+.0f} to {100 * change.high:+.0f}, n {change.n}"
    return (
        f'<td title="{span}"{" class=own" if own else ""} style="background: rgb({colour} / {abs(change.change):.2f})">'
        f"{points:+.0f}</td>"
    )


def _scoreboard(listed: Sequence[tuple[Run, Report]]) -> str:
    """The runs of diffusion models, then those of GANs, each with the scores of its family."""
    parts = []
    for names, ours in ((HEADLINE, lambda report: "PUL" not in report.scores),
                        (GAN_HEADLINE, lambda report: "PUL" in report.scores)):  # fmt: skip
        rows = [
            (str(number), run.job.title, Path(run.job.model).stem, *(_value(report, name) for name in names),
             duration(run.state["seconds"]))
            for number, (run, report) in enumerate(listed, 1) if ours(report)
        ]  # fmt: skip
        arrows = [f"{name} {ARROWS[name]}" for name in names]
        parts.append(table(("#", "run", "model", *arrows, "time"), rows) if rows else "")
    return "".join(parts)


def contrast(one: str, other: str) -> str:
    """Two runs side by side: what differs in what was asked, and their pictures at strength 1."""
    if not one or not other or one == other:
        return ""
    runs = [finished(one), finished(other)]
    differences = runs[0].job.differences(runs[1].job)
    said = "".join(f"<li>{escape(difference)}</li>" for difference in differences) or "<li>nothing</li>"
    sides = [
        f"<section><h4>{escape(run.job.title)}</h4>{scores(run.folder.name)}{before_after(run.folder.name)}</section>"
        for run in runs
    ]
    head = "<h4>What differs (there: the first, here: the second)</h4>"
    return f'{head}<ul>{said}</ul><div class="sides">{"".join(sides)}</div>'


def ledger(run: str) -> str:
    """The edits a run wears, oldest first."""
    if not run:
        return empty("No run chosen.", "Erase from a run, instead of from a model, to stack a further edit on it.")
    rows = [
        (str(number), ", ".join(concept["name"] for concept in edit.about["concepts"]), edit.about["method"],
         size(edit.storage_bytes), edit.hash[:12])
        for number, edit in enumerate(finished(run).ledger(), 1)
    ]  # fmt: skip
    alone = (
        "<p>To stack another edit on this run, choose it as the model on the Erase tab.</p>" if len(rows) == 1 else ""
    )
    return table(("#", "erased", "method", "size", "hash"), rows) + alone


def formats(run: str) -> str:
    """Every export format with what it is, who opens it, and whether this run can be exported in it."""
    from generators.export.format import FORMS, Asked, form, refusal

    if not run:
        return empty("Nothing to export yet.", "A finished run can be carried away as a pipeline, one file, or a LoRA.")
    found = finished(run)
    edit = found.edit()
    rows = []
    for name in FORMS:
        why = refusal(name, edit, Asked())
        there = "✓ exported and proved" if exported(found, name).exists() else ""
        rows.append((name, form(name).about if why is None else why, form(name).opens if why is None else "", there))
    return table(("format", "what it is, or why not", "who opens it", ""), rows) + f'<p class="note">{STATEMENT}</p>'


def card(run: str, form: str) -> str:
    """The model card of an export, as Markdown; empty while there is none."""
    if not run:
        return ""
    place = exported(finished(run), form)
    text = place / "README.md" if place.is_dir() else place.with_suffix(".md")
    if not text.is_file():
        return ""
    body = text.read_text(encoding="utf-8")
    # The front matter is for programs.
    return escape(body.split("\n---\n", 1)[-1] if body.startswith("---\n") else body, quote=False).replace("&gt;", ">")


def _measured() -> list[tuple[Run, Report]]:
    runs = [run for run in readable() if (run.folder / "report.json").is_file()]
    return [(run, Report.read(run.folder / "report.json")) for run in runs]


def _points(listed: Sequence[tuple[Run, Report]]) -> list[charts.Point]:
    places = []
    for number, (run, report) in enumerate(listed, 1):
        three = [report.scores.get(name) for name in ("UA", "IRA", "CRA")]
        if any(score is None or score.unscored for score in three):
            continue
        erased, here, elsewhere = (score for score in three if score is not None)
        spared = tuple((getattr(here, end) + getattr(elsewhere, end)) / 2 for end in ("low", "value", "high"))
        places.append((str(number), run.job.title, spared, (erased.low, erased.value, erased.high)))
    return [
        charts.Point(
            label, name, x, y, not any(a[1] >= x[1] and b[1] >= y[1] and (a, b) != (x, y) for *_, a, b in places)
        )
        for label, name, x, y in places
    ]


def _value(report: Report, name: str) -> str:
    score = report.scores.get(name)
    if score is None or score.unscored:
        return "–"
    if name in SHARES and score.low == score.low:
        return f"{100 * score.value:.0f} % ± {50 * (score.high - score.low):.0f}"
    return shown(name, score.value)
