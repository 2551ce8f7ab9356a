"""`studio latents`: a GAN's pictures of seeds, one file each, for somebody who is to mark them."""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

from app.cli.answer import Answer
from app.cli.options import Parser
from app.cli.progress import follow
from app.queue.paths import latent_picture
from erase.files import require_space, require_writable, write_json


def latents_options(parser: Parser) -> None:
    parser.add_argument("source", metavar="GAN|RUN", help="a bundled GAN, its folder or file, or a RUN of one")
    parser.add_argument("--seeds", default="0:48", metavar="A:B", help="which (default: %(default)s)")
    parser.add_argument("--out", required=True, metavar="DIR", help="where they go")


def latents(args: argparse.Namespace) -> Answer:
    """Draw the seeds that have not been drawn before; index.json names the folder of this very model's pictures."""
    from app.models import loaded, source
    from app.runs.pictures import save_picture
    from app.verbs.sample import read_seeds
    from erase.model import Gan, Shot, require

    seeds, out = read_seeds(args.seeds), Path(args.out)
    what = source(args.source)
    edit = what.edit()
    require_writable(out)
    model = loaded(what, args)
    require(model, Gan, "latents")
    name = model.fingerprint[:12] if edit is None else f"{model.fingerprint[:12]}-{edit.hash[:12]}"
    require_space(out, 0, "the pictures")
    missing = [seed for seed in seeds if not (out / name / latent_picture(seed)).is_file()]
    if missing:
        with contextlib.nullcontext() if edit is None else edit.applied(model.network):
            images = follow(model.sample([Shot(seed) for seed in missing]), "drawing")
        for seed, image in zip(missing, images, strict=True):
            save_picture(image[None], out / name / latent_picture(seed), padding=0)
    index = {"version": 1, "status": "done", "model": model.name, "pictures": name}
    write_json(out / "index.json", index)
    return Answer({**index, "seeds": seeds, "folder": out / name}, f"{len(seeds)} pictures, one a seed: {out / name}")
