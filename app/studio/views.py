"""What the page shows, read from the queue and the run folders, as HTML. Whatever people typed is escaped."""

from __future__ import annotations

import base64
import io
import json
import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from app import home, queue
from app.files import size
from app.progress import duration
from app.queue import Task
from app.runs import Run, find_runs, is_run
from app.studio import charts
from app.studio.actions import exported, finished
from benchmarks.report import SHARES, Report, shown
from erase.errors import BadInput

SHOWN = 8  # tasks in the queue's list
CURVE = 160  # points of a loss curve
SIDE = 256  # pixels to which larger pictures are shrunk for the page
HEADLINE = ("UA", "IRA", "CRA", "FID", "CLIP")
MARKS = {
    "queued": "◌", "running": "▶", "stopping": "◼", "done": "✓", "cancelled": "–", "failed": "✕", "lost": "?",
}  # fmt: skip
STATEMENT = (
    "Erasing a concept is not a security boundary. The concept may be recovered by learned embeddings, image guidance, "
    "inpainting or fine-tuning, and a LoRA can simply be left out. Use it together with other measures."
)


def run_names() -> list[tuple[str, str]]:
    """The studio's runs as (what to show, name), newest first."""
    runs = sorted(find_runs(home.runs(), depth=1), key=lambda run: run.folder.stat().st_mtime, reverse=True)
    return [(f"{run.job.title} · {Path(run.job.model).stem} · {run.folder.name[-8:]}", run.folder.name) for run in runs]


def current() -> str:
    """The id of the task somebody who opens the page wants to see: the one at work, else the newest."""
    known = queue.tasks()
    at_work = [task for task in known if task.status in ("running", "stopping")]
    return (at_work or known)[-1].id if known else ""


def task_of(run: str) -> str:
    """The id of the newest task of a run; the current one where it has none."""
    folder = home.run_folder(run)
    own = [task for task in queue.tasks() if task.run == folder]
    return own[-1].id if own else current()


def ended(task_id: str) -> str:
    """A mark that changes when a task comes to an end or finishes one of its commands; empty without a task."""
    task = _task(task_id)
    return "" if task is None else f"{task.id} {len(task.answers)} {task.status in queue.OVER}"


def has_edit(run: str) -> bool:
    """Whether a run of that name is finished."""
    return bool(run) and (home.run_folder(run) / "edit.safetensors").is_file()


def progress(task_id: str) -> str:
    """A task as a panel: where it is, how long it will take, its losses, its newest preview, what went wrong."""
    task = _task(task_id)
    if task is None:
        return _empty(
            "Nothing is being done yet.",
            "Type a concept on the left and press Erase. Progress, losses and previews appear here, and go on without "
            "the page: close it, come back, and it is still here.",
        )
    state = task.state
    parts = [
        f"<h3>{escape(task.title)}</h3>",
        f'<p class="status {state["status"]}" role="status">{_status(state)}</p>',
    ]
    if state["status"] in ("running", "stopping"):
        parts.append(_stages(task, state))
        share = state["done"] / state["total"] if state.get("total") else None
        parts.append(f'<progress max="1" {"" if share is None else f"value={share:.3f}"}></progress>')
    if state["status"] == "queued":
        before = [other for other in queue.tasks() if other.status in ("queued", "running") and other.id < task.id]
        parts.append(f"<p>{len(before)} before it in the queue. One task at a time uses the {task.device}.</p>")
    if error := state.get("error"):
        parts.append(f'<p class="error">{escape(error["message"])}</p>')
    if state["status"] == "lost":
        parts.append("<p>Its process is gone without a word. Press Resume: it goes on from its last snapshot.</p>")
    if is_run(task.run):
        parts.append(charts.curves(losses(task.run), "step", f"losses of {task.title}"))
        parts.append(_preview(task.run))
    return f'<div class="panel">{"".join(parts)}</div>'


