"""Foreign StyleGAN2 files: there and back with the same pictures, and hostile ones refused without being run."""

from __future__ import annotations

import argparse
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import generators
from erase.errors import BadInput
from generators.stylegan2.discriminator import Critic
from generators.stylegan2.io import checkpoint, layouts
from generators.stylegan2.network import Shape, StyleGenerator, latents
from tests.generators.stylegan2 import nvlabs

SHAPES = [
    Shape(resolution=16, z_dim=6, w_dim=5, mapping_layers=2, widths={4: 8, 8: 7, 16: 4}),
    Shape(resolution=8, z_dim=3, w_dim=9, mapping_layers=3, widths={4: 5, 8: 6}),
    Shape(resolution=32, z_dim=4, w_dim=4, mapping_layers=1, widths={4: 6, 8: 6, 16: 4, 32: 3}),
    Shape(resolution=16, z_dim=8, w_dim=8, mapping_layers=8, widths={4: 4, 8: 4, 16: 4}),
]


def made(shape: Shape) -> checkpoint.Checkpoint:
    torch.manual_seed(0)
    generator, critic = StyleGenerator(shape).requires_grad_(False), Critic(shape).requires_grad_(False)
    for conv in generator.synthesis.convs():
        conv.noise_strength.fill_(0.3)
        conv.bias.normal_()
    generator.mapping.w_avg.normal_()
    for name, parameter in critic.named_parameters():
        if name.endswith("bias"):
            parameter.normal_()
    return checkpoint.Checkpoint(generator.eval(), critic.eval(), {"name": "made"})


def pickled(this: checkpoint.Checkpoint, path: Path) -> Path:
    assert this.critic is not None
    generator = layouts.with_filters(layouts.unfolded(this.generator), "generator")
    return nvlabs.snapshot(path, generator, layouts.with_filters(layouts.unfolded(this.critic), "critic"))


