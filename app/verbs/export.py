"""`studio export`: a run's edit in a format that other programs open."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.answer import Answer, table
from app.cli.options import DTYPES, STRENGTH, Parser, loading_options
from app.cli.progress import follow
from erase.errors import BadInput, match
from erase.files import size
from generators.assets import BUNDLED

if TYPE_CHECKING:
    from app.runs.run import Run
    from erase.edit import Edit
    from generators.export.export import Evidence, Exported
    from generators.export.format import Asked


def export_options(parser: Parser) -> None:
    loading_options(parser, dtype=False)
    parser.add_argument("source", metavar="RUN", help="the folder of a finished run, or an edit file")
    parser.add_argument("--as", dest="form", required=True, metavar="FORMAT", help="the format, or `list` to see them")
    parser.add_argument("--out", metavar="PATH", help="where to write")
    parser.add_argument(
        "--dtype", dest="save_dtype", choices=DTYPES, help="of the written weights (default: as the model's)"
    )
    parser.add_argument("--strength", type=STRENGTH, default=1.0, metavar="S", help="how much of the edit (default: 1)")
    parser.add_argument("--variant", metavar="NAME", help="goes into a pipeline's file names, for example fp16")
    parser.add_argument(
        "--error", type=float, metavar="E", help="share of the edit a low-rank format may miss (LoRA: 0.01)"
    )
    parser.add_argument("--rank", type=int, metavar="R", help="of a low-rank format, instead of --error")
    parser.add_argument("--size", type=float, metavar="MB", help="the megabytes a low-rank format may take, instead")
    parser.add_argument("--force", action="store_true", help="replace what is already at --out")


def export(args: argparse.Namespace) -> Answer:
    """Write the format, prove that it opens elsewhere and draws the same, and say where it is."""
    from app.models import loaded, source
    from app.runs.run import open_run
    from generators.export.export import asked_of
    from generators.export.export import export as exporting
    from generators.export.format import FORMS, refusal

    what = source(args.source)
    edit = what.edit()
    if edit is None:
        if what.base not in BUNDLED and not Path(args.source).exists():
            open_run(args.source)  # says what is missing there
        raise BadInput(f"{args.source} is a model without an edit. `studio erase` makes a RUN, which has one.")
    asked = asked_of(
        args.form, args.strength, args.save_dtype, args.variant, args.error, args.rank, args.size
    )  # fmt: skip
    if args.form == "list":
        return _listed(edit, asked)
    name = match(args.form, FORMS, "export format")
    if args.out is None:
        raise BadInput("Where to? Add --out PATH for the export.")
    if (why := refusal(name, edit, asked)) is not None:  # before the model is loaded
        raise BadInput(why)
    model = loaded(what, args)
    work = exporting(
        model, edit, Path(args.out), name, force=args.force, evidence=evidence_of(what.run), strength=args.strength,
        dtype=args.save_dtype, variant=args.variant, error=args.error, rank=args.rank, size=args.size,
    )  # fmt: skip
    exported = follow(work, f"exporting as {name}")
    return Answer(_document(exported), _text(exported))


def evidence_of(run: Run | None) -> Evidence:
    """A run's report, and the reports of the attacks on it by the names of their folders."""
    from generators.export.export import Evidence

    if run is None:
        return Evidence()
    files = sorted((run.folder / "attacks").glob("*/report.json"))
    attacks = {path.parent.name: json.loads(path.read_text(encoding="utf-8")) for path in files}
    return Evidence(run.report(), attacks)


def _listed(edit: Edit, asked: Asked) -> Answer:
    """The formats that can carry the edit as a table, and a sentence for each that cannot."""
    from generators.export.format import FORMS, form, refusal
    from generators.export.published import WHY_NOT, may_be_published

    known = may_be_published(edit)
    whys = {name: refusal(name, edit, asked) for name in FORMS}
    listed = [
        {
            "name": name,
            "about": form(name).about,
            "opens": form(name).openers(known),
            "possible": why is None,
            "why_not": why,
        }
        for name, why in whys.items()
    ]
    rows = [(name, form(name).about, form(name).openers(known)) for name, why in whys.items() if why is None]
    refused = [f"not {name}: {why}" for name, why in whys.items() if why is not None]
    text = table(("format", "what it is", "who opens it"), rows)
    if not known and any(form(name).programs and why is None for name, why in whys.items()):
        refused = [f"single-file, kohya-lora: {WHY_NOT}", *refused]
    return Answer({"version": 1, "formats": listed}, "\n".join([text, *([""] if refused else []), *refused]))


def _document(exported: Exported) -> dict[str, Any]:
    proof = exported.proof
    return {
        "version": 1, "status": "done", "format": exported.form, "path": exported.path, "files": exported.files,
        "bytes": exported.bytes, "max_difference": proof.max_difference, "mean_difference": proof.mean_difference,
        "max_latent_difference": proof.max_latent_difference, "tolerance": proof.tolerance, "effect": proof.effect,
        **exported.facts, "seconds": exported.seconds, "left_out": exported.left_out,
    }  # fmt: skip


def _text(exported: Exported) -> str:
    from generators.export.card import approximation, without

    proof, latent = exported.proof, exported.max_latent_difference
    latents = "" if latent is None else f", largest latent difference {latent:.2g}"
    reader = proof.reader[0].upper() + proof.reader[1:]
    lines = [
        f"Exported to {exported.path} ({size(exported.bytes)}). {reader} opened it; it drew the same as the edit: "
        f"largest pixel difference {proof.max_difference:.2g}{latents} (required: {proof.tolerance}).",
        *([approximation(exported.facts)] if exported.facts else []),
        *([without(exported.left_out)] if without(exported.left_out) else []),
    ]
    return "\n".join(lines)
