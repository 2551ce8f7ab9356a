"""The whole journey through the command line on a tiny random model: erase, look, stack, reproduce, carry away."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

import generators
from app.runs.run import open_run
from benchmarks.pictures.grid import GAP
from erase.edit import Edit
from erase.model import Shot
from erase.work import drain
from tests.app.conftest import Studio

GOGH = ("--concept", "Van_Gogh", "--kind", "style", "--keep", "Cats", "Dogs", "--method", "uce")
QUICK_ESD = ("--method", "ESD", "--iterations", "6", "--steps", "3", "--seeds", "2", "--variant=x-strict")


@pytest.fixture
def run(studio: Studio, folder: Path, tmp_path: Path) -> Path:
    """A style erased from the tiny model."""
    made = tmp_path / "runs" / "gogh"
    outcome = studio("erase", folder, *GOGH, "--out", made)
    assert outcome.code == 0, outcome.err
    assert "studio judge" in outcome.out
    return made


def test_the_edit_says_what_it_is(run: Path, folder: Path) -> None:
    about = Edit.load(run / "edit.safetensors").about
    assert [concept["name"] for concept in about["concepts"]] == ["Van Gogh"]
    assert [concept["name"] for concept in about["keep"]] == ["Cats", "Dogs"]
    assert about["method"] == "uce"
    assert about["base"] == generators.load(folder).fingerprint
    record = json.loads((run / "job.json").read_text())
    assert record["typed"].startswith("studio erase ")
    assert record["job"]["model"] == str(folder)
    assert record["dtype"] == "fp32"


def test_a_sheet_has_a_row_per_prompt_and_strength_nothing_is_the_base(
    studio: Studio, run: Path, folder: Path, tmp_path: Path
) -> None:
    drawing = ("--prompt", "a cat", "--prompt", "van gogh", "--seeds", "3:5", "--steps", "2")
    for name, source, more in (
        ("base", folder, ()),
        ("none", run, ("--strength", "0")),
        ("full", run, ()),
        ("one", run, ("--strength", "1.0")),
    ):
        outcome = studio("sample", source, *drawing, *more, "--out", tmp_path / f"{name}.png", "--json")
        assert outcome.code == 0, outcome.err
        assert outcome.document["seeds"] == [3, 4]
    pixels = {name: Image.open(tmp_path / f"{name}.png").tobytes() for name in ("base", "none", "full", "one")}
    assert pixels["base"] == pixels["none"]
    assert pixels["full"] == pixels["one"] != pixels["base"]
    sheet = Image.open(tmp_path / "base.png")
    assert sheet.text["prompts"] == "a cat\nvan gogh"
    [image] = drain(generators.load(folder).sample([Shot(4, "van gogh")], steps=2))
    left, top = 16 + 2 * GAP, sheet.height - 16 - GAP  # of the last row and column
    last = sheet.crop((left, top, left + 16, top + 16))
    bottom_right = torch.tensor(list(last.tobytes())).view(16, 16, 3).permute(2, 0, 1)
    torch.testing.assert_close(bottom_right / 255, image, atol=0.6 / 255, rtol=0)


def test_seeds_alone_draw_the_empty_prompt(studio: Studio, folder: Path, tmp_path: Path) -> None:
    for name, words in (("alone", ("--seeds", "7")), ("empty", ("--seeds", "7", "--prompt", ""))):
        assert studio("sample", folder, *words, "--steps", "1", "--out", tmp_path / f"{name}.png").code == 0
    assert Image.open(tmp_path / "alone.png").tobytes() == Image.open(tmp_path / "empty.png").tobytes()


def test_erasing_from_a_run_stacks(studio: Studio, run: Path, folder: Path, tmp_path: Path) -> None:
    outcome = studio("erase", run, "--concept", "Cats", *QUICK_ESD, "--out", tmp_path / "both", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.document["job"]["model"] == str(folder)
    parent, both = (Edit.load(path / "edit.safetensors") for path in (run, tmp_path / "both"))
    assert outcome.document["job"]["parents"] == [parent.hash]
    assert [concept["name"] for concept in both.about["concepts"]] == ["Van Gogh", "Cats"]
    assert [entry["about"]["method"] for entry in both.about["parents"]] == ["uce", "esd"]
    assert both.about["parents"][0]["hash"] == parent.hash
    (run / "edit.safetensors").unlink()  # the stacked run carries all it needs
    again = studio("reproduce", tmp_path / "both", "--out", tmp_path / "again")
    assert again.code == 0, again.err
    assert "bit-identical" in again.out


def test_reproducing_tells_equal_from_unequal(studio: Studio, run: Path, tmp_path: Path) -> None:
    same = studio("reproduce", run, "--out", tmp_path / "same", "--json")
    assert same.code == 0
    assert same.document["identical"] is True
    assert same.document["max_difference"] == 0
    edit = Edit.load(run / "edit.safetensors")
    Edit({name: delta + 1e-3 for name, delta in edit.deltas.items()}, edit.about).save(run / "edit.safetensors")
    other = studio("reproduce", run, "--out", tmp_path / "other", "--json")
    assert other.code == 1
    assert other.document["error"]["kind"] == "not-reproduced"
    assert other.document["max_difference"] == pytest.approx(1e-3, rel=1e-3)
    assert studio("reproduce", run, "--out", run).code == 2


def test_runs_are_listed_and_finished_ones_not_resumed(studio: Studio, run: Path, tmp_path: Path) -> None:
    listed = studio("runs", tmp_path, "--json").document["runs"]
    assert [(entry["status"], entry["title"]) for entry in listed] == [("done", "Van Gogh by uce")]
    assert "Van Gogh by uce" in studio("runs", tmp_path).out
    assert "nothing to resume" in studio("resume", run).out
    (tmp_path / "empty").mkdir()
    assert "No runs" in studio("runs", tmp_path / "empty").out


def test_the_exported_pipeline_is_proven(studio: Studio, run: Path, tmp_path: Path) -> None:
    formats = studio("export", run, "--as", "list", "--json").document["formats"]
    possible = {entry["name"]: entry["possible"] for entry in formats}
    assert possible == {
        "pipeline": True, "single-file": True, "kohya-lora": True, "diffusers-lora": True, "plugin": False,
        "edit": True, "gan": False,
    }  # fmt: skip
    assert all(entry["why_not"] for entry in formats if not entry["possible"])
    outcome = studio("export", run, "--as", "Pipeline", "--out", tmp_path / "erased", "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.document["max_difference"] < 1e-4
    assert (tmp_path / "erased" / "model_index.json").is_file()
    card = (tmp_path / "erased" / "README.md").read_text()
    assert "Van Gogh" in card
    assert "uce" in card
    again = studio("export", run, "--as", "pipeline", "--out", tmp_path / "erased")
    assert again.code == 2
    assert "--force" in again.err
    wrong = studio("export", run, "--as", "pipelin", "--out", tmp_path / "x")
    assert wrong.code == 2
    assert "Did you mean 'pipeline'?" in wrong.err
    assert "Add --out" in studio("export", run, "--as", "pipeline").err


def test_names_are_read_loosely_and_knobs_in_any_place(studio: Studio, folder: Path, tmp_path: Path) -> None:
    words = ("erase", "--kept_rows", "Tail", "--rest=false", folder, "--concept", "cats", "--method", "UCE")
    outcome = studio(*words, "--preset", "PAPER", "--out", tmp_path / "run", "--json")
    assert outcome.code == 0, outcome.err
    knobs = outcome.document["job"]["knobs"]
    assert (knobs["kept_rows"], knobs["rest"], knobs["rows"]) == ("tail", False, "last")
    assert open_run(tmp_path / "run").job.method == "uce"


def test_json_is_one_document_and_progress_stays_on_stderr(studio: Studio, folder: Path, tmp_path: Path) -> None:
    outcome = studio("erase", folder, "--concept", "Cats", *QUICK_ESD, "--out", tmp_path / "run", "--json")
    assert outcome.document["status"] == "done"
    assert outcome.document["edit"]["hash"] == Edit.load(tmp_path / "run" / "edit.safetensors").hash
    assert outcome.document["seconds"] > 0
    assert isinstance(outcome.document["peak_memory_bytes"], int)


def test_nothing_asks_the_network_unless_told_to(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    studio("sample", "nowhere", "--online", "--prompt", "x", "--out", "wrong.jpg")
    assert "HF_HUB_OFFLINE" not in os.environ
    studio("sample", "nowhere", "--prompt", "x", "--out", "wrong.jpg")
    assert os.environ["HF_HUB_OFFLINE"] == "1"
