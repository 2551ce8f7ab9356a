"""Codes and images of a GAN's fixed seeds, read by a probe, and the scores made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from benchmarks.probes.faces import Read, Reader
from benchmarks.report import Better, Score
from erase.model import Gan
from erase.work import Step, Work

BATCH = 50


def codes_of(model: Gan, seeds: Sequence[int]) -> Tensor:
    with torch.no_grad():
        return torch.cat([model.mapping(model.latents(seeds[i : i + 500])) for i in range(0, len(seeds), 500)])


def draw_codes(model: Gan, ws: Tensor, reader: Reader, stage: str) -> Work[Read]:
    parts: list[Read] = []
    for chunk in ws.split(BATCH):
        with torch.no_grad():
            images = model.synthesis(chunk)
        parts.append(reader.read(images))
        yield Step(stage, sum(len(part.sure) for part in parts), len(ws))
    return Read(torch.cat([part.sure for part in parts]), torch.cat([part.features for part in parts]))


def to_score(
    value: float, n: int, low: float, high: float, baseline: float, better: Better, name: str, note: str
) -> Score:
    if math.isnan(value):
        return Score(value=value, n=n, low=value, high=value, baseline=math.nan, better=better, probe=name, note=note)
    low, high = (value if math.isnan(edge) else edge for edge in (low, high))
    return Score(value=value, n=n, low=min(low, value), high=max(high, value), baseline=baseline, better=better,
                 probe=name, note=note)  # fmt: skip
