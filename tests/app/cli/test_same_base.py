"""Whatever is done with a run is done with the model it was made from, loaded as it was then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors.torch import load_file, save_file

from app.models import source
from app.runs.run import open_run
from tests.app.conftest import Studio
from tests.generators.compvis import single_file
from tests.toys.pipelines import toy_folder

NEARBY = ("--strength", "0", "--prompt", "a cat", "--seeds", "0", "--steps", "2")


def shaken(folder: Path) -> None:
    """Other weights at the same path."""
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor + 0.01 for name, tensor in load_file(path).items()}, path, {"format": "pt"})


@pytest.fixture
def run(studio: Studio, folder: Path, tmp_path: Path) -> Path:
    made = studio("erase", folder, "--concept", "cat", "--method", "uce", "--out", tmp_path / "run")
    assert made.code == 0, made.err
    return tmp_path / "run"


@pytest.mark.parametrize(
    "words",
    [
        ("sample", "{run}", *NEARBY, "--out", "{out}.png"),
        ("judge", "{run}"),
        ("strength", "{run}"),
        ("look", "{run}"),
        ("attack", "{run}", "--concept", "cat", "--attack", "random"),
        ("export", "{run}", "--as", "pipeline", "--out", "{out}"),
        ("erase", "{run}", "--concept", "dog", "--method", "uce", "--out", "{out}"),
        ("erase", "{folder}", "--concept", "cat", "--method", "uce", "--out", "{run}"),
        ("reproduce", "{run}", "--out", "{out}"),
        ("sample", "{run}/edit.safetensors", *NEARBY, "--out", "{out}.png"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_weights_that_were_exchanged_are_noticed(
    words: tuple[str, ...], studio: Studio, folder: Path, run: Path, tmp_path: Path
) -> None:
    shaken(folder)
    out = tmp_path / "out"
    given = [word.format(run=run, folder=folder, out=out) for word in words]
    if words[0] in ("attack", "judge", "strength", "look"):
        given += ["--suite", "pocket-canvas-small"]
    outcome = studio(*given)
    assert outcome.code == 2, outcome.err
    assert "base model has changed since" in outcome.err or "made for other weights" in outcome.err
    assert not out.exists()


def test_a_run_is_loaded_with_the_config_it_was_made_with(studio: Studio, folder: Path, tmp_path: Path) -> None:
    config = toy_folder(tmp_path / "config", "sd2")
    pipe = StableDiffusionPipeline.from_pretrained(config, safety_checker=None, local_files_only=True)
    single_file(tmp_path / "model.safetensors", pipe, "sd2", {"modelspec.resolution": "16x16"})
    scheduler = DDIMScheduler.from_pretrained(config / "scheduler", prediction_type="epsilon")
    scheduler.save_pretrained(config / "scheduler")
    made = studio("erase", tmp_path / "model.safetensors", "--config", config, "--concept", "cat", "--method", "uce",
                  "--out", tmp_path / "run")  # fmt: skip
    assert made.code == 0, made.err
    exported = studio("export", tmp_path / "run", "--as", "pipeline", "--out", tmp_path / "out")
    assert exported.code == 0, exported.err
    written = json.loads((tmp_path / "out" / "scheduler" / "scheduler_config.json").read_text())
    assert written["prediction_type"] == "epsilon"
    stacked = studio("erase", tmp_path / "run", "--concept", "dog", "--method", "uce", "--out", tmp_path / "stacked")
    assert stacked.code == 0, stacked.err
    assert open_run(tmp_path / "stacked").job.config == str(config)
    other = studio("sample", tmp_path / "run", *NEARBY, "--config", folder, "--out", tmp_path / "x.png")
    assert other.code == 2
    assert f"was made with --config {config}" in other.err


def test_an_edit_without_a_record_of_its_base_is_taken(run: Path) -> None:
    what = source(str(run))
    assert what.run is not None

    class Model:
        fingerprint = "another"

    bare = open_run(run)
    bare.record.pop("base")  # type: ignore[attr-defined]
    bare.check_base(Model())  # type: ignore[arg-type]
    assert torch.is_tensor(next(iter(what.edit().deltas.values())))  # type: ignore[union-attr]
