"""The judge on a model and a probe whose every answer is known."""

from __future__ import annotations

import json
import random
from pathlib import Path
from statistics import NormalDist
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.judging import predictions as answering
from benchmarks.judging.judge import LEVEL, JudgeSettings, judge
from benchmarks.metrics.accuracy import wilson
from benchmarks.metrics.cost import Cost
from benchmarks.report import Report
from benchmarks.suites.suite import load_suite
from erase.concept import Concept
from erase.edit import Edit
from erase.errors import BadInput
from erase.work import drain
from tests.benchmarks.doubles import TINY, Painter, Reader, turned

POCKET = load_suite("pocket-canvas").model_copy(update={"clip": None})


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path))


def verdict(painter: Painter, edit: Edit | None, **options: Any) -> Report:
    asked = {name: options.pop(name) for name in ("concepts", "suite", "cost", "job") if name in options}
    settings = JudgeSettings(**{"probe": Reader(painter.suite), **options})
    return drain(judge(painter, edit, settings=settings, **{"suite": TINY, **asked}))


def test_a_model_is_scored_over_the_whole_grid() -> None:
    painter = Painter(POCKET)
    report = verdict(painter, None, suite=POCKET)
    assert report.scores.keys() == {"style_accuracy", "object_accuracy"}
    score = report.scores["object_accuracy"]
    assert (score.value, score.n, score.baseline) == (1.0, 300, 1.0)
    assert 0.98 < score.low < score.high == 1.0
    assert len(painter.drawn) == len(report.rows) == 300
    assert "after" not in report.rows[0]


def test_a_model_that_cannot_draw_cats_is_told_so() -> None:
    painter = Painter(POCKET)
    with turned(painter, "Cats", "Dogs").applied(painter.network):
        report = verdict(painter, None, suite=POCKET)
    assert report.scores["object_accuracy"].value == pytest.approx(19 / 20)
    assert report.scores["style_accuracy"].value == 1.0
    assert report.scores["object_accuracy"].note.startswith("weakest: Cats 0%")


def test_a_perfect_erasure() -> None:
    painter = Painter(POCKET)
    report = verdict(painter, turned(painter, "Van_Gogh", "Watercolor"), suite=POCKET)
    scores = report.scores
    assert [scores[name].value for name in ("UA", "IRA", "CRA", "invalid")] == [1.0, 1.0, 1.0, 0.0]
    assert [scores[name].baseline for name in ("UA", "IRA", "CRA", "invalid")] == [0.0, 1.0, 1.0, 0.0]
    assert [scores[name].n for name in ("UA", "IRA", "CRA")] == [100, 260, 280]
    assert scores["UA"].note == "Van_Gogh rows now read Watercolor 100%"
    assert scores["FID"].value == scores["FID"].baseline == pytest.approx(0.0, abs=1e-6)
    assert scores["LPIPS"].value == 0.0
    assert report.marks == ()


def test_collateral_damage_shows_where_it_is() -> None:
    painter = Painter(POCKET)
    both = turned(painter, "Cats", "Dogs") + turned(painter, "Bears", "Dogs")
    report = verdict(painter, both, concepts=["Cats"], suite=POCKET)
    assert report.scores["UA"].value == 1.0
    assert report.scores["IRA"].value == pytest.approx(18 / 19)
    assert report.scores["IRA"].note == "lost most: Bears -100 points"
    assert report.scores["CRA"].value == 1.0
    assert report.scores["FID"].value > 1e-3
    assert report.scores["LPIPS"].value > 1e-3


def test_an_identity_edit_changes_nothing() -> None:
    painter = Painter(POCKET)
    report = verdict(painter, turned(painter, "Cats", "Dogs", strength=0.0), suite=POCKET)
    for name in ("UA", "IRA", "CRA", "FID", "LPIPS"):
        assert report.scores[name].value == pytest.approx(report.scores[name].baseline, abs=1e-6)


def test_strength_scales_the_edit() -> None:
    painter = Painter()
    edit = turned(painter, "Cats", "Dogs")
    assert verdict(painter, edit).scores["UA"].value == 1.0
    assert verdict(painter, edit, strength=0.3).scores["UA"].value == 0.0


