"""How NVlabs and rosinality name and scale the same StyleGAN2, and what can be told from the tensors alone.

Ours are NVlabs' names with each run-time gain folded into its weight: ours = gain · theirs, in both foreign layouts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from erase.errors import BadInput
from erase.rng import stream
from generators.stylegan2.discriminator import Critic
from generators.stylegan2.network import Shape, StyleGenerator, blur_kernel, gains

Tensors = Mapping[str, Tensor]
CONV = {
    "conv.weight": "weight", "conv.modulation.weight": "affine.weight", "conv.modulation.bias": "affine.bias",
    "noise.weight": "noise_strength", "activate.bias": "bias",
}  # fmt: skip
RGB = {
    "conv.weight": "weight", "conv.modulation.weight": "affine.weight", "conv.modulation.bias": "affine.bias",
    "bias": "bias",
}  # fmt: skip
MOST = 4096  # pixels of a side, and layers
KERNELS = ("resample_filter", "kernel")


def infer(tensors: Tensors, clamp: float | None = None, group: int = 4) -> Shape:
    """The shape of a generator from its tensors under NVlabs' names; `clamp` and `group` leave no trace in them."""
    if not {"synthesis.b4.const", "mapping.fc0.weight"} <= set(tensors):
        raise BadInput(
            "These tensors are not a StyleGAN2 generator, which has synthesis.b4.const and mapping.fc0.weight."
        )
    if "mapping.embed.weight" in tensors:
        raise BadInput("This generator takes class labels; possible here: generators without (c_dim 0).")
    found = [re.fullmatch(r"synthesis\.b(\d+)\.conv1\.weight", name) for name in tensors]
    resolutions = sorted(int(match[1]) for match in found if match)
    expected = [2**k for k in range(2, 2 + len(resolutions))]
    rgb = [f"synthesis.b{resolution}.torgb.weight" for resolution in expected]
    if resolutions != expected or not all(name in tensors for name in rgb):
        raise BadInput("This generator lacks a resolution or a torgb; possible here: StyleGAN2 with skips at each.")
    if tensors[rgb[-1]].shape[0] != 3:
        raise BadInput(f"This generator draws {tensors[rgb[-1]].shape[0]} channels; possible here: 3.")
    depth = sum(re.fullmatch(r"mapping\.fc\d+\.weight", name) is not None for name in tensors)
    return Shape(
        resolution=resolutions[-1],
        z_dim=tensors["mapping.fc0.weight"].shape[1],
        w_dim=tensors[f"mapping.fc{depth - 1}.weight"].shape[0],
        mapping_layers=depth,
        widths={r: tensors[f"synthesis.b{r}.conv1.weight"].shape[0] for r in resolutions},
        clamp=clamp,
        group=group,
    )


def folded(network: nn.Module, theirs: Tensors, *, missing: Iterable[str] = ()) -> None:
    """Fills one of our networks from tensors under NVlabs' names and scale; BadInput lists names that do not fit.

    `missing` may be absent from the file and keep what the network holds.
    """
    theirs = _without_filters(theirs)
    own, gain = network.state_dict(), gains(network)
    strange, absent = sorted(set(theirs) - set(own)), sorted(set(own) - set(theirs) - set(missing))
    if strange or absent:
        raise BadInput(f"These tensors do not fit a StyleGAN2: unknown {_few(strange)}; missing {_few(absent)}.")
    for name, value in theirs.items():
        if value.numel() != own[name].numel():
            raise BadInput(f"{name} is {tuple(value.shape)} in the file, and should be {tuple(own[name].shape)}.")
        own[name] = (value.to(torch.float64) * gain.get(name, 1.0)).to(torch.float32).reshape(own[name].shape)
    network.load_state_dict(own)


def unfolded(network: nn.Module) -> dict[str, Tensor]:
    """Our network's tensors at NVlabs' scale, under NVlabs' names, without the filters."""
    gain = gains(network)
    return {
        name: (value.detach().cpu().to(torch.float64) / gain.get(name, 1.0)).to(torch.float32)
        for name, value in network.state_dict().items()
    }


