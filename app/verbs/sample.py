"""`studio sample`: a contact sheet, one row per prompt and one column per seed."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from app.cli.answer import Answer
from app.cli.options import SOURCE, STRENGTH, Parser, number, unused
from app.cli.progress import follow
from erase.errors import BadInput
from erase.files import make_folder, require_space, require_writable

SEEDS = "0:4"
MOST = 10_000  # seeds of one command


def sample_options(parser: Parser) -> None:
    parser.add_argument("source", metavar="MODEL|RUN", help=SOURCE)
    parser.add_argument("--prompt", action="append", metavar="TEXT", help="what to draw; repeat it for more rows")
    parser.add_argument(
        "--seeds", metavar="A:B", help="A, A+1 … B-1, or a list A,B,C (default: 0:4); alone, of the empty prompt"
    )
    parser.add_argument(
        "--strength", type=STRENGTH, default=None, metavar="S", help="of a RUN's edit: 0 the base model, 1 as made"
    )
    parser.add_argument("--steps", type=number(int, 1, 1000), metavar="N", help="denoising steps (default: by model)")
    parser.add_argument(
        "--guidance", type=number(float, 0, 100), metavar="G", help="guidance scale (default: by model)"
    )
    parser.add_argument("--out", required=True, metavar="PNG", help="the picture to write")


def sample(args: argparse.Namespace) -> Answer:
    """Draw every prompt with every seed and write the sheet."""
    from app.models import loaded, source
    from benchmarks.pictures.sheet import sheet
    from erase.model import Shot

    seeds, prompts = read_seeds(args.seeds or SEEDS), args.prompt or [""]
    out = picture_path(args.out)
    what = source(args.source)
    edit = what.edit()
    if edit is None and args.strength is not None:
        raise BadInput(
            f"{args.source} is a model without an edit, so it has no --strength. Give a RUN, or leave it out."
        )
    if not args.prompt and not args.seeds:
        raise BadInput("What is to be drawn? Add --prompt TEXT, for example --prompt 'A Cats image in Van Gogh style.'")
    make_folder(out.parent)
    require_writable(out.parent)
    require_space(out.parent, 0, "the picture")
    strength = 1.0 if args.strength is None else args.strength
    model = loaded(what, args)
    if hasattr(model, "synthesis"):
        unused(args, f"{model.name} is a GAN and draws in one pass", prompt=None, steps=None, guidance=None)
    for sentence in cut(model, prompts):
        print(sentence, file=sys.stderr)
    shots = [Shot(seed, prompt) for prompt in prompts for seed in seeds]
    with contextlib.nullcontext() if edit is None else edit.applied(model.network, strength):
        images = follow(model.sample(shots, steps=args.steps, guidance=args.guidance), "drawing")
    applied = {} if edit is None else {"edit": edit.hash, "strength": str(strength)}
    facts = {"model": model.name, "prompts": "\n".join(prompts), "seeds": " ".join(map(str, seeds)), **applied}
    sheet(images, out, prompts, seeds, facts)
    document = {"version": 1, "status": "done", "picture": out, "prompts": prompts, "seeds": seeds, **applied}
    return Answer(document, f"{len(images)} images, one row per prompt and one column per seed: {out}")


def cut(model: Any, prompts: Sequence[str]) -> Iterator[str]:
    """A sentence for each prompt of which the model's text encoder does not read the end."""
    if not hasattr(model, "frame"):  # a GAN reads none
        return
    room = model.room
    for prompt in prompts:
        if len(words := model.tokens(prompt)) > room:
            yield f"The model reads {room} tokens; of this prompt it does not read: {model.spell(words[room:])!r}"


def read_seeds(text: str) -> list[int]:
    """`2:5` is 2, 3, 4; `7` is 7; `1,5,9` are those three. BadInput for anything else."""
    try:
        if ":" in text:
            first, last = (int(part) for part in text.split(":"))
            seeds = list(range(first, min(last, first + MOST + 1)))
        else:
            seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = []
    if len(seeds) > MOST or max(seeds, default=0) >= 2**63:
        raise BadInput(f"{text[:60]!r} names too many or too large seeds. Give at most {MOST}, each below 2^63.")
    if not seeds or min(seeds) < 0:
        raise BadInput(f"{text[:60]!r} names no seeds. Write A:B for A, A+1 … B-1, or a list such as 1,5,9.")
    return seeds


def picture_path(text: str) -> Path:
    """Where a PNG may be written; BadInput for another ending or for a folder."""
    path = Path(text)
    if path.suffix.lower() != ".png" or path.is_dir():
        raise BadInput(f"--out {text!r} is not the name of a picture; it should end in .png.")
    return path
