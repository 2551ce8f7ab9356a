"""The first command on the models that come with the package, and the numbers promised of them."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from benchmarks.metrics.alignment import clip
from benchmarks.probes.open_probe import open_probe
from generators.loading import load
from generators.pocket.canvas.data import canvas_data
from generators.pocket.canvas.words import OBJECTS, THEMES, spoken

ROOT = Path(__file__).parents[2]


def studio(*words: object, cwd: Path) -> dict[str, Any]:
    """One command in a process and a folder of its own, and the JSON it prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "STUDIO_CACHE": str(cwd / "cache")}
    command = [sys.executable, "-m", "app", *map(str, words), "--json"]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], float]:
    """The demo's folder, what it printed, and how many seconds it took."""
    folder = tmp_path_factory.mktemp("demo")
    began = time.monotonic()
    shown = studio("demo", "--out", "demo", cwd=folder)
    return folder / "demo", shown, time.monotonic() - began


@pytest.mark.slow
def test_the_demo_leaves_a_run_a_grid_and_a_pipeline_within_five_minutes(
    demo: tuple[Path, dict[str, Any], float],
) -> None:
    folder, shown, seconds = demo
    assert seconds < 300
    assert shown["max_difference"] <= 1e-4
    for path in ("run/grid.png", "run/edit.safetensors", "pipeline/model_index.json", "pipeline/README.md"):
        assert (folder / path).is_file(), path


@pytest.mark.slow
def test_the_demo_erases_a_style_and_keeps_the_rest(demo: tuple[Path, dict[str, Any], float]) -> None:
    scores = demo[1]["scores"]
    assert scores["UA"]["baseline"] < 0.2
    assert scores["UA"]["value"] >= 0.9
    assert scores["IRA"]["value"] >= 0.85
    assert scores["CRA"]["value"] >= 0.85


@pytest.mark.slow
def test_pocket_sd_draws_what_it_is_asked(tmp_path: Path) -> None:
    scores = studio("judge", "pocket-sd", cwd=tmp_path)["scores"]
    assert scores["style_accuracy"]["n"] == 15 * 20
    assert scores["style_accuracy"]["value"] >= 0.95
    assert scores["object_accuracy"]["value"] >= 0.90


@pytest.fixture(scope="module")
def renders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensor, Tensor, Tensor]:
    """Two held-out pictures of each of the 300 cells [600 3 64 64] in [0, 1], with their styles and objects."""
    made = canvas_data(tmp_path_factory.mktemp("renders"), 2, held_out=True)
    images = torch.from_numpy(made.images).permute(0, 3, 1, 2).float() / 255
    return images, torch.from_numpy(made.styles), torch.from_numpy(made.objects)


def agrees(measured: float, told: float, n: int) -> bool:
    """Whether a share measured on n pictures is within three standard errors of what a header says."""
    return abs(measured - told) <= 3 * math.sqrt(told * (1 - told) / n) + 1 / n


@pytest.mark.parametrize("name", ["pocket-judge", "pocket-eye"])
def test_the_probes_read_held_out_renders_and_reconstructions(
    name: str, renders: tuple[Tensor, Tensor, Tensor]
) -> None:
    reader, (images, styles, objects) = open_probe(name), renders
    assert reader.held_out["n"] == 6000
    assert reader.held_out["style"] >= 0.99
    assert reader.held_out["object"] >= 0.95

    def right(pictures: Tensor) -> tuple[float, float]:
        seen = reader(pictures)
        by_style, by_object = seen.style_prob.argmax(1) == styles, seen.object_prob.argmax(1) == objects
        return float(by_style.float().mean()), float(by_object.float().mean())

    plain = right(images)
    assert agrees(plain[0], reader.held_out["style"], len(images))
    assert agrees(plain[1], reader.held_out["object"], len(images))
    model: Any = load("pocket-sd", device="cpu", dtype="fp32")
    with torch.no_grad():
        again = torch.cat([model.vae(part * 2 - 1).sample.clamp(-1, 1) / 2 + 0.5 for part in images.split(100)])
    rebuilt = right(again)
    print(f"{name}: renders {plain}, reconstructions {rebuilt}, PSNR {psnr(images, again):.1f} dB, n {len(images)}")
    # One point, and on so few pictures one standard error of a rare loss.
    assert plain[0] - rebuilt[0] <= 0.01 + 0.004 and plain[1] - rebuilt[1] <= 0.01 + 0.004


def psnr(one: Tensor, other: Tensor) -> float:
    """Mean peak signal-to-noise ratio of images in [0, 1], in dB."""
    return float((-10 * (one - other).square().mean(dim=(1, 2, 3)).log10()).mean())


def test_pocket_clip_names_held_out_renders(renders: tuple[Tensor, Tensor, Tensor]) -> None:
    with safe_open(ROOT / "assets" / "pocket-clip" / "open_clip_model.safetensors", "pt") as file:
        told = json.loads(file.metadata()["about"])["held_out"]
    promised = {name: 0.85 if name == "object" else 0.95 for name in told if name != "n"}
    assert set(promised) == {"style", "object", "eyeglasses", "hat", "beard", "bald", "smile", "blond hair"}
    assert not {name: told[name] for name, floor in promised.items() if told[name] < floor}
    text, (images, styles, objects) = clip("pocket-clip"), renders
    asked = {
        "style": ([f"An image in {spoken(style)} style." for style in THEMES], styles),
        "object": ([f"An image of {spoken(thing)}." for thing in OBJECTS], objects),
    }
    network: Any = text.model
    with torch.inference_mode():
        seen = torch.cat([network.encode_image((part - text.mean) / text.std) for part in images.split(100)])
    for name, (prompts, labels) in asked.items():
        with torch.inference_mode():
            said = network.encode_text(text.tokenize(prompts), normalize=True)
        measured = float(((seen @ said.T).argmax(1) == labels).float().mean())
        assert agrees(measured, told[name], len(images)), (name, measured, told[name])