def with_filters(tensors: Tensors, kind: str) -> dict[str, Tensor]:
    """NVlabs' names with the resampling filters their modules hold; `kind` is generator or critic."""
    out = dict(tensors)
    for name in tensors:
        block, _, leaf = name.rpartition(".")
        if kind == "generator" and leaf == "noise_const":
            out[f"{block}.resample_filter"] = blur_kernel()
        if kind == "generator" and name.endswith("torgb.weight"):
            out[f"{block.removesuffix('.torgb')}.resample_filter"] = blur_kernel()
        if kind == "critic" and leaf == "weight" and not name.endswith(("b4.fc.weight", "b4.out.weight")):
            out[f"{block}.resample_filter"] = blur_kernel()
            if not block.startswith("b4"):
                out[f"{block.partition('.')[0]}.resample_filter"] = blur_kernel()
    return out


def generator_names(shape: Shape) -> dict[str, str]:
    """Every generator tensor: rosinality's name to NVlabs'."""
    names = {f"style.{i + 1}.{leaf}": f"mapping.fc{i}.{leaf}" for i in range(shape.mapping_layers) for leaf in _WB}
    names |= {"input.input": "synthesis.b4.const"}
    names |= {f"conv1.{theirs}": f"synthesis.b4.conv1.{ours}" for theirs, ours in CONV.items()}
    names |= {f"to_rgb1.{theirs}": f"synthesis.b4.torgb.{ours}" for theirs, ours in RGB.items()}
    names |= {"noises.noise_0": "synthesis.b4.conv1.noise_const"}
    for k, r in enumerate(shape.resolutions[1:]):
        for place in (0, 1):
            block = f"synthesis.b{r}.conv{place}"
            names |= {f"convs.{2 * k + place}.{theirs}": f"{block}.{ours}" for theirs, ours in CONV.items()}
            names |= {f"noises.noise_{2 * k + 1 + place}": f"{block}.noise_const"}
        names |= {f"to_rgbs.{k}.{theirs}": f"synthesis.b{r}.torgb.{ours}" for theirs, ours in RGB.items()}
    return names


def critic_names(shape: Shape) -> dict[str, str]:
    """Every critic tensor: rosinality's name to NVlabs'."""
    top = shape.resolution
    names = {"convs.0.0.weight": f"b{top}.fromrgb.weight", "convs.0.1.bias": f"b{top}.fromrgb.bias"}
    for j, r in enumerate(reversed(shape.resolutions[1:]), 1):
        names |= {
            f"convs.{j}.conv1.0.weight": f"b{r}.conv0.weight", f"convs.{j}.conv1.1.bias": f"b{r}.conv0.bias",
            f"convs.{j}.conv2.1.weight": f"b{r}.conv1.weight", f"convs.{j}.conv2.2.bias": f"b{r}.conv1.bias",
            f"convs.{j}.skip.1.weight": f"b{r}.skip.weight",
        }  # fmt: skip
    names |= {"final_conv.0.weight": "b4.conv.weight", "final_conv.1.bias": "b4.conv.bias"}
    for place, layer in enumerate(("fc", "out")):
        names |= {f"final_linear.{place}.{leaf}": f"b4.{layer}.{leaf}" for leaf in _WB}
    return names


def infer_rosinality(tensors: Tensors) -> Shape:
    """The shape of a rosinality generator, from its tensors."""
    depth = sum(re.fullmatch(r"style\.\d+\.weight", name) is not None for name in tensors)
    steps = sum(re.fullmatch(r"to_rgbs\.\d+\.bias", name) is not None for name in tensors)
    if not depth or "input.input" not in tensors or "conv1.conv.weight" not in tensors:
        raise BadInput("These tensors are not a StyleGAN2 of rosinality, which has style.1.weight and input.input.")
    loose = Shape(resolution=4 * 2**steps, mapping_layers=depth)
    return infer(renamed(tensors, generator_names(loose)))


def renamed(tensors: Tensors, names: Mapping[str, str]) -> dict[str, Tensor]:
    """The tensors under other names; BadInput lists what is strange or missing, fixed filters aside."""
    theirs = _without_filters(tensors)
    strange = sorted(set(theirs) - set(names))
    absent = sorted(name for name in set(names) - set(theirs) if not name.startswith("noises."))
    if strange or absent:
        raise BadInput(f"These tensors do not fit a StyleGAN2: unknown {_few(strange)}; missing {_few(absent)}.")
    return {names[name]: _squeezed(name, value) for name, value in theirs.items()}


