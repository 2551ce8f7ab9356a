"""An edited GAN goes out whole: folder, rosinality's file, NVlabs' names; each draws what the worn edit draws."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import generators
from erase.edit import Edit
from erase.errors import BadInput
from erase.model import Shot
from erase.work import drain
from generators.export import gan as exports
from tests.gan.toy import ToyGan

SHOTS = [Shot(seed) for seed in range(3)]


def edit(gan: ToyGan) -> Edit:
    torch.manual_seed(0)
    deltas = {name: 0.1 * torch.randn_like(w) for name, w in gan.network.named_parameters() if "conv" in name}
    return Edit(deltas, {"method": "test", "concepts": []})


@pytest.mark.parametrize("name", ["folder", "x.pt", "x.safetensors"])
def test_what_is_written_draws_what_the_worn_edit_draws(name: str, tmp_path: Path) -> None:
    gan = ToyGan()
    before = {key: value.clone() for key, value in gan.network.state_dict().items()}
    change = edit(gan)
    done = drain(exports.export_gan(gan, change, tmp_path / name, strength=0.5))
    assert done.max_difference <= exports.EXACT and done.bytes > 0
    assert all(torch.equal(before[key], value) for key, value in gan.network.state_dict().items())
    again = generators.load(tmp_path / name, device="cpu")
    with change.worn(gan.network, 0.5):
        torch.testing.assert_close(drain(again.sample(SHOTS)), drain(gan.sample(SHOTS)), atol=1e-4, rtol=0)
    assert (drain(again.sample(SHOTS)) - drain(gan.sample(SHOTS))).abs().max() > 1e-3
    assert getattr(again, "critic", None) is not None
    if name == "folder":
        assert set(done.files) == {
            "generator.safetensors", "critic.safetensors", "rosinality.pt", "nvlabs.safetensors", "proof.json",
        }  # fmt: skip
    with pytest.raises(BadInput, match="--force|force"):
        drain(exports.export_gan(gan, change, tmp_path / name))
    drain(exports.export_gan(gan, change, tmp_path / name, force=True))


def test_a_file_that_draws_something_else_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gan = ToyGan()

    def spoiled(checkpoint: exports.Checkpoint, path: Path) -> Path:
        checkpoint.generator.synthesis.block(4).const.data += 1
        return exports.write_rosinality(checkpoint, path)

    monkeypatch.setitem(exports.WRITERS, ".pt", spoiled)
    with pytest.raises(RuntimeError, match="other pictures"):
        drain(exports.export_gan(gan, edit(gan), tmp_path / "x.pt"))
    assert not list(tmp_path.iterdir())
