"""The probe of face attributes, with what it reads in the data's own pictures."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from safetensors.torch import load_file
from torch import Tensor

from benchmarks.suites.gan_suite import GanSuite
from erase.errors import BadInput
from generators.assets import assets
from generators.clip import fitted
from generators.pocket.faces.probe import FaceProbe, load_face_probe


@dataclass(frozen=True)
class Read:
    """What the probe reads in n images: probabilities [n attribute] and features [n f]."""

    sure: Tensor
    features: Tensor

    @property
    def labels(self) -> Tensor:
        return self.sure > 0.5


@dataclass(frozen=True)
class Reader:
    """A probe of face attributes with its name, and the read-off pictures of the data."""

    probe: FaceProbe
    name: str
    reference: Read

    @staticmethod
    def of(suite: GanSuite, device: torch.device) -> Reader:
        """BadInput where one of the suite's two files is missing."""
        path, data = assets() / suite.probe, assets() / suite.reference
        for file in (path, data):
            if not file.is_file():
                raise BadInput(
                    f"The bundled file {file.name} is missing: there is no {file}; install the program again."
                )
        held = load_file(data)
        sha = hashlib.sha256(path.read_bytes()).hexdigest()
        labels = held["labels"].float()
        return Reader(
            load_face_probe(path).to(device), f"{path.stem}@{sha[:8]}", Read(labels, held["features"].float())
        )

    def column(self, name: str) -> int:
        return self.probe.attributes.index(name)

    @torch.no_grad()
    def read(self, images: Tensor) -> Read:
        """Images as raw output of a generator; they are rounded as pictures are."""
        pixels = ((images / 2 + 0.5).clamp(0, 1) * 255).round() / 255
        logits, features = self.probe(fitted(pixels.float(), 64))
        return Read(logits.sigmoid().cpu(), features.cpu())
