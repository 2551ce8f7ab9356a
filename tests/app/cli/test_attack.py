"""`studio attack`: on pocket-sd, where the answers are known beforehand; and what it says to mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import generators
from app.runs.job import Job
from app.runs.run import create
from erase.concept import Concept
from erase.edit import Edit
from tests.app.conftest import Studio

pytestmark = pytest.mark.skipif(
    not (generators.assets() / "pocket-sd" / "unet" / "config.json").is_file(), reason="the bundled model is missing"
)
FEW = ("--rows", 4, "--no-utility", "--json")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))


def run_with(folder: Path, change: dict[str, torch.Tensor]) -> Path:
    """A finished RUN of pocket-sd whose edit is this one."""
    job = Job(model="pocket-sd", concepts=(Concept(name="Van Gogh", kind="style"),), method="uce")
    edit = Edit(change, {"method": "planted", "concepts": [{"name": "Van Gogh"}]})
    create(folder, job, {}).finish(edit, steps=1, seconds=0.1)
    return folder


def hidden() -> dict[str, torch.Tensor]:
    """An edit of the word vectors of "van gogh" alone: each becomes the vector of another style's name."""
    model = generators.load("pocket-sd", device="cpu")
    table, name = model.vocabulary, "text.text_model.embeddings.token_embedding.weight"
    delta = torch.zeros_like(table)
    for own, other in zip(model.tokens("van gogh"), model.tokens("pop art") * 2, strict=False):
        delta[own] = table[other] - table[own]
    return {name: delta}


def test_the_unedited_model_needs_no_attack(studio: Studio) -> None:
    told = studio("attack", "pocket-sd", "--concept", "van_gogh", "--attack", "seed-search", "--budget", 1,
                  "--rows", 10, "--json")  # fmt: skip
    assert told.code == 0, told.err
    scores = told.document["scores"]
    assert scores["pre_ASR"]["n"] == 10
    assert scores["ASR"]["value"] >= scores["pre_ASR"]["value"] >= 0.9
    assert scores["FID"]["value"] is None
    assert "has no edit" in scores["FID"]["note"]


def test_an_edit_that_changes_nothing_leaves_the_baseline(studio: Studio, tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", {"unet.conv_in.bias": torch.zeros(96)})
    told = studio("attack", run, "--concept", "Van Gogh", "--attack", "random", "--budget", 1, *FEW)
    assert told.code == 0, told.err
    score = told.document["scores"]["pre_ASR"]
    assert (score["value"], score["baseline"]) == (1.0, 1.0)
    assert told.document["broken"] == []


def test_an_edit_that_hides_the_name_is_broken_by_other_words(studio: Studio, tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", hidden())
    words = ("attack", run, "--concept", "Van Gogh", "--attack", "paraphrase", "--budget", 3, *FEW)
    told = studio(*words)
    assert told.code == 0, told.err
    scores, broken = told.document["scores"], told.document["broken"]
    assert scores["pre_ASR"]["value"] == 0.0
    assert scores["ASR"]["value"] > 0.5
    assert len(broken) == scores["ASR"]["value"] * scores["ASR"]["n"]
    for each in broken:
        assert Path(each["image"]).is_file()
        assert each["adversarial"] != each["prompt"]
    (folder,) = (run / "attacks").iterdir()
    assert folder.name.startswith("paraphrase-Van_Gogh-3-")
    assert {path.name for path in folder.iterdir()} >= {"report.json", "attack.jsonl", "attack.png", "images"}
    stored = json.loads((folder / "report.json").read_text())
    assert (folder / stored["broken"][0]["image"]).is_file()
    # Asked again it is opened, not done again; with other knobs in the same folder it is refused.
    before = (folder / "attack.jsonl").read_bytes()
    assert studio(*words).document["scores"] == told.document["scores"]
    assert (folder / "attack.jsonl").read_bytes() == before
    other = studio(*words, "--near", 2, "--out", folder)
    assert other.code == 2
    assert "holds another attack: its knobs" in other.err


def test_attacks_are_listed_and_explained(studio: Studio) -> None:
    names = {attack["name"] for attack in studio("attacks", "--json").document["attacks"]}
    assert names >= {"unlearndiffatk", "hard-prompt", "ring-a-bell", "inversion", "random", "seed-search", "paraphrase"}
    knobs = {knob["name"] for knob in studio("attacks", "unlearndiffatk", "--json").document["knobs"]}
    assert knobs >= {"budget", "tokens", "lr", "weight_decay"}
    assert "optimiser steps per row" in studio("attack", "--attack", "unlearndiffatk", "--help").out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--concept", "Rembrandt", "--attack", "random"), "Unknown concept of suite"),
        (("--concept", "Van Goch", "--attack", "random"), "Did you mean 'Van_Gogh'"),
        (("--concept", "Van Gogh", "--attack", "randm"), "Did you mean 'random'"),
        (("--concept", "Van Gogh", "--attack", "random", "--budget", "0"), "budget = 0 is not valid"),
        (("--concept", "Van Gogh", "--attack", "random", "--budget", "much"), "paper, standard, quick"),
        (("--concept", "Van Gogh", "--attack", "random", "--rows", "0"), "--rows: 0 is not valid"),
        (("--concept", "Van Gogh", "--attack", "random", "--prompts", "none.csv"), "none.csv cannot be read"),
        (("--concept", "Van Gogh", "--attack", "random", "--lr", "3"), "Unknown option of `studio attack`"),
    ],
)
def test_mistakes_are_one_sentence(studio: Studio, words: tuple[str, ...], says: str) -> None:
    told = studio("attack", "pocket-sd", *words)
    assert told.code == 2
    *before, sentence = told.err.strip().splitlines()
    assert says in sentence
    assert told.out == ""
    assert all(line.startswith("Opening pocket-sd") for line in before)


def test_prompts_that_do_not_fit_are_named_and_nothing_is_written(studio: Studio, tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt\n" + "a van gogh cat " * 12 + "\n")
    told = studio("attack", "pocket-sd", "--concept", "Van Gogh", "--attack", "random", "--prompts", tmp_path / "p.csv",
                  "--out", tmp_path / "out")  # fmt: skip
    assert told.code == 2
    assert "No row fits (row 1 has 48 tokens)" in told.err
    assert not list(tmp_path.glob("out/*.json*"))
