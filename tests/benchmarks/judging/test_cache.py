"""The cache: believed only when whole, and shared by everything that asks for the same images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks.judging import cache
from benchmarks.judging.predictions import remembered
from erase.work import drain
from tests.benchmarks.doubles import TINY, Painter, Reader

SHOTS = [cell.shot for cell in TINY.shots()]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path))
    return tmp_path


def files(home: Path) -> list[Path]:
    return sorted(home.iterdir())


def test_what_was_stored_comes_back(home: Path) -> None:
    stored = {"a": torch.rand(3, 2), "b": torch.arange(4, dtype=torch.uint8), "none": torch.empty(0, 5)}
    cache.store("x", stored, ["é", 1, None])
    found = cache.load("x")
    assert found is not None
    assert found[1] == ["é", 1, None]
    assert all(torch.equal(found[0][name], tensor) for name, tensor in stored.items())
    assert [path.name for path in files(home)] == ["x.safetensors"]
    assert cache.load("y") is None


@pytest.mark.parametrize("keep", [0, 7, 100, 0.5, -1])
def test_a_truncated_file_is_not_believed(keep: float) -> None:
    path = cache.store("x", {"a": torch.rand(100)}, 1)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole)) if 0 < keep < 1 else int(keep)])
    assert cache.load("x") is None
    path.write_bytes(whole)
    assert cache.load("x") is not None


def test_a_flipped_bit_is_not_believed() -> None:
    path = cache.store("x", {"a": torch.rand(100)}, 1)
    spoiled = bytearray(path.read_bytes())
    spoiled[-5] ^= 1
    path.write_bytes(spoiled)
    assert cache.load("x") is None


def test_the_key_changes_with_every_part() -> None:
    assert cache.key(a=1, b="x") == cache.key(b="x", a=1)
    assert len({cache.key(a=1, b="x"), cache.key(a=2, b="x"), cache.key(a=1, b="y"), cache.key(a=1)}) == 4


def test_the_platforms_folder_without_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STUDIO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/some/where")
    monkeypatch.setattr("sys.platform", "linux")
    assert cache.folder() == Path("/some/where/concept-erasure-studio")


def test_images_are_drawn_once_and_only_what_is_missing() -> None:
    first, second = Painter(), Painter()
    before, note = drain(remembered(first, SHOTS[:4], TINY, Reader()))
    assert (len(first.drawn), note) == (4, "0 of 4 unedited images came from the cache")
    again, note = drain(remembered(second, list(reversed(SHOTS)), TINY, Reader()))
    assert second.drawn == list(reversed(SHOTS[4:]))
    assert note == f"4 of {len(SHOTS)} unedited images came from the cache"
    assert torch.equal(again.of(SHOTS[:4]).numbers["features"], before.numbers["features"])


@pytest.mark.parametrize("damage", [lambda whole: whole[: len(whole) // 2], lambda whole: b""])
def test_a_damaged_cache_is_rebuilt(home: Path, damage) -> None:
    before, _ = drain(remembered(Painter(), SHOTS, TINY, Reader()))
    [path] = files(home)
    path.write_bytes(damage(path.read_bytes()))
    painter = Painter()
    again, _ = drain(remembered(painter, SHOTS, TINY, Reader()))
    assert len(painter.drawn) == len(SHOTS)
    assert all(torch.equal(again.numbers[name], before.numbers[name]) for name in ("style", "features", "spread"))
    assert cache.load(path.stem) is not None


def test_whatever_decides_the_numbers_decides_the_file(home: Path) -> None:
    drain(remembered(Painter(), SHOTS, TINY, Reader()))
    other_model, other_probe = Painter(), Reader()
    other_model.fingerprint, other_probe.sha256 = "another", "1" * 64
    drain(remembered(other_model, SHOTS, TINY, Reader()))
    drain(remembered(Painter(), SHOTS, TINY, other_probe))
    drain(remembered(Painter(), SHOTS, TINY.model_copy(update={"guidance": 3.0}), Reader()))
    drain(remembered(Painter(), SHOTS, TINY.model_copy(update={"encode": "jpeg"}), Reader()))
    assert len(files(home)) == 5


def test_another_prompt_is_another_image() -> None:
    drain(remembered(Painter(), SHOTS, TINY, Reader()))
    painter = Painter()
    drain(remembered(painter, [replace(SHOTS[0], prompt="Dogs"), *SHOTS[1:]], TINY, Reader()))
    assert [shot.prompt for shot in painter.drawn] == ["Dogs"]


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").write_text("in the way")
    monkeypatch.setenv("STUDIO_CACHE", str(home / "file"))
    found, note = drain(remembered(Painter(), SHOTS, TINY, Reader()))
    assert len(found) == len(SHOTS)
    assert "could not be stored" in note
