"""An edited GAN goes out whole or as an edit: each file draws what the applied edit draws, and says what it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import generators
from erase.edit import Edit
from erase.errors import BadInput
from erase.model import Shot
from erase.work import drain
from generators.checkpoints import text_encoder_edit
from generators.export.card import STATEMENT
from generators.export.export import Exported, export
from generators.export.format import FORMS, OF_GANS
from generators.export.formats import gan as exports
from generators.export.verify import EXACT, Unproven
from generators.stylegan2.io.layouts import generator_names
from tests.toys.gan import SHAPE, ToyGan

SHOTS = [Shot(seed) for seed in range(3)]
ABOUT = {"method": "text-unlearn", "seed": 7, "model": "toy", "base": "0123abcd", "concepts": [{"name": "Glasses"}]}
FILES = {"generator.safetensors", "critic.safetensors", "rosinality.pt", "nvlabs.safetensors"}


def edit(gan: ToyGan) -> Edit:
    torch.manual_seed(0)
    deltas = {name: 0.1 * torch.randn_like(w) for name, w in gan.network.named_parameters() if "conv" in name}
    return Edit(deltas, ABOUT)


def written(out: Path, form: str = "gan", **asked: Any) -> Exported:
    gan = ToyGan()
    return drain(export(gan, edit(gan), out, form, **asked))


@pytest.mark.parametrize("name", ["folder", "x.pt", "x.safetensors"])
def test_what_is_written_draws_what_the_worn_edit_draws(name: str, tmp_path: Path) -> None:
    gan = ToyGan()
    before = {key: value.clone() for key, value in gan.network.state_dict().items()}
    change = edit(gan)
    done = drain(export(gan, change, tmp_path / name, "gan", strength=0.5))
    assert done.max_difference <= EXACT and done.bytes > 0 and done.proof.effect > 1e-3
    assert all(torch.equal(before[key], value) for key, value in gan.network.state_dict().items())
    again = generators.load(tmp_path / name, device="cpu")
    with change.applied(gan.network, 0.5):
        torch.testing.assert_close(drain(again.sample(SHOTS)), drain(gan.sample(SHOTS)), atol=1e-4, rtol=0)
    assert (drain(again.sample(SHOTS)) - drain(gan.sample(SHOTS))).abs().max() > 1e-3
    assert getattr(again, "critic", None) is not None
    card = tmp_path / name / "README.md" if name == "folder" else tmp_path / "x.md"
    assert set(done.files) == (FILES | {"proof.json", "README.md"} if name == "folder" else {name})
    for piece in (
        STATEMENT,
        "Glasses",
        "`text-unlearn`",
        "seed 7",
        "0123abcd",
        "strength 0.5",
        "stylegan2",
        "non-comm",
    ):
        assert piece in card.read_text()
    with pytest.raises(BadInput, match="--force"):
        written(tmp_path / name)
    written(tmp_path / name, force=True)


def test_files_hold_tensors_alone_under_the_published_names(tmp_path: Path) -> None:
    """Opened by a process that knows torch and safetensors and nothing of this project."""
    written(tmp_path / "out")
    program = (
        "import json, sys, torch\nfrom safetensors.torch import load_file\n"
        "nvlabs = load_file('out/nvlabs.safetensors')\n"
        "rosinality = torch.load('out/rosinality.pt', weights_only=True)\n"
        "assert not {'erase', 'generators'} & {name.split('.')[0] for name in sys.modules}\n"
        "print(json.dumps([sorted(nvlabs), sorted(rosinality['g_ema']), sorted(rosinality)]))"
    )
    said = subprocess.run([sys.executable, "-I", "-c", program], check=True, capture_output=True, cwd=tmp_path).stdout
    nvlabs, rosinality, parts = json.loads(said)
    names = generator_names(SHAPE)
    assert {"G_ema." + ours for ours in names.values()} <= set(nvlabs)
    assert set(names) <= set(rosinality)
    assert parts == ["d", "g_ema", "latent_avg"]


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_half_precision(dtype: str, tmp_path: Path) -> None:
    done = written(tmp_path / "out", dtype=dtype)
    wanted = {"fp16": torch.float16, "bf16": torch.bfloat16}[dtype]
    for name in ("generator.safetensors", "nvlabs.safetensors"):
        assert {tensor.dtype for tensor in load_file(tmp_path / "out" / name).values()} == {wanted}
    stored = torch.load(tmp_path / "out" / "rosinality.pt", weights_only=True)
    assert {tensor.dtype for tensor in stored["g_ema"].values()} == {wanted}
    assert 0 < done.max_difference < 0.1


@pytest.mark.parametrize("asked", [{}, {"rank": 6}, {"size": 0.024}])
def test_its_edit_goes_out_and_comes_back(asked: dict[str, Any], tmp_path: Path) -> None:
    gan = ToyGan()
    change = edit(gan)
    done = drain(export(gan, change, tmp_path / "edit", "edit", strength=0.5, **asked))
    found = text_encoder_edit.place(tmp_path / "edit")
    assert found is not None
    back = text_encoder_edit.read(found)
    assert back.about["concepts"] == ABOUT["concepts"]
    missing = sum(float((back.deltas[name] - delta / 2).square().sum()) for name, delta in change.deltas.items())
    share = (missing / sum(float((delta / 2).square().sum()) for delta in change.deltas.values())) ** 0.5
    assert share == pytest.approx(done.facts.get("error", 0.0), rel=1e-3, abs=1e-6)
    assert bool(asked) == (share > 0.01)
    assert "size" not in asked or found.stat().st_size <= 0.024e6
    assert "studio sample" in (tmp_path / "edit" / "README.md").read_text()


def test_an_edit_that_misses_most_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(Unproven, match="draws other pictures"):
        written(tmp_path / "out", "edit", error=0.999)
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_is_said_before_writing(tmp_path: Path) -> None:
    for name in FORMS:
        if name not in OF_GANS:
            with pytest.raises(BadInput, match="is a GAN, which goes out as edit or gan"):
                written(tmp_path / "out", name)
            with pytest.raises(BadInput, match="is a GAN, which goes out as edit or gan"):
                drain(export(ToyGan(), None, tmp_path / "out", name))
    with pytest.raises(BadInput, match="gan has no --rank"):
        written(tmp_path / "out", rank=3)
    with pytest.raises(BadInput, match="not written as .pt"):
        written(tmp_path / "out.pt", "edit")
    assert not list(tmp_path.iterdir())


def test_a_file_that_draws_something_else_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiled(checkpoint: Any, path: Path, dtype: torch.dtype) -> Path:
        checkpoint.generator.synthesis.block(4).const.data += 1
        return real(checkpoint, path, dtype)

    real = exports.write_rosinality
    monkeypatch.setattr(exports, "write_rosinality", spoiled)
    with pytest.raises(Unproven, match="rosinality.pt draws other pictures"):
        written(tmp_path / "x.pt")
    assert not list(tmp_path.iterdir())
