"""What decides the picture of a face, as a vector: the half-way house between a code z and its w in `start_gan`."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from generators.pocket.faces import draw
from generators.pocket.faces.codes import ANGLES, NUMBERS, SHARES, SIZES, STARTS, halved


def factors(z: Tensor) -> Tensor:
    """What decides the picture of each code [n z], as numbers near [-1, 1] [n f]: kinds one-hot, colours as RGB.

    A part that is not drawn is zero, so that equal faces have equal factors.
    """
    share = {part: torch.special.ndtr(z[:, STARTS[part]]) for part in SHARES}
    hat, shows = share["hat"] < draw.RATES["hat"], share["shaved"] >= draw._BALD_IF_HATLESS
    blond = (share["blond"] < draw._BLOND_IF_SHOWN) & shows
    applied = {part: share[part] < draw.RATES[part] for part in ("eyeglasses", "beard", "smile")}
    short = share["hair length"] < 0.5
    skin = _chosen(z, "skin")
    haired = torch.where(blond[:, None], _colours(draw._BLONDS)[_chosen(z, "blond shade")], _natural(z, skin))
    hue, slope = (torch.atan2(z[:, STARTS[p] + 1], z[:, STARTS[p]]) / (2 * math.pi) % 1 for p in ANGLES)
    second = hue + (25 + 65 * share["second hue"]) / 360
    tinted = shows | applied["beard"]
    columns = [
        *(_sign(bit) for bit in (*applied.values(), hat, shows, blond)),
        _kind(z, "glasses", applied["eyeglasses"]), _kind(z, "hats", hat), _kind(z, "beards", applied["beard"]),
        _kind(z, "mouth", applied["smile"]), _kind(z, "mouth", ~applied["smile"]),
        _kind(z, "hair under hat", hat & shows), _kind(z, "short hair", ~hat & shows & short),
        _kind(z, "long hair", ~hat & shows & ~short),
        *(_kind(z, part) for part in ("brows", "eyes", "nose")),
        _colours([tone for tone, _ in draw._SKINS])[skin], haired * tinted[:, None],
        _colours(draw._HAT_COLOURS)[_chosen(z, "hat colour")] * hat[:, None],
        _rainbow(hue, 0.60, 0.84), _rainbow(second, 0.52, 0.66),
        torch.stack([(2 * math.pi * slope).cos(), (2 * math.pi * slope).sin()], 1),
    ]  # fmt: skip
    return torch.cat(columns, 1)


def _chosen(z: Tensor, part: str) -> Tensor:
    return halved(_block(z, part), NUMBERS[part])


def _block(z: Tensor, part: str) -> Tensor:
    return z[:, STARTS[part] : STARTS[part] + SIZES[part]]


def _kind(z: Tensor, part: str, drawn: Tensor | None = None) -> Tensor:
    found = F.one_hot(_chosen(z, part), NUMBERS[part]).float()
    return found if drawn is None else found * drawn[:, None]


def _sign(bit: Tensor) -> Tensor:
    return 2 * bit.float()[:, None] - 1


def _colours(named: Sequence[str]) -> Tensor:
    """Colours such as #FFDBB4 as rows in [-1, 1]: [n 3]."""
    return torch.tensor([[int(name[i : i + 2], 16) / 127.5 - 1 for i in (1, 3, 5)] for name in named])


def _natural(z: Tensor, skin: Tensor) -> Tensor:
    """The hair colour of those who are not blond: which of its skin's colours comes first in the code."""
    found = torch.zeros(len(z), 3)
    for tone, (_, colours) in enumerate(draw._SKINS):
        here = skin == tone
        found[here] = _colours(colours)[halved(_block(z[here], "hair colour"), len(colours))]
    return found


def _rainbow(hue: Tensor, saturation: float, lightness: float) -> Tensor:
    """RGB in [-1, 1] of hues [n], from a table of a thousand."""
    table = torch.tensor([colorsys.hls_to_rgb(step / 1000, lightness, saturation) for step in range(1000)]) * 2 - 1
    return table[(hue % 1 * 1000).long().clamp(max=999)]
