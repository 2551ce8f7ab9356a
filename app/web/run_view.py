"""What a run has led to, as HTML: pictures before and after, scores, the best strength, attacks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from app.queue import paths as home
from app.web.html import SIDE, empty, img, table
from benchmarks.report import Report, shown


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
        return empty("Not measured yet.", "Press Measure: the model is judged before and after, on the same prompts.")
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
        return empty(
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
            f'<figure class="one">{img(path.parent / one["image"], "brought back by " + one["adversarial"])}'
            f"<figcaption>{escape(one['adversarial'])} <small>seed {one['seed']}</small></figcaption></figure>"
            for one in broken[:12]
            if one.get("image") and (path.parent / one["image"]).is_file()
        ]
        said = f"<p>{len(broken)} prompts bring it back.</p>" if broken else "<p>Nothing brought it back.</p>"
        parts.append(head + said + f'<div class="pairs">{"".join(pictures)}</div>')
    return "".join(parts)


def _looks(run: str) -> tuple[Path, dict[str, Any]] | None:
    """The newest pictures of a run: their folder and index."""
    if not run:
        return None
    found = sorted((home.run_folder(run) / "look").glob("*/index.json"), key=lambda path: path.stat().st_mtime)
    return (found[-1].parent, json.loads(found[-1].read_text(encoding="utf-8"))) if found else None


def _look_or_none(run: str) -> tuple[Path, dict[str, Any]] | str:
    return _looks(run) or empty(
        "No pictures yet.",
        "They are drawn when a run is finished, or when you press Draw: the concept, the concept in other words, its "
        "neighbours, and unrelated things, each before and after with the same seed.",
    )


def _figure(path: Path, when: str, cell: Mapping[str, Any], verdict: Mapping[str, Any]) -> str:
    seen = ", ".join(verdict["lines"])
    alt = f"{when}, seed {cell['seed']}, prompt {cell['prompt']}, probe: {seen}"
    mark = {True: '<b class="good">✓</b> ', False: '<b class="bad">✕</b> ', None: ""}[verdict["good"]]
    return f"<span>{img(path, alt)}<small>{mark}{escape(seen)}</small></span>"


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
    return table(("score", "value", "95 % interval", "n", "unedited"), rows) + marks
