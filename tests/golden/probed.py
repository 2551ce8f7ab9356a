"""A judge of faces that finds each attribute in about half of what the toy GAN draws, in files of its own."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.suites.gan_suite import GanSuite
from generators.clip import fitted
from generators.pocket.faces.probe import FaceProbe
from generators.pocket.faces.words import ATTRIBUTES
from generators.stylegan2.io import files
from tests.toys.gan import ToyGan

IMAGES, SIDE, SHARP = 120, 64, 20


def suite_of(folder: Path) -> GanSuite:
    """A small suite whose probe and reference are written into a folder."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        probe, gan = FaceProbe("judge").eval(), ToyGan()
        images = fitted((gan.synthesis(gan.mapping(gan.latents(range(IMAGES)))) / 2 + 0.5).clamp(0, 1), SIDE)
        logits = probe(images)[0]
        probe.head.weight.mul_(SHARP / logits.std(0)[:, None])
        probe.head.bias.copy_((probe.head.bias - logits.median(0).values) * SHARP / logits.std(0))
        features = probe(images)[1]
    about = {"family": "face-probe", "kind": "judge", "attributes": ATTRIBUTES}
    files.write(folder / "face-judge.safetensors", probe.state_dict(), about)
    labels = (torch.rand(IMAGES, 6, generator=torch.Generator().manual_seed(2)) < 0.3).byte()
    save_file({"features": features, "labels": labels}, folder / "face-reference.safetensors")
    return GanSuite(
        name="tiny", version=1, images=IMAGES, pairs=16,
        probe=str(folder / "face-judge.safetensors"), reference=str(folder / "face-reference.safetensors"),
    )  # fmt: skip