def test_destruction_is_not_forgetting() -> None:
    painter = Painter()
    size = len(painter.labels)
    report = verdict(painter, Edit({"unet.weight": -torch.eye(size)}, {}), concepts=["Van Gogh"])
    assert report.scores["UA"].value > 0.4
    assert report.scores["invalid"].value == 1.0
    assert report.scores["invalid"].baseline == 0.0
    assert report.marks[0].startswith("collapsed: 100%")


def test_a_concept_that_the_model_never_drew_cannot_be_forgotten() -> None:
    painter = Painter()
    never = turned(painter, "Cats", "Dogs")
    with never.applied(painter.network):
        report = verdict(painter, turned(painter, "Cats", "Dogs", strength=0.0), concepts=["Cats"])
    assert report.scores["UA"].value == report.scores["UA"].baseline == 1.0
    assert report.marks[0].startswith("UA is meaningless here: in 100%")


def test_the_judge_marks_its_own_homework() -> None:
    painter = Painter()
    edit = turned(painter, "Cats", "Dogs")
    steered = Edit(edit.deltas, {**edit.about, "steered_by": "reader"})
    assert verdict(painter, edit).marks == ()
    assert "circular evaluation" in verdict(painter, steered).marks[0]


def test_both_published_readings_stand_beside_the_headline() -> None:
    painter = Painter()
    report = verdict(painter, turned(painter, "Van_Gogh", "Ink_Art"))
    assert report.alternatives.keys() == {"released", "strict"}
    # Rows without the target: two themes × 2 objects; released counts the target's rows too, strict leaves photos out.
    counts = {name: scores["CRA"].n for name, scores in report.alternatives.items()}
    assert (counts, report.scores["CRA"].n) == ({"released": 6, "strict": 2}, 4)


def test_the_concept_comes_from_the_edit_or_from_the_user() -> None:
    painter = Painter()
    edit = turned(painter, "Cats", "Dogs")
    assert verdict(painter, edit).job["concepts"] == ["Cats"]
    assert verdict(painter, edit + turned(painter, "Van_Gogh", "Ink_Art")).job["concepts"] == ["Cats", "Van_Gogh"]
    assert verdict(painter, edit, concepts=[Concept(name="Dogs")]).scores["UA"].value == 0.0
    with pytest.raises(BadInput, match="does not say what it erased"):
        verdict(painter, Edit(edit.deltas, {}))
    with pytest.raises(BadInput, match="Cats"):
        verdict(painter, edit, concepts=["Catz"])


def test_equal_shots_before_and_after_and_the_weights_come_back() -> None:
    painter = Painter()
    weight = painter.network["unet"].weight.detach().clone()
    report = verdict(painter, turned(painter, "Cats", "Dogs"))
    half = len(painter.drawn) // 2
    assert painter.drawn[:half] == painter.drawn[half:]
    assert torch.equal(painter.network["unet"].weight, weight)
    assert len(report.rows) == half


def test_closing_at_any_step_leaves_the_model_as_it_was() -> None:
    steps = 0
    work = judge(
        Painter(), turned(Painter(), "Cats", "Dogs"), settings=JudgeSettings(probe=Reader(), batch=3), suite=TINY
    )
    for _ in work:
        steps += 1
    assert steps >= 6
    for stop in range(1, steps + 1):
        painter = Painter()
        weight = painter.network["unet"].weight.detach().clone()
        work = judge(
            painter, turned(painter, "Cats", "Dogs"), settings=JudgeSettings(probe=Reader(), batch=3), suite=TINY
        )
        for _ in range(stop):
            next(work, None)
        work.close()
        assert torch.equal(painter.network["unet"].weight, weight)


def test_the_batch_changes_no_score() -> None:
    one, many = (verdict(Painter(), turned(Painter(), "Cats", "Dogs"), batch=batch) for batch in (1, 32))
    for name, score in one.scores.items():
        if not score.unscored:
            assert score.value == pytest.approx(many.scores[name].value, abs=1e-5)
    assert one.rows == many.rows


