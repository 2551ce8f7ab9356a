"""A user's own suite: prompts in a TOML file, read by a CLIP that is asked for its labels."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.judging.judge import judge
from benchmarks.judging.predictions import _sure
from benchmarks.probes.base import Seen
from benchmarks.probes.clip import ELSE
from benchmarks.probes.open_probe import probe_of
from benchmarks.suites.suite import load_suite
from erase.errors import BadInput
from erase.work import drain
from tests.benchmarks.doubles import Painter, turned

MINE = """
name = "pets"
version = 1
probe = "clip:pocket-clip"
styles = ["Seed_Images"]
photo = "Seed_Images"
objects = ["burger", "kitten", "puppy", "steel tower"]
prompt = "a picture of one {object}"
seeds = [1, 2]
grid_seeds = [1, 2]

[prompts]
kitten = ["one {object}", "a picture of {object}"]

[words]
object = "An image of {}."
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    path = tmp_path / "pets.toml"
    path.write_text(MINE, encoding="utf-8")
    return path


def test_its_prompts_are_what_is_drawn(mine: Path) -> None:
    pets = load_suite(mine)
    prompts = {cell.shot.prompt for cell in pets.shots()}
    assert prompts == {
        "one kitten", "a picture of kitten", "a picture of one puppy", "a picture of one burger",
        "a picture of one steel tower",
    }  # fmt: skip
    assert len({cell.shot for cell in pets.shots()}) == 2 * (2 + 3)
    assert pets.target("Kitten").label == "kitten"
    with pytest.raises(BadInput, match="Did you mean 'puppy'"):
        pets.target("pupy")


def test_prompts_for_a_label_it_does_not_have_are_refused(mine: Path) -> None:
    mine.write_text(MINE.replace("kitten = [", "kitty = ["), encoding="utf-8")
    with pytest.raises(BadInput, match="kitty"):
        load_suite(mine)


def test_prompts_with_other_braces_are_refused(mine: Path) -> None:
    mine.write_text(MINE.replace('"one {object}"', '"one {thing}"'), encoding="utf-8")
    with pytest.raises(BadInput, match="no other braces"):
        load_suite(mine)


def test_an_unknown_clip_gets_the_nearest_guess(mine: Path) -> None:
    with pytest.raises(BadInput, match="Did you mean 'pocket-clip'"):
        probe_of(load_suite(mine, probe="clip:pocket-clap"))


def test_pocket_clip_finds_words_that_are_no_labels(mine: Path) -> None:
    """Renders of cats, dogs and towers, looked for as kitten, puppy and steel tower."""
    suite = pytest.importorskip("generators.pocket.canvas.draw", reason="drawing pictures needs the `data` extra")
    reader = probe_of(load_suite(mine))
    assert reader.objects == ("burger", "kitten", "puppy", "steel tower", ELSE)
    hits = total = 0
    for thing, word in (("Sandwiches", "burger"), ("Cats", "kitten"), ("Towers", "steel tower")):
        renders = [suite.picture("Seed_Images", thing, index, held_out=True) for index in range(12)]
        seen = reader(torch.stack([torch.from_numpy(each) for each in renders]).permute(0, 3, 1, 2) / 255)
        hits += int((seen.object_prob.argmax(1) == reader.objects.index(word)).sum())
        total += 12
    assert hits / total >= 0.7, f"{hits} of {total}"


def test_a_concept_outside_the_vocabulary_is_judged(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))
    pets = load_suite(mine)
    painter = Painter(pets)
    report = drain(judge(painter, turned(painter, "kitten", "puppy"), suite=pets))
    assert report.scores["UA"].n == 4
    assert report.scores["UA"].probe.startswith("clip:pocket-clip@")
    assert report.scores["CRA"].unscored  # one style is no other domain
    assert report.about["suite"]["name"] == "pets"


def test_something_else_is_nothing() -> None:
    """A picture that only the neutral phrase fits is invalid, one that a label fits is not, whatever its share."""
    reader = type("Reader", (), {"neutral": ELSE, "styles": ("a", ELSE), "objects": ("x", "y", ELSE)})()
    seen = Seen(torch.tensor([[0.9, 0.1]] * 2), torch.tensor([[0.3, 0.3, 0.4], [0.4, 0.3, 0.3]]), torch.zeros(2, 1))
    assert _sure(seen, reader).tolist() == [False, True]  # type: ignore[arg-type]
