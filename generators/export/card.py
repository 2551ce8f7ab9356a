"""The model card of an exported model: what was erased and how, what it cost, what it does not promise."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

STATEMENT = (
    "Erasing a concept is not a security boundary. The concept may be recovered by learned embeddings, image guidance, "
    "inpainting or fine-tuning, and a LoRA can simply be left out. Use it together with other measures."
)
UNKNOWN = "unknown, ask before redistributing"


def card(about: Mapping[str, Any], report: Mapping[str, Any] | None = None, *, licence: str | None = None) -> str:
    """README.md with front matter, from `Edit.about`, an optional report (JSON of `judge`) and the base's licence."""
    erasures = _erasures(about)
    names = [name for _, erasure in erasures for name in _names(erasure.get("concepts", ()))]
    model = _common(erasures, "model")
    front = {
        "license": licence or "unknown",
        "library_name": "diffusers",
        "pipeline_tag": "text-to-image",
        "tags": ["concept-erasure", "stable-diffusion", "text-to-image"],
        "base_model": model,
    }
    title = (
        f"{model or 'A diffusion model'} without {_listing(names)}"
        if names
        else f"{model or 'A diffusion model'}, unedited"
    )
    sections = [
        "---\n" + "".join(f"{key}: {json.dumps(value)}\n" for key, value in front.items() if value is not None) + "---",
        f"# {title}",
        "\n\n".join(_erasure(strength, erasure) for strength, erasure in erasures)
        if names
        else "No concept was erased.",
        f"**Base.** {model or 'unknown'}; sha256 of its weights `{_common(erasures, 'base') or 'unknown'}`.",
        f"**Licence.** {licence or UNKNOWN}. It is the base model's, and its use restrictions follow the weights.",
        f"> {STATEMENT}",
        *([_scores(report)] if report and report.get("scores") else ["No scores were measured for this export."]),
        "## How to load it\n\n```python\nfrom diffusers import DiffusionPipeline\n\n"
        'pipe = DiffusionPipeline.from_pretrained("PATH/TO/THIS/FOLDER")\n'
        f'image = pipe("{spoken(about)}").images[0]\n```',
    ]
    return "\n\n".join(sections) + "\n"


def spoken(about: Mapping[str, Any]) -> str:
    """A prompt that asks for what was erased; empty where nothing was."""
    names = [name for _, erasure in _erasures(about) for name in _names(erasure.get("concepts", ()))]
    return names[0].replace('"', "'") if names else ""


def proof_section(proof: Mapping[str, Any], *, strength: float, stored: str, variant: str | None) -> str:
    """The part of the card that says how this very folder was checked."""
    prompts = ", ".join(
        f"{prompt!r} (seed {seed})" for prompt, seed in zip(proof["prompts"], proof["seeds"], strict=True)
    )
    versions = ", ".join(f"{name} {version}" for name, version in proof["versions"].items())
    where = f"{proof['dtype']}, {proof['device']}; {versions}"
    option = f", variant `{variant}` (pass `variant={variant!r}` when loading)" if variant else ""
    lines = [
        "## Proof",
        f"The edit is baked in at strength {strength:g}; weights are stored as {stored}{option}.",
        f"After writing, a clean process with stock diffusers alone opened this folder and drew {prompts} in "
        f"{proof['steps']} steps at guidance {proof['guidance']:g} ({where}). Against the model wearing the edit, the "
        f"largest pixel difference was {proof['max_difference']:.3g} of a range of 1 (mean "
        f"{proof['mean_difference']:.3g}), the largest latent difference {proof['max_latent_difference']:.3g}; "
        f"required: {proof['tolerance']}.",
    ]
    return "\n\n".join(lines) + "\n"


def _erasures(about: Mapping[str, Any]) -> list[tuple[float, Mapping[str, Any]]]:
    """The single erasures an edit consists of, each with the strength it enters with."""
    if "parents" not in about:
        return [(1.0, about)]
    return [
        (float(parent["strength"]) * strength, erasure)
        for parent in about["parents"]
        for strength, erasure in _erasures(parent["about"])
    ]


def _common(erasures: Sequence[tuple[float, Mapping[str, Any]]], key: str) -> str | None:
    values = {str(erasure[key]) for _, erasure in erasures if erasure.get(key)}
    return values.pop() if len(values) == 1 else ", ".join(sorted(values)) or None


def _names(concepts: Sequence[Any]) -> list[str]:
    return [str(concept["name"]) if isinstance(concept, Mapping) else str(concept) for concept in concepts]


def _listing(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _erasure(strength: float, about: Mapping[str, Any]) -> str:
    anchors = [
        f"{concept['name']} ({concept.get('kind', 'object')}) → {concept.get('anchor') or 'nothing in particular'}"
        for concept in about.get("concepts", ())
        if isinstance(concept, Mapping) and concept.get("anchor") is not None
    ]
    erased, kept = _names(about.get("concepts", ())), _names(about.get("keep", ()))
    versions = ", ".join(f"{name} {version}" for name, version in about.get("versions", {}).items())
    entering = f", entering at strength {strength:g}" if strength != 1 else ""
    lines = [
        f"**Erased.** {_listing(erased or ['nothing'])}, with `{about.get('method', 'unknown')}`{entering}.",
        *([f"Drawn instead: {'; '.join(anchors)}."] if anchors else []),
        f"**Kept on purpose.** {_listing(kept or ['nothing named'])}.",
        f"**Settings.** `{json.dumps(about.get('knobs', {}), sort_keys=True)}`, seed {about.get('seed', 'unknown')}, "
        f"{versions or 'versions unknown'}.",
    ]
    return "\n\n".join(lines)


def _scores(report: Mapping[str, Any]) -> str:
    rows = [
        "| score | this model | 95 % interval | n | unedited | better | measured by | note |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, score in report["scores"].items():
        interval = f"{_number(score.get('low'))} – {_number(score.get('high'))}" if score.get("low") is not None else ""
        cells = [
            name,
            _number(score.get("value")),
            interval,
            score.get("n"),
            _number(score.get("baseline")),
            score.get("better"),
            score.get("probe"),
            score.get("note"),
        ]
        rows.append(
            "| "
            + " | ".join("" if cell is None else str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells)
            + " |"
        )
    excluded = report.get("excluded")
    left_out = f"\n\nLeft out of the scores: {json.dumps(excluded, ensure_ascii=False)}." if excluded else ""
    return "## Scores\n\n" + "\n".join(rows) + left_out


def _number(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and math.isnan(value):
        return "unscored"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