def test_a_limit_says_what_it_left_out() -> None:
    report = verdict(Painter(POCKET), turned(Painter(POCKET), "Van_Gogh", "Rust"), suite=POCKET, limit=50)
    assert report.excluded == {"by the limit": 280 - 50}
    assert (report.scores["UA"].n, report.scores["CRA"].n) == (100, 50)
    assert len({row["object"] for row in report.rows if row["style"] != "Van_Gogh"}) > 10
    with pytest.raises(BadInput, match="limit 0"):
        verdict(Painter(POCKET), turned(Painter(POCKET), "Van_Gogh", "Rust"), suite=POCKET, limit=0)


class Broken(Painter):
    """Draws two of its pictures as NaN once an edit is worn."""

    def sample(self, shots, **options):  # type: ignore[no-untyped-def]
        images = (yield from super().sample(shots, **options)).clone()
        if not torch.equal(self.network["unet"].weight, torch.eye(len(self.labels))):
            images[:2] = torch.nan
        return images


def test_what_is_no_picture_is_left_out_and_counted() -> None:
    painter = Broken(POCKET)
    whole = verdict(Painter(POCKET), turned(painter, "Winter", "Rust"), suite=POCKET)
    holed = verdict(painter, turned(painter, "Winter", "Rust"), suite=POCKET, batch=1000)
    assert holed.excluded == {"not a picture": 2}
    assert holed.scores["IRA"].n == whole.scores["IRA"].n - 2
    assert holed.scores["FID"].n == whole.scores["FID"].n - 2
    assert holed.scores["UA"] == whole.scores["UA"]
    assert "after" not in holed.rows[0]


def test_costs_come_from_the_run_or_the_record_or_are_unscored() -> None:
    painter = Painter()
    edit = turned(painter, "Cats", "Dogs")
    bare = verdict(painter, edit).scores
    assert bare["seconds"].unscored
    assert (bare["storage_bytes"].value, bare["storage_bytes"].baseline) == (25 * 4, 0.0)
    told = verdict(painter, edit, cost=Cost(2.5, 1e6, "VmHWM")).scores
    assert (told["seconds"].value, told["peak_memory_bytes"].value, told["peak_memory_bytes"].probe) == (
        2.5,
        1e6,
        "VmHWM",
    )
    recorded = Edit(edit.deltas, {**edit.about, "seconds": 9.0, "peak_memory_bytes": 5.0})
    assert verdict(painter, recorded).scores["seconds"].value == 9.0


def test_a_reference_of_renders_replaces_the_models_own_images() -> None:
    painter = Painter(POCKET)
    own = drain(painter.sample([cell.shot for cell in POCKET.shots() if cell.style != "Van_Gogh"]))
    report = verdict(painter, turned(painter, "Van_Gogh", "Rust"), suite=POCKET, reference=own * 0.9)
    assert report.scores["FID"].baseline > 1e-4
    assert "the given reference images" in report.scores["FID"].note
    with pytest.raises(BadInput, match="same number"):
        verdict(painter, turned(painter, "Van_Gogh", "Rust"), suite=POCKET, reference=own[:-1])


def test_the_report_is_whole_json() -> None:
    painter = Painter()
    report = verdict(painter, turned(painter, "Cats", "Dogs"), job={"typed": "studio judge x"})
    document = json.loads(report.json_text())
    assert document["job"] == {"typed": "studio judge x"}
    assert set(document["scores"]) >= {"UA", "IRA", "CRA", "FID", "KID", "CLIP", "LPIPS", "seconds", "storage_bytes"}
    assert document["scores"]["CLIP"]["value"] is None
    assert document["about"]["suite"]["name"] == "tiny"
    assert Report.read(report.json_text()).json_text() == report.json_text()
    row = next(row for row in document["rows"] if row["object"] == "Cats" and row["style"] == "Ink_Art")
    assert (row["before"]["object"], row["after"]["object"]) == ("Cats", "Dogs")


def test_a_probe_that_lacks_a_label_is_refused() -> None:
    with pytest.raises(BadInput, match="cannot see the style 'Bricks'"):
        drain(judge(Painter(POCKET), settings=JudgeSettings(probe=Reader(TINY)), suite=POCKET))
    with pytest.raises(BadInput, match="released"):
        verdict(Painter(), None, rules="relased")


def images(fill: Tensor) -> Tensor:
    return fill.expand(1, 3, 64, 64)


