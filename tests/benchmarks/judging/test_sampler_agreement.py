"""Few denoising steps against many: what an agreement counts, when it holds, and that reports cite it or say so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import generators
from benchmarks.judging import sampler_agreement as kept
from benchmarks.judging.comparison import Comparison
from benchmarks.judging.judge import JudgeSettings, judge
from benchmarks.judging.predictions import Predictions, answers
from benchmarks.judging.sampler_agreement import Agreement, Sampler, compared, sampler_of
from benchmarks.probes.base import Seen
from benchmarks.speed import judge as judge_speed
from benchmarks.speed.judge import one_by_one, speed_judge
from benchmarks.speed.methods import Plan, counted
from benchmarks.suites.suite import Suite
from erase.errors import BadInput
from erase.work import drain
from tests.benchmarks.doubles import TINY, Painter, Reader, turned
from tests.toys.pipelines import toy_folder

FAST, SLOW = Sampler(name="dpm++", steps=12, guidance=4.0), Sampler(name="ddim", steps=100, guidance=4.0)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept, "KEPT", tmp_path / "agreements")
    kept.agreements.cache_clear()
    yield
    kept.agreements.cache_clear()


def sitting(wrong: int = 0) -> Comparison:
    """The painter's answers to its whole grid, the objects of the first `wrong` pictures called otherwise."""
    cells = TINY.shots(["Van_Gogh"])
    drawn = drain(answers(Painter(), [cell.shot for cell in cells], TINY, Reader()))
    swapped = drawn.numbers["object"].clone()
    swapped[:wrong] = swapped[:wrong].flip(1)
    found = Predictions(drawn.shots, {**drawn.numbers, "object": swapped})
    return Comparison(tuple(cells), found, found, TINY.targets(["Van_Gogh"]), TINY, Reader(), TINY.reading)


def test_labels_and_accuracies_are_compared_picture_by_picture() -> None:
    same = compared(("painter", "abc"), FAST, SLOW, {"firm": (sitting(), sitting())})
    assert (same.labels, same.n) == ({"style": 1.0, "object": 1.0}, 8)
    assert same.differences == {"firm": {"UA": 0.0, "IRA": 0.0, "CRA": 0.0}} and same.holds
    # The first two pictures are Ink_Art's at the one grid seed: half of what CRA counts.
    other = compared(("painter", "abc"), FAST, SLOW, {"firm": (sitting(2), sitting())})
    assert other.labels == {"style": 1.0, "object": 0.75}
    assert other.differences["firm"] == {"UA": 0.0, "IRA": 0.0, "CRA": pytest.approx(-0.5)}
    assert not other.holds and "does not agree" in other.sentence and other.hash != same.hash


def test_a_report_cites_its_agreement_or_says_that_there_is_none(tmp_path: Path) -> None:
    painter = Painter()
    report = drain(judge(painter, turned(painter, "Cats", "Dogs"), settings=JudgeSettings(probe=Reader()), suite=TINY))
    assert report.about["agreement"] is None
    assert "1 denoising steps: this sampler was not cross-checked" in report.about["deviations"][-1]
    found = compared(
        (painter.name, painter.fingerprint), sampler_of(painter, TINY), SLOW, {"a": (sitting(), sitting())}
    )
    (tmp_path / "agreements").mkdir()
    (tmp_path / "agreements" / "painter.json").write_text(found.model_dump_json(), encoding="utf-8")
    kept.agreements.cache_clear()
    report = drain(judge(painter, turned(painter, "Cats", "Dogs"), settings=JudgeSettings(probe=Reader()), suite=TINY))
    assert report.about["agreement"] == {"hash": found.hash, "found": found.sentence}
    assert not report.about["deviations"]
    loose = compared((painter.name, painter.fingerprint), found.sampler, SLOW, {"firm": (sitting(2), sitting())})
    (tmp_path / "agreements" / "painter.json").write_text(loose.model_dump_json(), encoding="utf-8")
    kept.agreements.cache_clear()
    assert drain(judge(painter, settings=JudgeSettings(probe=Reader()), suite=TINY)).about["deviations"] == [
        loose.sentence
    ]
    other = Painter()
    other.fingerprint = "another model"
    assert drain(judge(other, settings=JudgeSettings(probe=Reader()), suite=TINY)).about["agreement"] is None
    (tmp_path / "agreements" / "painter.json").write_text("{}", encoding="utf-8")
    with pytest.raises(BadInput, match="no agreement of samplers"):
        Agreement.read(tmp_path / "agreements" / "painter.json")


class Tint(Reader):
    """Reads any picture, of any size, by its colours."""

    def __call__(self, images: Tensor) -> Seen:
        colours = torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)
        return Seen((9 * colours[:, :3]).softmax(1), (9 * colours[:, 3:5]).softmax(1), colours)


def test_both_ways_of_judging_see_the_same_and_cost_what_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = generators.load(str(toy_folder(tmp_path / "toy")), device="cpu")
    suite: Suite = TINY.model_copy(update={"sampler": "ddim", "steps": 2, "guidance": 2.0, "seeds": (188,)})
    shots = [cell.shot for cell in suite.shots()]
    with counted(model.network.get_submodule("unet")) as forwards:
        single = drain(one_by_one(model, shots, suite, Tint()))
        assert forwards() == len(shots) * 2 * 2
    batched = drain(answers(model, shots, suite, Tint()))
    for name in ("style", "object", "features"):
        assert torch.allclose(single.numbers[name], batched.numbers[name], atol=2e-3)  # 8 bits a channel
    monkeypatch.setattr(judge_speed, "load_suite", lambda _: suite)
    monkeypatch.setattr(judge_speed, "tools", lambda *_: (Tint(), None))
    monkeypatch.setattr(judge_speed, "PUBLISHED_STEPS", 4)
    speed = drain(speed_judge(model, Plan(concept="Van Gogh")))
    assert (speed.ours_forwards, speed.published_forwards) == (4, 8)
    assert speed.agreement is not None and speed.agreement.n == 2 * len(suite.shots(["Van_Gogh"]))
    assert (speed.agreement.sampler.steps, speed.agreement.reference.steps) == (2, 4)
