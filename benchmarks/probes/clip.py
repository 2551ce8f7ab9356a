"""A probe out of a CLIP: a picture is what its text tower's words for a label fit best, or "something else".

With it a suite may ask for any concept that can be said. The neutral phrase keeps a picture of nothing in particular
from being given to whichever label is least unlike it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.metrics.alignment import Clip, clip
from benchmarks.probes.base import BATCH, Seen
from benchmarks.suites.suite import Suite
from erase.errors import BadInput

PREFIX = "clip:"
ELSE = "something else"


class ZeroShot:
    """Names a suite's labels in pictures by the cosine of a CLIP's two towers."""

    version = "1"
    neutral = ELSE

    def __init__(self, towers: Clip, suite: Suite) -> None:
        self.towers, self.name = towers, f"{PREFIX}{towers.name}"
        self.styles, self.objects = (*suite.styles, ELSE), (*suite.objects, ELSE)
        self.held_out: Mapping[str, Any] = {}
        words = suite.words
        styles = [words.style.replace("{}", suite.spoken(label)) for label in suite.styles]
        objects = [words.object.replace("{}", suite.spoken(label)) for label in suite.objects]
        asked = [[*styles, words.neutral], [*objects, words.neutral]]
        self.sha256 = hashlib.sha256(json.dumps([towers.sha256, asked]).encode()).hexdigest()
        self.text = [towers.said(phrases) for phrases in asked]

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Seen:
        """Reads images [n 3 h w] in [0, 1]; its features are the image tower's."""
        features = torch.cat([self.towers.seen(chunk) for chunk in images.split(BATCH)])
        shares = [(self.towers.scale * features @ text.T).softmax(1).cpu() for text in self.text]
        return Seen(shares[0], shares[1], features.cpu())


def zero_shot(name: str, suite: Suite, device: str) -> ZeroShot:
    """The probe `clip:NAME`: a bundled CLIP or an open_clip folder, asked for the suite's labels."""
    if name == PREFIX:
        raise BadInput(
            f"Suite {suite.name} is read by a CLIP, which is not shipped: give an open_clip folder as "
            "--probe clip:DIR, or as `probe` in a suite or sweep file."
        )
    return ZeroShot(clip(name.removeprefix(PREFIX), device), suite)
