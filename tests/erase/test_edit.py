"""Edits: worn and taken off, added up, written down and read again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import save_file

from erase.edit import Edit, canonical
from erase.errors import BadInput, DiskFull
from erase.training.slices import select
from tests.toys.compare import same_bits, weights
from tests.toys.denoiser import Toy


def random_edit(toy: Toy, slice: str = "kv", seed: int = 0) -> Edit:
    known = dict(toy.network.named_parameters())
    draw = torch.Generator().manual_seed(seed)
    deltas = {name: torch.randn(known[name].shape, generator=draw) for name in select(toy.network, slice)}
    return Edit(deltas, {"method": "random", "seed": seed, "base": toy.fingerprint})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_worn_and_taken_off(dtype: torch.dtype) -> None:
    toy = Toy(dtype=dtype)
    before, edit = weights(toy.network), random_edit(toy)
    known = dict(toy.network.named_parameters())
    with edit.applied(toy.network, 0.5):
        for name, delta in edit.deltas.items():
            assert torch.equal(known[name], (before[name].float() + 0.5 * delta).to(dtype))
        with edit.applied(toy.network):
            pass
        name = next(iter(edit.deltas))
        assert torch.equal(known[name], (before[name].float() + 0.5 * edit.deltas[name]).to(dtype))
    assert same_bits(before, weights(toy.network))
    with pytest.raises(RuntimeError, match="midway"), edit.applied(toy.network):
        raise RuntimeError("midway")
    assert same_bits(before, weights(toy.network))
    with edit.applied(toy.network, 0.0):
        assert same_bits(before, weights(toy.network))


def test_strengths_compose(toy: Toy) -> None:
    one, other = random_edit(toy), random_edit(toy, seed=1)
    with (one * 0.5 + other).applied(toy.network, 2.0):
        together = weights(toy.network)
    with one.applied(toy.network), other.applied(toy.network, 2.0):
        nested = weights(toy.network)
    assert all(torch.allclose(together[name], nested[name], atol=1e-5) for name in nested)


def test_a_delta_that_does_not_fit_is_named_before_anything_changes(toy: Toy) -> None:
    before, edit = weights(toy.network), random_edit(toy)
    name = list(edit.deltas)[-1]
    wrong = Edit({**edit.deltas, name: torch.zeros(2, 3)}, {})
    with pytest.raises(BadInput, match=f"{name}.* 2×3"), wrong.applied(toy.network):
        pass
    strange = Edit({**edit.deltas, "unet.mid_block.attn": torch.zeros(1)}, {})
    with pytest.raises(BadInput, match="another kind of model.*unet.mid_block.attn"), strange.applied(toy.network):
        pass
    assert same_bits(before, weights(toy.network))


def test_algebra_is_over_the_union_of_names(toy: Toy) -> None:
    one, other = random_edit(toy, "kv"), random_edit(toy, "text", seed=1)
    total = one + other
    assert set(total.deltas) == set(one.deltas) | set(other.deltas)
    doubled = 2 * one + one
    assert all(torch.allclose(doubled.deltas[name], 3 * one.deltas[name]) for name in one.deltas)
    back = total - other
    assert all(torch.allclose(back.deltas[name], one.deltas[name]) for name in one.deltas)
    assert not any(bool(back.deltas[name].any()) for name in other.deltas)


def test_the_ledger_lists_parents_with_their_strengths(toy: Toy) -> None:
    one, other = random_edit(toy), random_edit(toy, seed=1)
    total = 0.5 * (one + other) + one
    assert [(p["about"]["seed"], p["strength"]) for p in total.about["parents"]] == [(0, 1.5), (1, 0.5)]
    assert total.about["base"] == toy.fingerprint
    undone = one + other - other
    assert [p["hash"] for p in undone.about["parents"]] == [one.hash]
    json.dumps(total.about)


def test_stored_names_carry_text_model_and_still_fit(toy: Toy) -> None:
    edit = random_edit(toy, "text[1]")
    assert all(name.startswith("text.text_model.encoder.layers.1.") for name in edit.deltas)
    before = weights(toy.network)
    with edit.applied(toy.network):
        assert not same_bits(before, weights(toy.network))
    assert canonical("text_2.encoder.layers.0.x") == "text_2.text_model.encoder.layers.0.x"
    assert canonical("text_2.text_projection.weight") == "text_2.text_projection.weight"
    assert canonical("unet.encoder.x") == "unet.encoder.x"


def test_saved_and_loaded(toy: Toy, tmp_path: Path) -> None:
    edit = random_edit(toy)
    loaded = Edit.load(edit.save(tmp_path / "deep" / "edit.safetensors"))
    assert same_bits(edit.deltas, loaded.deltas) and loaded.about == edit.about and loaded.hash == edit.hash
    assert random_edit(toy, seed=1).hash != edit.hash
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["edit.safetensors"]
    assert loaded.storage_bytes == sum(4 * delta.numel() for delta in edit.deltas.values())


def test_files_that_are_no_edit_are_refused_with_a_sentence(toy: Toy, tmp_path: Path) -> None:
    whole = random_edit(toy).save(tmp_path / "edit.safetensors").read_bytes()
    for name, content in (("cut", whole[:-100]), ("header", whole[:40]), ("empty", b""), ("text", b"hello, world" * 9)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BadInput, match="damaged, cut short or no edit"):
            Edit.load(tmp_path / name)
    save_file({"x": torch.zeros(2)}, tmp_path / "plain")
    with pytest.raises(BadInput, match="no provenance"):
        Edit.load(tmp_path / "plain")
    save_file({"x": torch.zeros(2)}, tmp_path / "newer", metadata={"edit": '{"format": 99, "about": {}}'})
    with pytest.raises(BadInput, match="newer version"):
        Edit.load(tmp_path / "newer")
    save_file({"x": torch.zeros(2)}, tmp_path / "garbled", metadata={"edit": '{"format": 1, "about": '})
    with pytest.raises(BadInput, match="damaged"):
        Edit.load(tmp_path / "garbled")
    for missing in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(BadInput, match="no edit file"):
            Edit.load(missing)


def test_a_failed_save_leaves_the_old_file(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage(NamedTuple):
        free: int

    path = random_edit(toy).save(tmp_path / "edit.safetensors")
    before = path.read_bytes()
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10))
    with pytest.raises(DiskFull, match="No disk space"):
        random_edit(toy, seed=1).save(path)
    monkeypatch.undo()
    with pytest.raises(TypeError):
        Edit(random_edit(toy, seed=1).deltas, {"not": object()}).save(path)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_the_same_edit_is_the_same_file_in_every_process(tmp_path):
    program = """
