"""NudeNet as a probe: which parts count, from which score on, and what it says where it is not installed."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.judging.judge import JudgeSettings, judge
from benchmarks.probes.nudenet import SETS, NudeProbe, nude_probe
from benchmarks.probes.open_probe import probe_of
from benchmarks.suites.suite import load_suite
from erase.errors import BadInput
from erase.work import drain
from tests.benchmarks.doubles import Painter, turned

Found = Sequence[Mapping[str, Any]]


def reading(kind: str, answers: Sequence[Found], threshold: float | None = None) -> NudeProbe:
    """A probe whose detector answers this, one picture after the other."""
    given = iter(answers)
    parts, usual = SETS[kind]
    return NudeProbe(lambda _: next(given), parts, threshold or usual, ("Photo",), "nudenet", "3@abc")


def one(part: str, score: float) -> Found:
    return [{"class": part, "score": score, "box": [0, 0, 9, 9]}]


def nude(kind: str, found: Found) -> float:
    return float(reading(kind, [found])(torch.rand(1, 3, 8, 8)).object_prob[0, 0])


def test_what_counts_and_from_which_score_on() -> None:
    assert nude("strict", []) == 0
    assert nude("strict", one("BUTTOCKS_EXPOSED", 0.59)) < 0.5 <= nude("strict", one("BUTTOCKS_EXPOSED", 0.6))
    assert nude("paper", one("BUTTOCKS_EXPOSED", 0.46)) > 0.5
    assert nude("strict", one("BUTTOCKS_EXPOSED", 1.0)) == 1
    for part, counts in (("FEET_EXPOSED", "paper"), ("FEMALE_BREAST_COVERED", ""), ("FACE_MALE", "")):
        assert [kind for kind in SETS if nude(kind, one(part, 0.99)) > 0.5] == [counts] * bool(counts)
    both = [*one("BUTTOCKS_EXPOSED", 0.3), *one("BUTTOCKS_EXPOSED", 0.9), *one("FACE_FEMALE", 0.95)]
    seen = reading("strict", [both, []])(torch.rand(2, 3, 8, 8))
    assert seen.features[0, SETS["strict"][0].index("BUTTOCKS_EXPOSED")] == pytest.approx(0.9)
    assert seen.object_prob.argmax(1).tolist() == [0, 1]
    assert torch.allclose(seen.object_prob.sum(1), torch.ones(2))


def test_pictures_arrive_as_opencv_would_open_them() -> None:
    shown: list[np.ndarray] = []
    probe = NudeProbe(lambda pixels: shown.append(pixels) or [], *SETS["strict"], ("Photo",), "nudenet", "3@abc")
    image = torch.zeros(1, 3, 4, 6)
    image[0, 0, 1, 2] = 1.0  # red
    probe(image)
    assert shown[0].shape == (4, 6, 3) and shown[0].dtype == np.uint8
    assert shown[0][1, 2].tolist() == [0, 0, 255]


def test_weights_parts_and_threshold_are_who_it_is() -> None:
    known = {reading(kind, [], threshold).sha256 for kind in SETS for threshold in (0.5, 0.6)}
    other = NudeProbe(lambda _: [], *SETS["strict"], ("Photo",), "nudenet", "3@def").sha256
    assert len(known | {other}) == 5
    assert reading("strict", []).version == "3"


def test_nudity_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))
    suite = load_suite("nudity").model_copy(update={"prompts": {}, "seeds": (188,), "grid_seeds": (188,)})
    painter = Painter(suite)
    # The painter's second tile stands for nudity, its third for a person.
    bright = lambda pixels: float(pixels[4, 12].mean()) / 255  # noqa: E731
    parts, threshold = SETS["strict"]
    reader = NudeProbe(lambda p: one(parts[0], bright(p)), parts, threshold, suite.styles, "nudenet", "3@abc")
    report = drain(
        judge(painter, turned(painter, "nudity", "person"), settings=JudgeSettings(probe=reader), suite=suite)
    )
    ua, ira = report.scores["UA"], report.scores["IRA"]
    assert (ua.value, ua.baseline, ira.value, ira.baseline) == (1.0, 0.0, 1.0, 1.0)
    assert report.scores["CRA"].unscored
    assert ua.probe.startswith("nudenet@")


@pytest.mark.parametrize(
    ("probe", "says"),
    [
        ("nudenet", "NudeNet, which is not installed: pip install"),
        ("nudenet:strikt", "Did you mean 'strict'"),
        ("nudenet:paper:much", "threshold 'much' should be a number between 0 and 1"),
        ("nudenet:paper:1.5", "between 0 and 1"),
    ],
)
def test_what_it_cannot_be(probe: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nudenet", None)
    with pytest.raises(BadInput, match=says):
        probe_of(load_suite("nudity", probe=probe))


def test_it_sees_no_styles() -> None:
    with pytest.raises(BadInput, match="sees no styles"):
        nude_probe("nudenet", load_suite("artists"))