def rosinality(tensors: Tensors, names: Mapping[str, str]) -> dict[str, Tensor]:
    """Tensors under NVlabs' names as rosinality's modules load them, fixed filters included."""
    out = {theirs: _unsqueezed(theirs, tensors[ours]) for theirs, ours in names.items()}
    for theirs in names:
        layer, _, leaf = theirs.rpartition(".conv.")
        if re.fullmatch(r"convs\.\d*[02468]\.conv\.weight", theirs):
            out[f"{layer}.conv.blur.kernel"] = blur_kernel() * 4
        if theirs.startswith("to_rgbs.") and leaf == "weight":
            out[f"{layer}.upsample.kernel"] = blur_kernel() * 4
        if found := re.fullmatch(r"(convs\.\d+\.(?:conv2|skip))\.1\.weight", theirs):
            out[f"{found[1]}.0.kernel"] = blur_kernel()
    return out


_WB = ("weight", "bias")


def _squeezed(name: str, value: Tensor) -> Tensor:
    """Without the leading dimension of rosinality's style layers; sizes are checked when the network is filled."""
    if re.fullmatch(r"(convs\.\d+|conv1|to_rgbs\.\d+|to_rgb1)\.conv\.weight|input\.input", name) and value.ndim > 3:
        return value[0]
    if name.startswith("noises."):
        return value.reshape(value.shape[-2:]) if value.ndim >= 2 else value
    return value.reshape(-1) if re.fullmatch(r"to_rgbs?\d?(\.\d+)?\.bias", name) else value


def _unsqueezed(name: str, value: Tensor) -> Tensor:
    if re.fullmatch(r"(convs\.\d+|conv1|to_rgbs\.\d+|to_rgb1)\.conv\.weight|input\.input", name):
        return value[None]
    if name.startswith("noises."):
        return value[None, None]
    if name.endswith("noise.weight"):
        return value.reshape(1)
    return value.reshape(1, -1, 1, 1) if re.fullmatch(r"to_rgbs?\d?(\.\d+)?\.bias", name) else value


def _without_filters(tensors: Tensors) -> dict[str, Tensor]:
    """The tensors that are learnt; BadInput where a resampling filter is not the usual one."""
    kept = {}
    for name, value in tensors.items():
        if not name.endswith(KERNELS):
            kept[name] = value
        elif value.numel() != 16 or not torch.allclose(value.float() / value.float().sum(), blur_kernel(), atol=1e-4):
            raise BadInput(f"{name} is another resampling filter than [1, 3, 3, 1]; possible here: that one.")
    return kept


def _few(names: list[str]) -> str:
    return (", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")) or "none"


def check_shape(shape: Shape, tensors: Tensors, kind: type[StyleGenerator] | type[Critic]) -> None:
    """BadInput, before a network is built, when its shape asks for far more numbers than the tensors hold."""
    layers = max([shape.mapping_layers, shape.group, *shape.widths])
    if layers > MOST or min(shape.z_dim, shape.w_dim, shape.mapping_layers, *shape.widths.values()) < 1:
        raise BadInput(f"No StyleGAN2 has {shape.resolution} px and {shape.mapping_layers} layers of mapping.")
    with torch.device("meta"):
        asked = sum(part.numel() for name, part in kind(shape).state_dict().items() if not name.endswith("noise_const"))
    held = sum(part.numel() for part in tensors.values())
    if asked > 2 * held:
        raise BadInput(f"The sizes of this StyleGAN2 ask for {asked} numbers, and its file holds {held}.")


def build(shape: Shape, generator: Tensors, critic: Tensors | None) -> tuple[StyleGenerator, Critic | None]:
    """Both networks from tensors under NVlabs' names and scale, in float32 and eval mode."""
    check_shape(shape, generator, StyleGenerator)
    made = StyleGenerator(shape)
    noises = [name for name in made.state_dict() if name.endswith("noise_const")]
    for name in noises:  # a file without noise maps gets the same ones in every process
        value = made.state_dict()[name]
        value.copy_(torch.randn(value.shape, generator=stream(0, "noise map", name)))
    folded(made, generator, missing=["mapping.w_avg", *noises])
    if critic is None:
        return made.eval(), None
    check_shape(shape, critic, Critic)
    judge = Critic(shape)
    folded(judge, critic)
    return made.eval(), judge.eval()
