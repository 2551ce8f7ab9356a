"""Whatever is done with a run is done with the model it was made from, loaded as it was then."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from safetensors import safe_open
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


def test_an_edit_of_another_job_is_not_taken_for_the_runs_own(studio: Studio, folder: Path, run: Path) -> None:
    assert studio("erase", folder, "--concept", "dog", "--method", "uce", "--out", run.with_name("other")).code == 0
    (run / "edit.safetensors").write_bytes((run.with_name("other") / "edit.safetensors").read_bytes())
    for words in (("judge", run), ("export", run, "--as", "edit", "--out", run.with_name("out"))):
        outcome = studio(*words)
        assert outcome.code == 2
        assert "says that it erases dog, but job.json of that run says cat" in outcome.err


def test_what_is_not_a_number_is_refused(studio: Studio, folder: Path, run: Path) -> None:
    edit = run / "edit.safetensors"
    with safe_open(edit, "pt") as file:
        about = file.metadata()
    whole = load_file(edit)
    name = next(iter(whole))
    for wrong, said in ((whole[name] * float("nan"), f"NaN or infinity in {name}"), (whole[name].int(), "torch.int32")):
        save_file({**whole, name: wrong}, edit, about)
        outcome = studio("judge", run)
        assert (outcome.code, said in outcome.err) == (2, True), outcome.err
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: tensor * float("inf") for name, tensor in load_file(weights).items()}, weights, {"format": "pt"})
    outcome = studio("sample", folder, *NEARBY[2:], "--out", run.with_name("x.png"))
    assert (outcome.code, "holds NaN or infinity in unet." in outcome.err) == (2, True), outcome.err


def test_a_prompt_that_is_cut_is_drawn_and_said(studio: Studio, folder: Path, tmp_path: Path) -> None:
    whole = studio("sample", folder, *NEARBY[2:], "--out", tmp_path / "x.png")
    words = ("--prompt", "cat " * 90 + "dog", *NEARBY[4:])
    long = studio("sample", folder, *words, "--out", tmp_path / "y.png")
    assert (whole.code, long.code) == (0, 0)
    assert "does not read" not in whole.err
    assert "does not read: '" in long.err and "dog'" in long.err


@pytest.mark.parametrize("method", ["uce", "esd", "ablate", "doco", "salun", "advunlearn"])
def test_a_caption_whose_concept_is_cut_off_is_refused(
    method: str, studio: Studio, folder: Path, tmp_path: Path
) -> None:
    for number, (line, code) in enumerate((("cat " * 90 + "beside {}", 2), ("{} beside " + "cat " * 90, 0))):
        captions = tmp_path / f"{number}.txt"
        captions.write_text(line)
        if method == "uce" or code == 2:  # what is only cut after its concept is taken; one method shows it
            words = ("--concept", "dog", "--method", method, "--templates", f"@{captions}")
            outcome = studio("erase", folder, *words, "--out", tmp_path / str(number))
            assert outcome.code == code, outcome.err
            assert ("does not fit into the" in outcome.err) == (code == 2)
            assert (tmp_path / str(number)).exists() == (code == 0)
