"""All runs on a shelf, as HTML: compared, two side by side, the edits one wears, the formats it can be carried in."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from app.files import size
from app.progress import duration
from app.runs import Run
from app.studio import charts
from app.studio.actions import exported, finished
from app.studio.html import empty, table
from app.studio.results import before_after, scores
from app.studio.views import readable
from benchmarks.report import SHARES, Report, shown

HEADLINE = ("UA", "IRA", "CRA", "FID", "CLIP")
STATEMENT = (
    "Erasing a concept is not a security boundary. The concept may be recovered by learned embeddings, image guidance, "
    "inpainting or fine-tuning, and a LoRA can simply be left out. Use it together with other measures."
)


def compare() -> str:
    """All measured runs in one table, and where each stands between erasing and sparing."""
    listed = _measured()
    if not listed:
        return empty(
            "Nothing to compare yet.", "Runs appear here once they are measured. Two or more make a comparison."
        )
    suites = {report.job.get("suite") for _, report in listed}
    rows = []
    for number, (run, report) in enumerate(listed, 1):
        values = [_value(report, name) for name in HEADLINE]
        rows.append((str(number), run.job.title, Path(run.job.model).stem, *values, duration(run.state["seconds"])))
    head = ("#", "run", "model", "UA ↑", "IRA ↑", "CRA ↑", "FID ↓", "CLIP ↑", "time")
    warning = ""
    if len(suites) > 1:
        differ = escape(", ".join(map(str, suites)))
        warning = f'<p class="error">Not comparable as they stand: the suites differ ({differ}).</p>'
    points = _points(listed)
    named = ("spared: mean of IRA and CRA", "erased: UA", "Pareto plot of all measured runs")
    chart = charts.scatter(points, *named) if points else ""
    note = "<p><small>Whiskers are 95 % intervals. Filled: no other run erases and spares more.</small></p>"
    return f"{warning}{chart}{note}{table(head, rows)}"


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
    from generators.export.form import FORMS, Asked, form, refusal

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
