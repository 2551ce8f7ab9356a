"""One run as HTML: pictures before and after, scores, best strength, attacks, stacked edits, and export formats."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from app.queue import paths
from app.runs.run import is_run, open_run
from app.web.actions import exported, finished
from app.web.templates import SIDE, render
from benchmarks.report import Report, shown
from erase.files import size

ATTACK_SCORES = ("pre_ASR", "ASR", "ASR_confirmed", "seconds_per_prompt", "FID", "CLIP")
BROKEN = 12  # pictures of prompts that brought a concept back, per attack
STATEMENT = (
    "Erasing a concept is not a security boundary. The concept may be recovered by learned embeddings, image guidance, "
    "inpainting or fine-tuning, and a LoRA can simply be left out. Use it together with other measures."
)


def before_after(run: str, strength: float = 1.0) -> str:
    """The rows of a run's newest pictures: each shot unedited and at the strength nearest to the one asked for."""
    sets = _newest_pictures(run)
    if not sets:
        return render("run_view.no_pictures")
    rows, kept, spoilt = [], 0, 0
    nearest = _nearest(sets[0][1]["strengths"], strength)
    for folder, index in sets:
        at = _nearest(index["strengths"], strength)
        numbers = iter(range(sum(len(row["cells"]) for row in index["rows"])))
        for row in index["rows"]:
            shots = [_shot(folder, index["verdicts"], at, cell, next(numbers)) for cell in row["cells"]]
            if not row["gone"]:
                after = [shot["sides"][1]["good"] for shot in shots]
                kept, spoilt = kept + sum(good is not None for good in after), spoilt + after.count(False)
            own = {"heading": "Your own", "hint": ""} if _own(index) else row
            rows.append({"heading": own["heading"], "hint": own["hint"], "shots": shots})
    return render("run_view.before_after", rows, nearest, sets[0][1]["probe"], spoilt, kept)


def slider_pair(run: str, strength: float = 1.0, cell: int = 0) -> tuple[Image.Image, Image.Image] | None:
    """One shot before and after, for laying one over the other."""
    sets = _newest_pictures(run)
    if not sets:
        return None
    folder, index = sets[0]
    before, after = (
        Image.open(_shot_file(folder, at, cell)).convert("RGB") for at in (0.0, _nearest(index["strengths"], strength))
    )
    larger = max(1, round(2 * SIDE / before.width))
    return before.resize((before.width * larger, before.height * larger), Image.Resampling.NEAREST), after.resize(
        (after.width * larger, after.height * larger), Image.Resampling.NEAREST
    )


def scores(run: str) -> str:
    """A run's scores, each with its interval, its n and the same number for the unedited model."""
    if not run:
        return ""
    path = paths.run_folder(run) / "report.json"
    if not path.is_file():
        return render("run_view.not_measured")
    report = Report.read(path)
    return render("run_view.scores", _score_rows(report, tuple(report.scores)), report.marks)


def best_strength(run: str) -> str:
    """What the search for the best strength has found."""
    path = paths.run_folder(run) / "strength.json" if run else None
    if path is None or not path.is_file():
        return ""
    document = json.loads(path.read_text(encoding="utf-8"))
    return render("run_view.best_strength", document["strength"], document["advice"])


def attacks(run: str) -> str:
    """Every attack on a run: its rates with intervals, and the prompts that brought the concept back."""
    files = sorted((paths.run_folder(run) / "attacks").glob("*/report.json")) if run else []
    return render("run_view.attacks", [_attack(path) for path in files])


def ledger(run: str) -> str:
    """The edits stacked in a run, oldest first."""
    if (waiting := _unfinished(run)) is not None:
        return waiting
    edits = finished(run).ledger() if run else []
    rows = [
        (str(number), ", ".join(concept["name"] for concept in edit.about["concepts"]), edit.about["method"],
         size(edit.storage_bytes), edit.hash[:12])
        for number, edit in enumerate(edits, 1)
    ]  # fmt: skip
    return render("run_view.ledger", rows)


