"""The model card of an exported model: what was erased and how, what it cost, what it does not promise."""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from erase import provenance
from erase.errors import visible

STATEMENT = (
    "Erasing a concept is not a security boundary. The concept may be recovered by learned embeddings, image guidance, "
    "inpainting or fine-tuning, and a LoRA can simply be left out. Use it together with other measures."
)
UNCHECKED = "The base has a safety checker and this export has none; add the base's own where pictures must be checked."
UNKNOWN = "unknown, ask before redistributing"
NO_SCORES = "No scores were measured for this export."
NO_ATTACKS = "No attack was tried on it: how easily the concept comes back is not known."


@dataclass(frozen=True)
class Stored:
    """How the edit lies in an export: format, strength, dtype, variant, and a low-rank format's ranks and errors."""

    form: str
    strength: float
    dtype: str
    variant: str | None
    facts: Mapping[str, Any]


def card(
    about: Mapping[str, Any],
    report: Mapping[str, Any] | None = None,
    attacks: Mapping[str, Mapping[str, Any]] | None = None,
    *,
    licence: str | None = None,
    recipe: str,
    gan: bool = False,
    left_out: Sequence[str] = (),
) -> str:
    """README.md with front matter, from `Edit.about`, the JSON of `judge` and of attacks by name, the base's licence,
    and how the export is loaded. `left_out` are parts of the base that a merged model comes without."""
    erasures, names = provenance.erasures(about), provenance.erased_names(about)
    model, base = provenance.common_value(about, "model"), provenance.common_value(about, "base")
    names = [plain(name) for name in names]
    known = PurePath(model).name if model else None  # a local model's folder is nobody's business
    front = {
        "license": licence.partition(";")[0].lower() if licence else "unknown",  # as hubs name it
        "library_name": "pytorch" if gan else "diffusers",
        "pipeline_tag": "unconditional-image-generation" if gan else "text-to-image",
        "tags": ["concept-erasure", "stylegan2" if gan else "stable-diffusion"],
        "base_model": known,
    }
    named = plain(known) if known else ("A GAN" if gan else "A diffusion model")
    sections = [
        "---\n" + "".join(f"{key}: {json.dumps(value)}\n" for key, value in front.items() if value is not None) + "---",
        f"# {named} without {_listing(names)}" if names else f"# {named}, unedited",
        "\n\n".join(_erasure(strength, erasure) for strength, erasure in erasures)
        if names
        else "No concept was erased.",
        f"**Base.** {known or 'unknown'}; sha256 of its weights `{base or 'unknown'}`.",
        f"**Licence.** {licence or UNKNOWN}. It is the base model's, and its use restrictions follow the weights.",
        *([f"**Safety checker.** {without(left_out)}"] if without(left_out) else []),
        f"> {STATEMENT}",
        _scores(report["scores"], "Scores", report) if report and report.get("scores") else NO_SCORES,
        *(_scores(attack["scores"], f"Attack: {name}", attack) for name, attack in sorted((attacks or {}).items())),
        *([] if attacks else [NO_ATTACKS]),
        f"## How to load it\n\n{recipe}",
    ]
    return "\n\n".join(sections) + "\n"


def without(left_out: Sequence[str]) -> str:
    """The sentence for a base that has a safety checker, which an export comes without; empty for others."""
    return UNCHECKED if "safety_checker" in left_out else ""


def spoken(about: Mapping[str, Any]) -> str:
    """A prompt that asks for what was erased; empty where nothing was."""
    names = provenance.erased_names(about)
    return names[0].replace('"', "'") if names else ""


def quoted(text: str) -> str:
    """The text as it may stand between double quotes in a card's Python, whatever it holds."""
    return json.dumps(text, ensure_ascii=False)[1:-1].replace("`", "\\u0060")


def plain(text: object) -> str:
    """The text as Markdown shows it: nothing in it is markup."""
    escaped = html.escape(visible(" ".join(str(text).split())), quote=False)
    return re.sub(r"([\\`*\[\]|])", r"\\\1", escaped)


def proof_section(proof: Mapping[str, Any], stored: Stored) -> str:
    """The part of the card that says what is in this very export and how it was checked."""
    shots = zip(proof["prompts"], proof["seeds"], strict=True)
    drawn = ", ".join(f"{prompt!r} (seed {seed})" if prompt else f"seed {seed}" for prompt, seed in shots)
    versions = ", ".join(f"{name} {version}" for name, version in proof["versions"].items())
    where = f"{proof['dtype']}, {proof['device']}; {versions}"
    option = f", variant `{stored.variant}` (pass `variant={stored.variant!r}` when loading)" if stored.variant else ""
    latent = proof["max_latent_difference"]
    steps = "" if latent is None else f" in {proof['steps']} steps at guidance {proof['guidance']:g}"
    latents = "" if latent is None else f", the largest latent difference {latent:.3g}"
    lines = [
        "## Proof",
        f"Format `{stored.form}`. The edit is in it at strength {stored.strength:g}; weights are stored as "
        f"{stored.dtype}{option}.",
        *([approximation(stored.facts)] if stored.facts else []),
        f"After writing, {proof['reader']} opened it and drew {drawn}{steps} ({where}). Against the model wearing the "
        f"edit, the largest pixel difference was {proof['max_difference']:.3g} of a range of 1 (mean "
        f"{proof['mean_difference']:.3g}){latents}; required: {proof['tolerance']}. The edit itself changes these "
        f"pictures by {proof['effect']:.3g} on average.",
    ]
    return "\n\n".join(lines) + "\n"


def approximation(facts: Mapping[str, Any]) -> str:
    """What a low-rank format keeps and misses, in a sentence."""
    low, high = facts["ranks"]
    if high == 0:
        return (
            f"The change is stored whole, for thin matrices would be no smaller; rounding costs {facts['error']:.2g}."
        )
    ranks = f"rank {low}" if low == high else f"ranks {low} to {high}"
    left = f", {facts['left_out']:.2%} of which is biases, norms and embeddings left out" if facts["left_out"] else ""
    return (
        f"The change is stored as products of thin matrices, {ranks}; what they miss of it is {facts['error']:.2%} "
        f"(Frobenius norm){left}, and of no layer more than {facts['spectral_error']:.2%} in spectral norm."
    )


def _listing(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _erasure(strength: float, about: Mapping[str, Any]) -> str:
    anchors = [
        f"{plain(concept['name'])} ({concept.get('kind', 'object')}) → "
        f"{plain(concept.get('anchor') or 'nothing in particular')}"
        for concept in about.get("concepts", ())
        if isinstance(concept, Mapping) and concept.get("anchor") is not None
    ]
    erased, kept = (list(map(plain, provenance.concept_names(about, key))) for key in ("concepts", "keep"))
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


def _scores(scores: Mapping[str, Mapping[str, Any]], title: str, report: Mapping[str, Any]) -> str:
    rows = [
        "| score | this model | 95 % interval | n | unedited | better | measured by | note |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, score in scores.items():
        low, high = score.get("low"), score.get("high")
        interval = f"{_number(low)} – {_number(high)}" if low is not None and low != high else ""
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
    return f"## {title}\n\n" + "\n".join(rows) + left_out


def _number(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and math.isnan(value):
        return "unscored"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
