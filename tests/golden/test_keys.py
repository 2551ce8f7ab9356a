"""Hashes, seeds and names of cached files: what lies on people's disks must be found again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from benchmarks.judging import cache
from benchmarks.judging.judge import tools
from benchmarks.judging.predictions import remembered
from benchmarks.suites.suite import load_suite
from erase.edit import Edit, canonical
from erase.rng import number, stream
from erase.work import drain
from generators.loading import load
from generators.pocket.faces.data import rendered
from tests.benchmarks.doubles import TINY, Painter, Reader
from tests.golden.golden import Brittle, check
from tests.golden.golden import digest as bits

ABOUT = {"method": "uce", "base": "abc", "concepts": [{"name": "Cats"}], "seed": 3}


@pytest.fixture(autouse=True)
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def ramp(*sides: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Numbers that every machine makes alike."""
    return (torch.arange(float(torch.Size(sides).numel())) / 8 - 1).view(sides).to(dtype)


def test_hash_sum_and_file_of_an_edit(tmp_path: Path) -> None:
    one = Edit({"unet.a.weight": ramp(3, 4), "text.encoder.layers.0.b": ramp(5, dtype=torch.bfloat16)}, ABOUT)
    other = Edit({"unet.a.weight": ramp(3, 4) * 2, "unet.c": ramp(2, 2, 1)}, {**ABOUT, "seed": 4})
    total = one + 0.5 * other - other
    file = one.save(tmp_path / "edit.safetensors")
    check("keys/edit", {
        "hashes": [one.hash, other.hash, total.hash, Edit({}, {}).hash], "about": total.about,
        "file": bits(file.read_bytes()), "bytes": one.storage_bytes, "names": sorted(one.deltas),
        "canonical": [canonical(name) for name in ("text.encoder.x", "text_2.final_layer_norm.w", "unet.encoder.x")],
    })  # fmt: skip


def test_seeds_of_streams() -> None:
    purposes = ((), ("esd", "batch", 3), (3,), ("3",), ("cell", "Rust", "Cats"), ("é", -1))
    check("keys/streams", {
        str(purpose): [number(7, *purpose), bits(torch.randint(1 << 30, (4,), generator=stream(7, *purpose)))]
        for purpose in purposes
    })  # fmt: skip


def test_names_and_content_of_the_cache(cached: Path) -> None:
    key = cache.key(model="m", steps=3, guidance=None, list=[1, "x"], nested={"b": 2, "a": 1.5})
    path = cache.store(key, {"b": ramp(2, 3), "a": ramp(4, dtype=torch.float16)}, {"rows": [1, "é"]})
    with safe_open(path, framework="pt") as file:  # not its bytes: two keys of metadata have no fixed order
        metadata = dict(sorted(file.metadata().items()))
    suite = load_suite("pocket-canvas-small")
    reader, text = tools(suite, "cpu")
    shots = [cell.shot for cell in TINY.shots()]
    drain(remembered(Painter(), shots, TINY, Reader()))
    drawn = [name.name for name in cached.iterdir() if name.name != path.name]
    held = cache.load(Path(drawn[0]).stem)
    assert held is not None
    check("keys/cache", {
        "key": key, "file": path.name, "metadata": metadata, "read": cache.load(key),
        "probe": reader.sha256, "clip": text and text.sha256, "pictures": Brittle(drawn), "numbers": held[0],
        "shots": held[1],
    })  # fmt: skip


@pytest.mark.parametrize("name", ["pocket-sd", "pocket-gan"])
def test_fingerprints_of_bundled_models(name: str) -> None:
    check(f"keys/{name}", load(name, device="cpu", dtype="fp32").fingerprint)


def test_face_data_lie_where_they_lay(tmp_path: Path) -> None:
    """Today's key is made of two modules' source; whoever moves them has to freeze it, or faces are drawn anew."""
    found = {}
    for said, how in {"train": {}, "held-out": {"held_out": True}, "coded": {"coded": True}}.items():
        images, labels = rendered(2, tmp_path / said, start=5, workers=1, **how)
        found[said] = [[path.name for path in (tmp_path / said).iterdir()], bits(images), labels.int().tolist()]
    check("keys/faces", json.loads(json.dumps(found)))
