"""`studio export`: a run's edited model in a format that other programs open."""

from __future__ import annotations

import argparse
from pathlib import Path

from app.answer import Answer, table
from app.files import size
from app.models import load, loading
from app.progress import follow
from app.runs import open_run
from erase.errors import BadInput, match
from generators.export.card import card
from generators.export.pipeline import export_pipeline

FORMATS = {"pipeline": "a diffusers folder with the edit merged in, and a model card; any diffusers program opens it"}


def export(args: argparse.Namespace) -> Answer:
    """Write the model, prove that it opens and draws the same, and say where it is."""
    run = open_run(args.source)
    if args.form == "list":
        listed = [{"name": name, "about": about} for name, about in FORMATS.items()]
        return Answer({"version": 1, "formats": listed}, table(("format", "what it is"), list(FORMATS.items())))
    match(args.form, FORMATS, "export format")
    if args.out is None:
        raise BadInput("Where to? Add --out PATH for the exported model.")
    edit = run.edit()
    out = Path(args.out)
    model = load(run.job.model, loading(args))
    written = card(edit.about, run.report(), licence=model.licence)
    work = export_pipeline(
        model, edit, out, strength=args.strength, dtype=args.save_dtype, force=args.force, card=written
    )
    exported = follow(work, "exporting")
    document = {
        "version": 1, "status": "done", "format": "pipeline", "path": exported.path, "files": exported.files,
        "bytes": exported.bytes, "max_difference": exported.max_difference,
        "max_latent_difference": exported.max_latent_difference, "seconds": exported.seconds,
    }  # fmt: skip
    text = (
        f"Exported to {exported.path} ({size(exported.bytes)}). A fresh process opened it with diffusers alone and "
        f"drew the same image (largest pixel difference {exported.max_difference:.2g})."
    )
    return Answer(document, text)