WRITERS: dict[str, Callable[[checkpoint.Checkpoint, Path], Any]] = {
    "ours": lambda this, path: checkpoint.write_folder(this, path),
    "nvlabs.safetensors": checkpoint.write_nvlabs,
    "nvlabs.pkl": pickled,
    "rosinality.pt": checkpoint.write_rosinality,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", WRITERS)
def test_pictures_survive_the_round_trip(name: str, shape: Shape, tmp_path: Path) -> None:
    before = made(shape)
    WRITERS[name](before, tmp_path / name)
    after = checkpoint.read(tmp_path / name)
    assert after is not None and after.critic is not None and before.critic is not None
    told = after.generator.shape
    assert told.model_dump(exclude={"clamp", "group"}) == shape.model_dump(exclude={"clamp", "group"})
    assert (told.clamp, told.group) == ((256, 8) if name.endswith("pkl") else (None, 4))
    z = latents(range(4), shape.z_dim)
    for psi in (1.0, 0.7):
        images = before.generator(z, psi)
        assert (after.generator(z, psi) - images).abs().max() <= 1e-5 * max(1.0, float(images.abs().max()))
    torch.testing.assert_close(after.critic(images), before.critic(images), atol=1e-5, rtol=1e-5)
    # a second trip adds nothing: both directions undo each other
    for part, other in ((before.generator, after.generator), (before.critic, after.critic)):
        for key, value in part.state_dict().items():
            torch.testing.assert_close(other.state_dict()[key], value, atol=1e-6, rtol=1e-6)


def test_names_and_shapes_are_the_published_ones(tmp_path: Path) -> None:
    shape = SHAPES[0]
    this = made(shape)
    held = torch.load(checkpoint.write_rosinality(this, tmp_path / "x.pt"), weights_only=True)
    steps = 2  # resolutions above 4 px
    depth_8 = 2 * (8 - shape.mapping_layers)  # the published counts are for eight mapping layers
    assert len(held["g_ema"]) == 27 + 18 * steps - depth_8
    assert len(held["d"]) == 8 + 7 * steps
    assert held["g_ema"]["input.input"].shape == (1, 8, 4, 4)
    assert held["g_ema"]["convs.0.conv.weight"].shape == (1, 7, 8, 3, 3)
    assert held["g_ema"]["to_rgbs.1.bias"].shape == (1, 3, 1, 1)
    assert held["g_ema"]["noises.noise_3"].shape == (1, 1, 16, 16)
    assert held["g_ema"]["convs.2.noise.weight"].shape == (1,)
    assert held["d"]["final_conv.0.weight"].shape == (8, 9, 3, 3)
    assert this.critic is not None
    generator = layouts.with_filters(layouts.unfolded(this.generator), "generator")
    assert len(generator) == 30 + 19 * steps - depth_8
    assert len(layouts.with_filters(layouts.unfolded(this.critic), "critic")) == 10 + 9 * steps
    # foreign weights have unit scale, whatever the width of the layer
    assert 0.7 < float(generator["synthesis.b16.conv0.affine.weight"].std()) < 1.4
    assert 70 < float(generator["mapping.fc1.weight"].std()) < 140


def test_a_flipped_kernel_would_be_seen(tmp_path: Path) -> None:
    this = made(SHAPES[0])
    held = torch.load(checkpoint.write_rosinality(this, tmp_path / "x.pt"), weights_only=True)
    held["g_ema"]["convs.0.conv.weight"] = held["g_ema"]["convs.0.conv.weight"].flip(3)
    torch.save(held, tmp_path / "x.pt")
    after = checkpoint.read(tmp_path / "x.pt")
    assert after is not None
    z = latents([0], 6)
    assert (after.generator(z) - this.generator(z)).abs().max() > 1e-2


def test_what_training_leaves_beside_the_weights_is_no_obstacle(tmp_path: Path) -> None:
    held = torch.load(checkpoint.write_rosinality(made(SHAPES[1]), tmp_path / "x.pt"), weights_only=True)
    del held["latent_avg"], held["d"]
    held |= {"args": argparse.Namespace(size=8), "g_optim": {"state": {}}, "ada_aug_p": 0.0}
    torch.save(held, tmp_path / "x.pt")
    after = checkpoint.read(tmp_path / "x.pt")
    assert after is not None and after.critic is None
    assert float(after.generator.mapping.w_avg.abs().max()) > 0
    assert "clamp" in after.about["guessed"]


def test_wrong_tensors_are_listed(tmp_path: Path) -> None:
    held = torch.load(checkpoint.write_rosinality(made(SHAPES[1]), tmp_path / "x.pt"), weights_only=True)
    held["g_ema"]["convs.9.conv.weight"] = held["g_ema"].pop("convs.1.noise.weight")
    torch.save(held, tmp_path / "x.pt")
    with pytest.raises(BadInput, match=r"unknown convs\.9\.conv\.weight; missing convs\.1\.noise\.weight"):
        checkpoint.read(tmp_path / "x.pt")
    torch.save({"weights": torch.zeros(3)}, tmp_path / "x.pt")
    with pytest.raises(BadInput, match="no g_ema"):
        checkpoint.read(tmp_path / "x.pt")


class Runs:
    """Touches a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.marker}",)


class Stored:
    """A storage in a pickle, as PyTorch writes one: its bytes are a pickle too."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __reduce__(self) -> tuple[Any, ...]:
        return torch.storage._load_from_bytes, (self.data,)


class Wide:
    """A tensor that claims to be larger than its bytes."""

    def __init__(self, size: tuple[int, ...], stride: tuple[int, ...]) -> None:
        self.size, self.stride = size, stride

    def __reduce__(self) -> tuple[Any, ...]:
        storage = torch.zeros(1).storage()
        return torch._utils._rebuild_tensor_v2, (storage, 0, self.size, self.stride, False, {})  # type: ignore[attr-defined]


class OutsideTheFile(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        return "elsewhere" if isinstance(obj, Runs) else None


def outside(marker: Path) -> bytes:
    file = io.BytesIO()
    OutsideTheFile(file).dump(Runs(marker))
    return file.getvalue()


def bomb(size: tuple[int, ...], stride: tuple[int, ...]) -> Any:
    return {"G_ema": nvlabs.Persistent("Generator", {}, ""), "D": Wide(size, stride)}


SYSTEM = r"asks for (posix|nt)\.system"
HOSTILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "direct": (lambda marker: {"G_ema": Runs(marker)}, SYSTEM),
    "in a storage": (lambda marker: {"G_ema": Stored(pickle.dumps(Runs(marker)))}, "refused|damaged"),
    "in a zipped storage": (
        lambda marker: {"G_ema": Stored(_saved(Runs(marker)))},
        f"of a storage in it, it {SYSTEM}",
    ),
    "stride nought": (lambda marker: bomb((2**14, 2**14), (0, 0)), "larger than its bytes"),
    "huge": (lambda marker: bomb((2**20, 2**20), (0, 0)), "declares a tensor of 1099511627776 numbers"),
    "beyond its bytes": (lambda marker: bomb((2**10, 2**10), (2**10, 1)), "beyond its bytes"),
    "source": (
        lambda marker: {"G_ema": nvlabs.Persistent("Generator", {}, f"open({str(marker)!r}, 'w')")},
        "not a StyleGAN2 generator",
    ),
    "builtins": (lambda marker: {"G_ema": getattr}, "asks for builtins.getattr"),
}


def _saved(thing: Any) -> bytes:
    file = io.BytesIO()
    torch.save(thing, file)
    return file.getvalue()


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused_and_not_run(name: str, tmp_path: Path) -> None:
    make, sentence = HOSTILE[name]
    marker = tmp_path / "ran"
    path = nvlabs.write(tmp_path / "x.pkl", make(marker))
    with pytest.raises(BadInput, match=sentence) as caught:
        checkpoint.read(path)
    assert "\n" not in str(caught.value)
    assert not marker.exists()


def test_the_stock_reader_would_have_run_them(tmp_path: Path) -> None:
    for thing in (Runs(tmp_path / "direct"), Stored(_saved(Runs(tmp_path / "nested")))):
        pickle.loads(pickle.dumps(thing))
    assert (tmp_path / "direct").exists() and (tmp_path / "nested").exists()


SETS = b"N}X\x05\x00\x00\x00extraK\x01s\x86b."  # a state with attributes, and BUILD


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (outside, "BINPERSID"),
        (lambda marker: b"\x80\x04j\xff\xff\xff\x7f.", "damaged"),  # takes from a table it never filled
        (lambda marker: b"\x80\x02Nr\xff\xff\xff\x7f.", "huge table"),
        (lambda marker: b"\x80\x05\x96" + (2**40).to_bytes(8, "little") + b".", "damaged"),
        (lambda marker: b"\x80\x02cdnnlib.util\nEasyDict\n" + SETS, "sets extra of a class"),
        (lambda marker: b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + SETS, "sets extra of a function"),
        (lambda marker: b"\x80\x02}N" + b"2\x86" * 64 + b"Ns.", "nests values"),  # as a key of a dictionary
        (lambda marker: b"\x80\x04(N" + b"q\x00h\x00\x86" * 64 + b"\x91.", "nests values"),  # in a frozenset
        (lambda marker: b"\x80\x02\x86.", "do not fit together"),
        (lambda marker: b"", "does not begin like one"),
        (lambda marker: b"hello", "does not begin like one"),
    ],
)
def test_crafted_instructions_are_refused(data: Callable[[Path], bytes], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    path.write_bytes(data(tmp_path / "ran"))
    with pytest.raises(BadInput, match=sentence):
        checkpoint.read(path)


@pytest.mark.parametrize("name", ["nvlabs.pkl", "rosinality.pt"])
def test_a_truncated_file_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](made(SHAPES[1]), path)
    whole = path.read_bytes()
    for share in (0.2, 0.7, 0.99):
        path.write_bytes(whole[: int(len(whole) * share)])
        with pytest.raises(BadInput, match="damaged|cut short"):
            checkpoint.read(path)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda held, marker: held.update(args=argparse.Namespace(size=Runs(marker))), SYSTEM),
        (lambda held, marker: held["g_ema"].update({"input.input": torch.zeros(1).expand(2**14, 2**14)}), "larger"),
        (lambda held, marker: held["g_ema"].update({"input.input": torch.zeros(1).expand(2**20, 2**20)}), "declares a"),
        (lambda held, marker: held["g_ema"].update({"input.input": torch.full((1, 5, 4, 4), torch.nan)}), "not number"),
        (lambda held, marker: held["g_ema"].update({"input.input": torch.zeros(3, dtype=torch.int64)}), "float16"),
        (lambda held, marker: held["g_ema"].update({"input.input": 3}), "int; possible"),
    ],
)  # fmt: skip
def test_hostile_checkpoints_are_refused(
    spoil: Callable[[dict[str, Tensor], Path], None], sentence: str, tmp_path: Path
) -> None:
    path, marker = tmp_path / "x.pt", tmp_path / "ran"
    held = torch.load(checkpoint.write_rosinality(made(SHAPES[1]), path), weights_only=True)
    spoil(held, marker)
    torch.save(held, path)
    with pytest.raises(BadInput, match=sentence):
        checkpoint.read(path)
    assert not marker.exists()


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    checkpoint.write_rosinality(made(SHAPES[1]), path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    with pytest.raises(BadInput, match="compressed"):
        checkpoint.read(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda tensors: tensors.update({"mapping.embed.weight": torch.zeros(2, 2)}), "class labels"),
        (lambda tensors: tensors.pop("synthesis.b8.torgb.weight"), "torgb"),
        (lambda tensors: tensors.update({"synthesis.b8.resample_filter": torch.ones(4, 4)}), "another resampling"),
        (lambda tensors: tensors.update({"synthesis.b8.extra": torch.ones(4)}), "unknown synthesis.b8.extra"),
        (lambda tensors: tensors.pop("synthesis.b4.const"), "not a StyleGAN2 generator"),
    ],
)
def test_relatives_of_stylegan2_are_refused(change: Callable[[dict[str, Tensor]], Any], sentence: str) -> None:
    tensors = layouts.with_filters(layouts.unfolded(made(SHAPES[1]).generator), "generator")
    change(tensors)
    with pytest.raises(BadInput, match=sentence):
        layouts.build(layouts.infer(tensors), tensors, None)


def test_a_file_without_noise_maps_is_the_same_model_every_time(tmp_path: Path) -> None:
    path = checkpoint.write_rosinality(made(SHAPES[1]), tmp_path / "whole.pt")
    held = torch.load(path, weights_only=True)
    held["g_ema"] = {name: value for name, value in held["g_ema"].items() if not name.startswith("noises.")}
    torch.save(held, tmp_path / "bare.pt")
    whole, one, other = (generators.load(tmp_path / name, device="cpu") for name in ("whole.pt", "bare.pt", "bare.pt"))
    assert one.fingerprint == other.fingerprint != whole.fingerprint
    maps = [value for name, value in one.network.state_dict().items() if name.endswith("noise_const")]
    assert len({float(value.flatten()[0]) for value in maps}) == len(maps)