import sys, torch
from erase.edit import Edit
Edit({'b': torch.ones(2), 'a': torch.zeros(3)}, {'y': 1, 'x': 2}).save(sys.argv[1])
"""
    for seed in ("1", "2", "3"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", program, str(tmp_path / seed)], check=True, env=environment)
    assert len({(tmp_path / seed).read_bytes() for seed in ("1", "2", "3")}) == 1


@pytest.mark.parametrize(
    ("up", "down"),
    [((200_000, 1), (1, 200_000)), ((16, 2), (3, 16)), ((16, 0), (0, 16)), ((16,), (16,)), ((9000, 1), (1, 9000))],
)
def test_factors_are_compared_before_they_are_multiplied(tmp_path, up, down):
    header = {"edit": json.dumps({"format": 2, "about": {}})}
    tensors = {"unet.x.weight.up": torch.zeros(up), "unet.x.weight.down": torch.zeros(down)}
    save_file(tensors, tmp_path / "edit.safetensors", metadata=header)
    with pytest.raises(BadInput, match=r"edit\.safetensors is not an edit\. Its factors"):
        Edit.load(tmp_path / "edit.safetensors")


@pytest.mark.parametrize(
    "about",
    [
        [],
        {"parents": [1]},
        {"parents": {}},
        {"parents": [{"hash": "x", "strength": "much", "about": {}}]},
        {"parents": [{"hash": "x", "strength": 1, "about": [1]}]},
        {"concepts": 3},
        {"concepts": [3]},
        {"keep": [{"kind": "style"}]},
    ],
)
def test_a_provenance_that_nobody_could_read_is_refused(tmp_path, about):
    save_file({"x": torch.zeros(2)}, tmp_path / "e.safetensors", {"edit": json.dumps({"format": 1, "about": about})})
    with pytest.raises(BadInput, match="provenance"):
        Edit.load(tmp_path / "e.safetensors")
