"""The U-Net trained without some labels, as an edit of the bundled pocket-sd."""

from __future__ import annotations

import torch

from erase.edit import Edit
from generators.assets import FOLDER
from generators.loading import load
from generators.pocket.train import networks
from generators.pocket.train.loop import Setting, trained

NAME = "pocket-retrained"
PLACE = FOLDER / NAME / "edit.safetensors"


def keep_retrained(setting: Setting) -> None:
    """Write what the U-Net of stage `unet`, trained `--without` something, has in place of pocket-sd's weights."""
    model = load("pocket-sd", device="cpu", dtype="fp32")
    unet = trained("unet", networks.unet(), setting).to("cpu")
    steps = torch.load(setting.work / "unet.state.pt", map_location="cpu", weights_only=True)["step"]
    before = model.network.get_submodule("unet").state_dict()
    deltas = {f"unet.{name}": (weight - before[name]).half() for name, weight in unet.state_dict().items()}
    about = {
        "method": "retrained", "without": list(setting.without), "concepts": [], "steps": steps,
        "batch": setting.batch, "base": model.fingerprint, "model": model.name,
    }  # fmt: skip
    Edit(deltas, about).save(setting.out / NAME / "edit.safetensors")
