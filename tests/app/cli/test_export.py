"""`studio export` beyond pipelines: what is listed, said and written, and files that are taken where a RUN is."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from generators.export import verify
from tests.app.conftest import Studio
from tests.generators import exports

PROMPT = "a cat in van gogh style"


@pytest.fixture
def run(studio: Studio, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run with a report and an attack, and stock libraries in this process."""
    monkeypatch.setattr(verify, "_stock", exports.here)
    monkeypatch.setattr(verify, "PROOF_STEPS", 2)
    out = tmp_path / "run"
    outcome = studio("erase", folder, "--concept", "Van Gogh", "--kind", "style", "--method", "uce", "--out", out)
    assert outcome.code == 0, outcome.err
    score = {"value": 0.25, "n": 8, "low": 0.07, "high": 0.59, "baseline": 1.0, "better": "low", "probe": "some-judge"}
    (out / "report.json").write_text(json.dumps({"version": 1, "scores": {"UA": score | {"value": 0.875}}}))
    (out / "attacks" / "paraphrase").mkdir(parents=True)
    (out / "attacks" / "paraphrase" / "report.json").write_text(json.dumps({"scores": {"ASR": score}}))
    return out


def test_the_list_says_what_and_why_not(studio: Studio, run: Path) -> None:
    listed = {entry["name"]: entry for entry in studio("export", run, "--as", "list", "--json").document["formats"]}
    assert [name for name, entry in listed.items() if not entry["possible"]] == ["plugin", "gan"]
    assert "cannot hold the U-Net" in listed["plugin"]["why_not"]
    text = studio("export", run, "--as", "list").out
    assert "cannot hold the U-Net" in text
    assert listed["single-file"]["opens"] == "diffusers, this studio"  # for programs know a model by its sizes
    assert "ComfyUI and InvokeAI do not open it" in text


@pytest.mark.parametrize("name", ("kohya-lora", "edit", "single-file"))
def test_an_exported_file_draws_what_the_run_draws(studio: Studio, run: Path, tmp_path: Path, name: str) -> None:
    out = tmp_path / "erased.safetensors"
    outcome = studio("export", run, "--as", name, "--out", out, "--json")
    assert outcome.code == 0, outcome.err
    document = outcome.document
    assert (document["format"], document["files"]) == (name, ["erased.safetensors"])
    assert document["max_difference"] >= 0
    assert "required" not in document["tolerance"]
    card = out.with_suffix(".md").read_text()
    for piece in ("| UA | 0.875 | 0.07 – 0.59 | 8 |", "## Attack: paraphrase", "| ASR | 0.25 |", "Van Gogh"):
        assert piece in card
    pictures = []
    for source in (run, out):
        picture = tmp_path / f"{source.name}.png"
        drawn = studio("sample", source, "--prompt", PROMPT, "--seeds", "3", "--steps", 2, "--out", picture)
        assert drawn.code == 0, drawn.err
        pictures.append(picture.read_bytes())
    assert name == "kohya-lora" or _pixels(pictures[0]) == _pixels(pictures[1])


def test_an_edit_file_can_be_stacked_on_and_exported_again(studio: Studio, run: Path, tmp_path: Path) -> None:
    half = tmp_path / "half.safetensors"
    outcome = studio("export", run, "--as", "edit", "--strength", 0.5, "--error", 0.01, "--out", half)
    assert outcome.code == 0, outcome.err
    assert "products of thin matrices" in outcome.out
    stacked = studio(
        "erase", half, "--concept", "cat", "--kind", "object", "--method", "uce", "--out", tmp_path / "stacked"
    )
    assert stacked.code == 0, stacked.err
    assert studio("export", half, "--as", "diffusers-lora", "--out", tmp_path / "lora").code == 0
    card = (tmp_path / "lora" / "README.md").read_text()
    assert "entering at strength 0.5" in card


def test_mistakes(studio: Studio, folder: Path, run: Path, tmp_path: Path) -> None:
    for words, said in (
        (("export", run, "--as", "plugin", "--out", tmp_path / "x"), "cannot hold the U-Net"),
        (("export", run, "--as", "gan", "--out", tmp_path / "x"), "changes a diffusion model"),
        (("export", run, "--as", "pipeline", "--out", tmp_path / "x", "--rank", 4), "has no --rank"),
        (("export", folder, "--as", "edit", "--out", tmp_path / "x"), "is a model without an edit"),
    ):
        outcome = studio(*words)
        assert outcome.code == 2
        assert said in outcome.err
    assert not (tmp_path / "x").exists()


def _pixels(png: bytes) -> bytes:
    return Image.open(io.BytesIO(png)).tobytes()