def losses(run: Path) -> dict[str, list[tuple[float, float]]]:
    """Each loss of a run over its Steps, thinned out for drawing."""
    path = run / "events.jsonl"
    if not path.is_file():
        return {}
    series: dict[str, list[tuple[float, float]]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        try:
            told = json.loads(line).get("loss", {})
        except ValueError:  # the line that is being written
            break
        for name, value in told.items():
            series.setdefault(name, []).append((number + 1, value))
    return {name: line[:: max(len(line) // CURVE, 1)] for name, line in series.items()}


def tasks() -> str:
    """The queue and its history, newest first."""
    known = queue.tasks()
    if not known:
        return _empty("The queue is empty.", "Everything you start is listed here, in the order it will be done.")
    unfinished = [task for task in known if task.status not in queue.OVER]
    listed = [*unfinished[::-1], *[task for task in known[::-1] if task not in unfinished]][:SHOWN]
    rows = [(_status(task.state), task.kind, task.title, _ago(task.submitted)) for task in listed]
    more = f"<p>{len(known) - len(listed)} earlier ones.</p>" if len(known) > len(listed) else ""
    return _table(("status", "what", "of", "asked"), rows) + more


def strengths(run: str) -> list[float]:
    """The strengths at which a run's newest pictures were drawn."""
    index = _looks(run)
    return sorted(map(float, index[1]["strengths"])) if index else []


def before_after(run: str, strength: float = 1.0) -> str:
    """The rows of a run's newest pictures: each shot unedited and at the strength nearest to the one asked for."""
    found = _look_or_none(run)
    if isinstance(found, str):
        return found
    folder, index = found
    wanted = min(map(float, index["strengths"]), key=lambda value: abs(value - strength))
    told, rows, number, spoilt, kept = index["verdicts"], [], 0, 0, 0
    for row in index["rows"]:
        cells = []
        for cell in row["cells"]:
            was, now = told["0"][number], told[f"{wanted:g}"][number]
            if not row["gone"] and now["good"] is not None:
                kept, spoilt = kept + 1, spoilt + (now["good"] is False)
            cells.append(
                f'<figure class="pair"><div>{_figure(folder / f"0-{number:03d}.png", "before", cell, was)}'
                f"{_figure(folder / f'{wanted:g}-{number:03d}.png', 'after', cell, now)}</div>"
                f"<figcaption>{escape(cell['prompt'])} <small>seed {cell['seed']}</small></figcaption></figure>"
            )
            number += 1
        heading = f"<h4>{escape(row['heading'])} <small>{escape(row['hint'])}</small></h4>" if row["heading"] else ""
        rows.append(f'{heading}<div class="pairs">{"".join(cells)}</div>')
    alarm = ""
    if spoilt:
        alarm = (
            f'<p class="error" role="alert">Over-erasure: at strength {wanted:g}, {spoilt} of {kept} pictures that '
            "should stay are no longer what they were. A lower strength, or more concepts to keep, usually helps.</p>"
        )
    read = (
        f"<p><small>Under each picture: what {escape(index['probe'])} sees in it. ✓ as it should be, ✕ not.</small></p>"
    )
    return f'<div class="look"><p>Before, and at strength <b>{wanted:g}</b></p>{alarm}{"".join(rows)}{read}</div>'


def slider_pair(run: str, strength: float = 1.0, cell: int = 0) -> tuple[Image.Image, Image.Image] | None:
    """One shot before and after, for laying one over the other."""
    index = _looks(run)
    if index is None:
        return None
    wanted = min(map(float, index[1]["strengths"]), key=lambda value: abs(value - strength))
    pair = [Image.open(index[0] / f"{at:g}-{cell:03d}.png").convert("RGB") for at in (0.0, wanted)]
    larger = max(1, round(2 * SIDE / pair[0].width))
    big = [image.resize((image.width * larger, image.height * larger), Image.Resampling.NEAREST) for image in pair]
    return big[0], big[1]


def scores(run: str) -> str:
    """A run's scores, each with its interval, its n and the same number for the unedited model."""
    if not run:
        return ""
    path = home.run_folder(run) / "report.json"
    if not path.is_file():
        return _empty("Not measured yet.", "Press Measure: the model is judged before and after, on the same prompts.")
    return _scored(Report.read(path))


def best_strength(run: str) -> str:
    """What the search for the right strength has found."""
    path = home.run_folder(run) / "strength.json" if run else None
    if path is None or not path.is_file():
        return ""
    found = json.loads(path.read_text(encoding="utf-8"))
    return f'<p class="note">Auto-strength: <b>{found["strength"]:.3g}</b>. {escape(found["advice"])}</p>'


def attacks(run: str) -> str:
    """Every attack on a run: its rates with intervals, and the prompts that brought the concept back."""
    paths = sorted((home.run_folder(run) / "attacks").glob("*/report.json")) if run else []
    if not paths:
        return _empty(
            "Not attacked yet.",
            "Choose an attack and press Attack: it looks for prompts or seeds that bring the concept back.",
        )
    parts = []
    for path in paths:
        document = json.loads(path.read_text(encoding="utf-8"))
        broken = document.pop("broken", [])
        names = ("pre_ASR", "ASR", "ASR_confirmed", "seconds_per_prompt", "FID", "CLIP")
        report = Report.model_validate(document)
        head = f"<h4>{escape(path.parent.name)}</h4>" + _scored(report, names)
        pictures = [
            f'<figure class="one">{_img(path.parent / one["image"], "brought back by " + one["adversarial"])}'
            f"<figcaption>{escape(one['adversarial'])} <small>seed {one['seed']}</small></figcaption></figure>"
            for one in broken[:12]
            if one.get("image") and (path.parent / one["image"]).is_file()
        ]
        said = f"<p>{len(broken)} prompts bring it back.</p>" if broken else "<p>Nothing brought it back.</p>"
        parts.append(head + said + f'<div class="pairs">{"".join(pictures)}</div>')
    return "".join(parts)


def compare() -> str:
    """All measured runs in one table, and where each stands between erasing and sparing."""
    listed = _measured()
    if not listed:
        return _empty(
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
    return f"{warning}{chart}{note}{_table(head, rows)}"


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
        return _empty("No run chosen.", "Erase from a run, instead of from a model, to stack a further edit on it.")
    rows = [
        (str(number), ", ".join(concept["name"] for concept in edit.about["concepts"]), edit.about["method"],
         size(edit.storage_bytes), edit.hash[:12])
        for number, edit in enumerate(finished(run).ledger(), 1)
    ]  # fmt: skip
    alone = (
        "<p>To stack another edit on this run, choose it as the model on the Erase tab.</p>" if len(rows) == 1 else ""
    )
    return _table(("#", "erased", "method", "size", "hash"), rows) + alone


def formats(run: str) -> str:
    """Every export format with what it is, who opens it, and whether this run can be exported in it."""
    from generators.export.form import FORMS, Asked, form, refusal

    if not run:
        return _empty(
            "Nothing to export yet.", "A finished run can be carried away as a pipeline, one file, or a LoRA."
        )
    found = finished(run)
    edit = found.edit()
    rows = []
    for name in FORMS:
        why = refusal(name, edit, Asked())
        there = "✓ exported and proved" if exported(found, name).exists() else ""
        rows.append((name, form(name).about if why is None else why, form(name).opens if why is None else "", there))
    return _table(("format", "what it is, or why not", "who opens it", ""), rows) + f'<p class="note">{STATEMENT}</p>'


def card(run: str, form: str) -> str:
    """The model card of an export, as Markdown; empty while there is none."""
    if not run:
        return ""
    place = exported(finished(run), form)
    text = (place if place.is_dir() else place.parent) / "README.md"
    if not text.is_file():
        return ""
    body = text.read_text(encoding="utf-8")
    # The front matter is for programs.
    return escape(body.split("\n---\n", 1)[-1] if body.startswith("---\n") else body, quote=False).replace("&gt;", ">")


def estimate(model: str, method: str) -> str:
    """How long a job took before on this machine, or that nobody has measured it."""
    seconds = [
        run.state["seconds"]
        for run in find_runs(home.runs(), depth=1)
        if run.status == "done" and run.job.method == method and Path(run.job.model).stem == Path(model).stem
    ]
    if not seconds:
        return f"How long {escape(method)} takes here has not been measured yet; after the first run it is told here."
    middle = sorted(seconds)[len(seconds) // 2]
    times = "once" if len(seconds) == 1 else f"{len(seconds)} times"
    return f"Ran {times} on this machine: about {duration(middle)} for the erasing itself."


def _task(task_id: str) -> Task | None:
    try:
        return queue.find(task_id) if task_id else None
    except BadInput:
        return None


def _stages(task: Task, state: Mapping[str, Any]) -> str:
    command = task.commands[min(state.get("command", 0), len(task.commands) - 1)]
    what = f"{state['command'] + 1} of {len(task.commands)}: {command[0]}"
    if "stage" not in state:
        return f"<p>{what}, loading the model …</p>"
    of = f" of {state['total']}" if state.get("total") else ""
    left = f", about {duration(state['left'])} left" if state.get("left") is not None else ""
    return f"<p>{what}, {escape(state['stage'])} {state['done']}{of}{left}</p>"


def _status(state: Mapping[str, Any]) -> str:
    return f"{MARKS[state['status']]} {state['status']}"


def _preview(run: Path) -> str:
    newest = sorted((run / "previews").glob("[0-9]*.png"))[-1:]
    return "".join(
        f'<figure class="preview">{_img(path, f"preview at step {int(path.stem)}", side=2 * SIDE)}'
        f"<figcaption>What the model draws at step {int(path.stem)}</figcaption></figure>"
        for path in newest
    )


def _looks(run: str) -> tuple[Path, dict[str, Any]] | None:
    """The newest pictures of a run: their folder and index."""
    if not run:
        return None
    found = sorted((home.run_folder(run) / "look").glob("*/index.json"), key=lambda path: path.stat().st_mtime)
    return (found[-1].parent, json.loads(found[-1].read_text(encoding="utf-8"))) if found else None


def _look_or_none(run: str) -> tuple[Path, dict[str, Any]] | str:
    return _looks(run) or _empty(
        "No pictures yet.",
        "They are drawn when a run is finished, or when you press Draw: the concept, the concept in other words, its "
        "neighbours, and unrelated things, each before and after with the same seed.",
    )


def _figure(path: Path, when: str, cell: Mapping[str, Any], verdict: Mapping[str, Any]) -> str:
    seen = ", ".join(verdict["lines"])
    alt = f"{when}, seed {cell['seed']}, prompt {cell['prompt']}, probe: {seen}"
    mark = {True: '<b class="good">✓</b> ', False: '<b class="bad">✕</b> ', None: ""}[verdict["good"]]
    return f"<span>{_img(path, alt)}<small>{mark}{escape(seen)}</small></span>"


def _img(path: Path, alt: str, side: int = SIDE) -> str:
    """A picture inside the page, so that no file of a run has to be served."""
    image = Image.open(path).convert("RGB")
    small = io.BytesIO()
    if max(image.size) > side:
        image.thumbnail((side, side))
    image.save(small, "PNG" if max(image.size) <= 128 else "JPEG", quality=88)
    data, kind = base64.b64encode(small.getvalue()).decode(), "png" if max(image.size) <= 128 else "jpeg"
    return f'<img src="data:image/{kind};base64,{data}" alt="{escape(alt, quote=True)}">'


def _scored(report: Report, names: Sequence[str] = ()) -> str:
    rows = []
    for name in names or report.scores:
        if (score := report.scores.get(name)) is None:
            continue
        known = not score.unscored and score.low == score.low
        between = f"{shown(name, score.low)} – {shown(name, score.high)}" if known else ""
        value = shown(name, score.value) or "unscored"
        arrow = "↑" if score.better == "high" else "↓"
        rows.append((f"{name} {arrow}", value, between, str(score.n or ""), shown(name, score.baseline)))
    marks = "".join(f'<p class="note">{escape(mark)}</p>' for mark in report.marks)
    return _table(("score", "value", "95 % interval", "n", "unedited"), rows) + marks


def _measured() -> list[tuple[Run, Report]]:
    runs = [run for run in find_runs(home.runs(), depth=1) if (run.folder / "report.json").is_file()]
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


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def _empty(what: str, how: str) -> str:
    return f'<div class="empty"><p><b>{escape(what)}</b></p><p>{escape(how)}</p></div>'


def _ago(then: float) -> str:
    return f"{duration(max(time.time() - then, 0.0))} ago"
