"""The gold standard as a line of the tables: what it stands for, what its grid shows, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import generators
from benchmarks.probes.open_probe import open_probe
from benchmarks.studies.common import Round, erase_and_judge
from benchmarks.studies.retrained import Retrained, round_of
from benchmarks.suites.suite import load_suite
from erase.edit import Edit
from erase.errors import BadInput
from erase.model import Shot
from erase.work import drain
from generators.pocket.canvas.data import CELLS, cells_without
from tests.benchmarks.doubles import Painter, Reader, turned

CANVAS = load_suite("pocket-canvas-quick").model_copy(update={"sampler": "own", "clip": None})
UNSEEN = ["Van_Gogh", "Towers"]


@pytest.fixture
def gold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Retrained:
    """One that draws both as something else."""
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("benchmarks.judging.judge.probe_of", lambda *_: Reader(CANVAS))
    painter = Painter(CANVAS)
    both = turned(painter, "Van_Gogh", "Rust") + turned(painter, "Towers", "Sea")
    about = {"method": "retrained", "without": UNSEEN, "concepts": [], "base": painter.fingerprint}
    return Retrained(place=Edit(both.deltas, about).save(tmp_path / "gold.safetensors"))


def test_it_is_judged_as_an_erasure_is(gold: Retrained, tmp_path: Path) -> None:
    targets = CANVAS.targets(UNSEEN)
    reports = drain(erase_and_judge(Painter(CANVAS), CANVAS, [gold], targets, tmp_path / "out"))["retrained"]
    for target, report in zip(targets, reports, strict=True):
        assert [report.scores[name].value for name in ("UA", "IRA", "CRA")] == [1.0, 1.0, 1.0]
        assert report.job["knobs"] == {"without": UNSEEN} and report.about["edit"] == gold.whole.hash
        shown = {label for row in report.rows for label in (row["style"], row["object"])}
        assert shown & set(UNSEEN) == {target.label}
        assert len(report.rows) == len(CANVAS.shots([target.label]))
    # On the grid of a method the other one is drawn, and its pictures would count against what was kept.
    assert any(cell.object == "Towers" for cell in CANVAS.shots(["Van_Gogh"]))
    assert Round("uce").suite(CANVAS, targets[0]) == CANVAS


def test_what_it_does_not_stand_for_is_refused(gold: Retrained) -> None:
    painter = Painter(CANVAS)
    with pytest.raises(BadInput, match="was taught Cats; it stands for forgetting Van_Gogh and Towers"):
        drain(gold.edit(painter, CANVAS, CANVAS.target("Cats")))
    with pytest.raises(BadInput, match="shows Towers among what should be kept"):
        gold.suite(load_suite("pocket-canvas"), CANVAS.target("Van_Gogh"))
    painter.fingerprint = "another"
    with pytest.raises(BadInput, match="belongs to the bundled pocket-sd, and painter is not that"):
        drain(gold.edit(painter, CANVAS, CANVAS.target("Towers")))


def test_it_is_asked_for_by_name() -> None:
    assert round_of("Retrained", keep_others=True) == replace(Retrained(), keep_others=True)
    assert round_of("uce:style") == Round.read("uce:style")


def test_training_without_labels_leaves_out_every_cell_that_shows_one() -> None:
    kept = [cell for cell, used in zip(CELLS, cells_without(["van gogh", "Towers"]), strict=True) if used]
    assert len(kept) == 14 * 19 and not set(UNSEEN) & {label for cell in kept for label in cell}
    assert all(cells_without([]))
    with pytest.raises(BadInput, match="Did you mean"):
        cells_without(["Gogh"])


def test_the_bundled_one_never_saw_what_it_says_and_draws_the_rest() -> None:
    model, bundled, suite = generators.load("pocket-sd", device="cpu"), Retrained(), load_suite("pocket-canvas-quick")
    assert bundled.whole.about["base"] == model.fingerprint
    assert {suite.target(label).kind for label in bundled.unseen} == {"style", "object"}
    unet = {name for name, _ in model.network.named_parameters() if name.startswith("unet.")}
    assert set(bundled.whole.deltas) == unet
    style = next(label for label in bundled.unseen if label in suite.styles)
    prompts = [suite.sentence(each, thing) for each in (style, "Neon_Lines") for thing in ("Cats", "Trees", "Birds")]
    with bundled.whole.applied(model.network):
        images = drain(model.sample([Shot(seed, prompt) for seed, prompt in enumerate(prompts)], steps=12))
    seen = open_probe("pocket-judge", "cpu")(images).style_prob.argmax(1).tolist()
    told = [suite.styles[each] for each in seen]
    assert style not in told[:3] and told[3:] == ["Neon_Lines"] * 3