@pytest.mark.parametrize(
    ("picture", "invalid"),
    [
        (images(torch.full((1, 1, 64, 64), 0.5)), True),
        (images(torch.linspace(0.5, 0.53, 64).view(1, 1, 1, 64)), True),
        (images(torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))), True),
        (images(torch.full((1, 1, 64, 64), torch.nan)), True),
        (None, False),
    ],
    ids=["constant", "nearly constant", "noise", "not a number", "picture"],
)
def test_pictures_that_show_nothing(picture: Tensor | None, invalid: bool) -> None:
    painter, shots = Painter(), [TINY.shots()[0].shot]
    if picture is None:
        picture = drain(painter.sample(shots))

    class Sure(Reader):
        """Claims everything, so that only the picture itself can be at fault."""

        def __call__(self, images: Tensor):  # type: ignore[no-untyped-def]
            seen = super().__call__(images)
            seen.style_prob[:] = torch.tensor([1.0, 0.0, 0.0])
            return seen

    painter.sample = lambda shots, **_: _given(picture)  # type: ignore[method-assign]
    found = drain(answering.answers(painter, shots, TINY, Sure()))
    assert found.invalid.tolist() == [invalid]


def _given(picture: Tensor):  # type: ignore[no-untyped-def]
    yield from ()
    return picture


def test_reopened_files_are_eight_bits_and_jpeg_is_lossy() -> None:
    smooth = torch.linspace(0, 1, 64).view(1, 1, 1, 64) * torch.linspace(0.2, 1, 64).view(1, 1, 64, 1)
    picture = smooth.expand(1, 3, 64, 64)
    png, jpeg = answering.reopened(picture, "png"), answering.reopened(picture, "jpeg")
    assert 0 < (png - picture).abs().max() <= 0.5 / 255 + 1e-6
    assert torch.equal(answering.reopened(png, "png"), png)
    assert (png - picture).abs().mean() < (jpeg - picture).abs().mean() < 0.02


def test_pictures_are_drawn_until_enough_is_known() -> None:
    suite = POCKET.model_copy(update={"grid_seeds": POCKET.seeds})
    painter = Painter(suite)
    edit = turned(painter, "Van_Gogh", "Watercolor")
    whole = verdict(painter, edit, suite=suite)
    # A fifth of the pictures knows UA, of 20, to ±11 points at a hundredth's level; two fifths to ±6.
    report = verdict(painter, edit, suite=suite, until=0.10)
    looks = report.about["stopping"]["looks"]
    assert [(each["after_seed"], each["n"], each["level"]) for each in looks] == [(188, 300, 0.01), (288, 600, 0.01)]
    assert looks[0]["half_widths"]["UA"] == pytest.approx(0.1245, abs=1e-3)
    assert looks[1]["half_widths"]["UA"] <= 0.10
    assert report.excluded == {"known well enough without": 900} and len(report.rows) == 600
    assert report.scores["UA"].value == 1.0 and report.scores["UA"].n == 40
    # Whoever wants more than five seeds can tell gets all of them, and the same numbers as without stopping.
    strict = verdict(painter, edit, suite=suite, until=0.001)
    assert len(strict.about["stopping"]["looks"]) == 5 and strict.scores["UA"] == whole.scores["UA"]
    assert {name: score.value for name, score in strict.scores.items()} == pytest.approx(
        {name: score.value for name, score in whole.scores.items()}, nan_ok=True
    )
    with pytest.raises(BadInput, match="plus or minus 0"):
        verdict(painter, edit, suite=suite, until=0.0)


def test_five_looks_together_err_no_more_than_one_would() -> None:
    # The truth is 0.9; a wrong stop is one whose interval at that look leaves it out.
    z, wrong, trials = NormalDist().inv_cdf(1 - LEVEL / 5 / 2), 0, 2000
    draw = random.Random(0)
    for _ in range(trials):
        hits = n = 0
        for _look in range(5):
            hits, n = hits + sum(draw.random() < 0.9 for _ in range(20)), n + 20
            low, high = wilson(hits / n, n, z)
            if (high - low) / 2 <= 0.09:
                break
        wrong += not low <= 0.9 <= high
    assert wrong / trials <= LEVEL
