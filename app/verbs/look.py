"""`studio look`: the pictures behind the strength slider, drawn once and kept in the run's folder."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.cli.answer import Answer
from app.cli.options import Parser
from app.cli.progress import follow
from erase.errors import BadInput
from erase.files import require_writable, write_json

if TYPE_CHECKING:
    from benchmarks.pages.strengths import Looked

SEEDS = "0:2"  # of prompts of one's own


def look_options(parser: Parser) -> None:
    parser.add_argument("source", metavar="RUN", help="the folder of a finished run")
    parser.add_argument("--prompt", action="append", metavar="TEXT", help="draw this instead of the four rows")
    parser.add_argument(
        "--seeds", metavar="A:B", help="of your prompts (default: 0:2), or of a GAN instead of two rows"
    )
    parser.add_argument("--strengths", metavar="S,S,…", help="of the edit (default: 0 to 1.5 in quarters)")
    parser.add_argument(
        "--suite",
        default="pocket-canvas-small",
        metavar="NAME|FILE",
        help="the prompt suite that provides the rows and the probe",
    )


def look(args: argparse.Namespace) -> Answer:
    """Draw what has not been drawn before, and say where it is."""
    from app.models import loaded, source
    from app.verbs.judge import GAN_SUITE
    from app.verbs.sample import read_seeds
    from benchmarks.pages.face_look import look_gan
    from benchmarks.pages.strengths import look as looked
    from benchmarks.suites.gan_suite import gan_suite
    from benchmarks.suites.suite import load_suite
    from erase.model import Denoiser, require

    what = source(args.source)
    edit = what.edit()
    if what.run is None or edit is None:
        raise BadInput(f"{args.source} is not a run, so there is nothing to compare. `studio erase` makes one.")
    prompts, strengths = args.prompt or [], read_strengths(args.strengths)
    seeds = read_seeds(args.seeds or SEEDS)
    asked = {"edit": edit.hash, "prompts": prompts, "seeds": args.seeds and seeds, "strengths": strengths,
             "suite": args.suite}  # fmt: skip
    name = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
    folder = what.run.folder / "look" / name
    if not (folder / "index.json").is_file():
        require_writable(folder)
        suite = load_suite(args.suite)
        model = loaded(what, args)
        if hasattr(model, "synthesis"):
            if prompts:
                raise BadInput(f"{model.name} draws from seeds alone; leave the prompt out and give --seeds A:B.")
            work = look_gan(model, edit, gan_suite(GAN_SUITE), seeds=seeds if args.seeds else (), strengths=strengths)
        else:
            require(model, Denoiser, "look")
            work = looked(model, edit, suite, prompts=prompts, seeds=seeds, strengths=strengths)
        seen = follow(work, f"drawing {what.run.job.title}")
        write_json(folder / "index.json", {"version": 1, **asked, **_kept(seen, folder)})
    document = {"version": 1, "status": "done", "run": what.run.folder, "look": folder / "index.json"}
    return Answer(document, f"The same shots at strengths {', '.join(f'{s:g}' for s in strengths)}: {folder}")


def read_strengths(text: str | None) -> list[float]:
    """A list such as 0,0.5,1; BadInput for anything else."""
    from benchmarks.pages.strengths import STRENGTHS

    try:
        return sorted({float(part) for part in text.split(",")}) if text else list(STRENGTHS)
    except ValueError:
        raise BadInput(f"{text!r} is not a list of strengths. Write numbers with commas, such as 0,0.5,1.") from None


def _kept(seen: Looked, folder: Path) -> dict[str, Any]:
    """Every picture in a file of its own, and what index.json says of rows and verdicts."""
    from app.runs.pictures import save_picture

    for strength, pictures in seen.pictures.items():
        for number, picture in enumerate(pictures):
            save_picture(picture[None], folder / picture_name(strength, number), padding=0)
    rows = [
        {"heading": line.heading, "hint": line.hint, "gone": line.gone,
         "cells": [{"seed": pair.shot.seed, "prompt": pair.shot.prompt} for pair in line.pairs]}
        for line in seen.lines
    ]  # fmt: skip
    verdicts = {
        f"{strength:g}": [{"lines": verdict.lines, "good": verdict.good} for verdict in told]
        for strength, told in seen.verdicts.items()
    }
    return {"rows": rows, "verdicts": verdicts, "probe": seen.probe}


def picture_name(strength: float, number: int) -> str:
    """The file of one cell at one strength."""
    return f"{strength:g}-{number:03d}.png"