def formats(run: str) -> str:
    """Every export format with what it is, who opens it, and whether this run can be exported in it."""
    if (waiting := _unfinished(run)) is not None:
        return waiting
    return render("run_view.formats", list(_format_rows(run)) if run else [], STATEMENT)


def _unfinished(run: str) -> str | None:
    """What stands in place of a run's edits while it has none; None when it has one, or there is no run."""
    if not run or (paths.run_folder(run) / "edit.safetensors").is_file():
        return None
    folder = paths.run_folder(run)
    return render("run_view.unfinished", open_run(folder).status if is_run(folder) else "not begun")


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


def _newest_pictures(run: str) -> list[tuple[Path, dict[str, Any]]]:
    """The folder and index of a run's newest standard rows, then of the newest prompts or seeds of somebody's own."""
    if not run:
        return []
    known = sorted((paths.run_folder(run) / "look").glob("*/index.json"), key=lambda path: path.stat().st_mtime)
    found = [(path.parent, json.loads(path.read_text(encoding="utf-8"))) for path in known]
    newest = {_own(index): (folder, index) for folder, index in found}
    return [newest[own] for own in (False, True) if own in newest]


def _own(index: Mapping[str, Any]) -> bool:
    """Whether pictures are of prompts or seeds that somebody asked for."""
    return bool(index.get("prompts") or index.get("seeds"))


def _nearest(strengths: Sequence[float], strength: float) -> float:
    return min(map(float, strengths), key=lambda value: abs(value - strength))


def _shot_file(folder: Path, strength: float, number: int) -> Path:
    return folder / f"{strength:g}-{number:03d}.png"


def _shot(
    folder: Path, verdicts: Mapping[str, Any], strength: float, cell: Mapping[str, Any], number: int
) -> dict[str, Any]:
    sides = [
        {"when": when, "path": _shot_file(folder, at, number), **verdicts[f"{at:g}"][number]}
        for when, at in (("before", 0.0), ("after", strength))
    ]
    sides[0]["good"] = None  # nothing has been asked of the unedited model
    return {"prompt": cell["prompt"], "seed": cell["seed"], "sides": sides}


def _attack(path: Path) -> dict[str, Any]:
    document = json.loads(path.read_text(encoding="utf-8"))
    broken = document.pop("broken", [])
    report = Report.model_validate(document)
    pictures = [
        {"path": path.parent / one["image"], "prompt": one["adversarial"], "seed": one["seed"]}
        for one in broken[:BROKEN]
        if one.get("image") and (path.parent / one["image"]).is_file()
    ]
    rows = _score_rows(report, ATTACK_SCORES)
    return {"name": path.parent.name, "rows": rows, "marks": report.marks, "broken": len(broken), "pictures": pictures}


def _score_rows(report: Report, names: Sequence[str]) -> list[tuple[str, ...]]:
    rows = []
    for name in names:
        if (score := report.scores.get(name)) is None:
            continue
        between = f"{shown(name, score.low)} – {shown(name, score.high)}" if score.has_interval else ""
        value = shown(name, score.value) or "unscored"
        arrow = "↑" if score.better == "high" else "↓"
        rows.append((f"{name} {arrow}", value, between, str(score.n or ""), shown(name, score.baseline)))
    return rows


def _format_rows(run: str) -> Iterator[tuple[str, str, str, str]]:
    from generators.export.format import FORMS, Asked, form, refusal
    from generators.export.published import may_be_published

    found = finished(run)
    edit = found.edit()
    known = may_be_published(edit)
    for name in FORMS:
        why = refusal(name, edit, Asked())
        there = "✓ exported and proved" if exported(found, name).exists() else ""
        yield (name, form(name).about if why is None else why, form(name).openers(known) if why is None else "", there)
