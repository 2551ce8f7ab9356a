"""What a list reads of an edit's file is what `Edit` reads of it."""

from __future__ import annotations

from pathlib import Path

from app.runs.stored import stored
from erase.edit import Edit
from tests.toys.denoiser import Toy


def test_a_list_reads_the_same_without_torch(toy: Toy, tmp_path: Path) -> None:
    edit = Edit({name: weight.detach() for name, weight in toy.network.named_parameters()}, {"a": [1, "é"]})
    path = edit.save(tmp_path / "edit.safetensors")
    found = stored(path)
    assert found is not None
    assert (found.hash, found.about) == (edit.hash, edit.about)
    halves = Edit({name: delta.bfloat16() for name, delta in edit.deltas.items()}, {"a": 1})
    assert stored(halves.save(path)).hash == halves.hash  # type: ignore[union-attr]
    path.write_bytes(path.read_bytes()[:40])
    assert stored(path) is None
    assert stored(tmp_path / "none") is None
