"""Train the pocket models.  Each stage resumes where it stopped; all of them, in order:

    python -m generators.pocket.train text vae decoder judge eye clip unet assemble --work WORK

`--minutes` bounds a stage by the clock (the learning rate falls to zero at its end), `--steps` bounds it by count.
`unpack` first, with a fresh WORK folder, goes on from the shipped models.  The defaults suit a processor with a few
cores, where `--compile` doubles the U-Net's pace; on a GPU add `--batch 512 --per-cell 400` too.

A small flow transformer of FLUX's classes, on the same renders and captions, with pocket-clip's features beside them:

    python -m generators.pocket.train flow-vae flow assemble-flow --work WORK

The gold standard, a U-Net that never saw a style and an object, is made with the finished text, vae and decoder:

    python -m generators.pocket.train unet retrained --work WORK --without Van_Gogh Towers
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from pathlib import Path

import torch

from erase.errors import BadInput
from generators.assets import FOLDER
from generators.pocket.canvas import data
from generators.pocket.train.assemble import assemble, unpack
from generators.pocket.train.clip import train_clip, train_text
from generators.pocket.train.flow import assemble_flow, train_flow, train_flow_vae
from generators.pocket.train.loop import Setting
from generators.pocket.train.probe import train_probe
from generators.pocket.train.retrained import keep_retrained
from generators.pocket.train.sd import train_decoder, train_unet, train_vae

STAGES: dict[str, Callable[[Setting], None]] = {
    "judge": lambda setting: train_probe("judge", setting),
    "eye": lambda setting: train_probe("eye", setting),
    "text": train_text,
    "clip": train_clip,
    "vae": train_vae,
    "decoder": train_decoder,
    "unet": train_unet,
    "assemble": assemble,
    "flow-vae": train_flow_vae,
    "flow": train_flow,
    "assemble-flow": assemble_flow,
    "retrained": keep_retrained,
    "unpack": unpack,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="+", choices=STAGES)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--work", type=Path, required=True, help="folder of renders and unfinished states")
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--per-cell", type=int, default=120, help="renders of each of the 300 cells")
    parser.add_argument("--without", nargs="+", type=label, default=(), help="what the U-Net never sees")
    parser.add_argument("--compile", action="store_true")
    asked = parser.parse_args()
    if "retrained" in asked.stages and not asked.without:
        parser.error("retrained keeps a U-Net that never saw something; name that with --without")
    asked.work.mkdir(parents=True, exist_ok=True)
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    options = {name: value for name, value in vars(asked).items() if name not in ("stages", "device")}
    for stage in asked.stages:
        STAGES[stage](Setting(device=torch.device(asked.device), **options))


def label(text: str) -> str:
    try:
        return data.label(text)
    except BadInput as error:
        raise argparse.ArgumentTypeError(str(error)) from None


if __name__ == "__main__":
    main()
