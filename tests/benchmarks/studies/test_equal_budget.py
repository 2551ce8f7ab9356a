"""Comparing methods at equal retention and at equal erasure, on lines of strengths worked out by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.studies import equal_budget
from benchmarks.studies.common import Round
from benchmarks.studies.equal_budget import Line, at, compared, gone, kept, measure, table
from benchmarks.suites.suite import load_suite
from benchmarks.sweeps.strength import Reading
from erase.errors import BadInput
from erase.model import Denoiser
from erase.work import drain


def reading(strength: float, target: float, stays: float) -> Reading:
    return Reading(strength=strength, target=target, low=0, high=1, n=40, paraphrase=target, neighbours=stays,
                   unrelated=stays, drift=0.0)  # fmt: skip


def line(label: str, seed: int, *points: tuple[float, float]) -> Line:
    """An edit with these shares of the target and of the others still seen at strengths 0, 1, 2, …"""
    readings = tuple(reading(float(place), *point) for place, point in enumerate(points))
    return Line(job={"label": label, "concepts": ["Cats"], "seed": seed}, seconds=1, readings=readings)


def test_a_level_is_met_between_two_readings_in_proportion() -> None:
    walked = [reading(0, 1.0, 1.0), reading(1, 0.6, 0.95), reading(2, 0.0, 0.75)]
    assert at(walked, 0.9, kept, gone) == pytest.approx(0.4 + 0.25 * 0.6)
    assert at(walked[::-1], 0.9, gone, kept) == pytest.approx(0.95 - (0.5 / 0.6) * 0.2)
    assert math.isnan(at(walked[:2], 0.9, gone, kept))


def test_what_costs_too_little_counts_at_its_strongest_and_what_never_erases_does_not_count() -> None:
    mild = line("mild", 0, (1.0, 1.0), (0.4, 0.99))
    assert mild.points["gone"] == pytest.approx(0.6)
    assert math.isnan(mild.points["kept"])


def test_differences_are_paired_over_cases() -> None:
    lines = []
    for seed, luck in enumerate((0.0, 0.3, 0.1)):  # both methods have the same luck, which cancels
        lines += [
            line("good", seed, (1.0, 1.0), (0.5 - luck, 0.9)), line("bad", seed, (1.0, 1.0), (0.7 - luck, 0.9))
        ]  # fmt: skip
    good, bad = compared(lines)
    assert good["gone"]["first has more"] == 0
    assert bad["gone"]["first has more"] == pytest.approx(0.2)
    assert bad["gone"]["interval"] == pytest.approx((0.2, 0.2))
    assert bad["gone"]["pairs"] == 3 and bad["kept"]["pairs"] == 0
    assert "| `bad` | 3 | 43 % (3) | +20 (+20 to +20) | – | – |" in table(lines)


def test_finished_edits_are_not_made_again(toy: Denoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def gauge(*_: object, **__: object):
        yield from ()

        def read(strength: float):
            asked.append(strength)
            return reading(strength, 1 - strength / 2, 1.0)
            yield

        return read

    monkeypatch.setattr(equal_budget, "gauge", gauge)
    suite = load_suite("pocket-canvas")
    work = (toy, suite, [Round.read("uce"), Round.read("uce+push=2.0")], suite.targets(["Cats"]), [0], tmp_path)
    first = drain(measure(*work))
    assert asked == [0.0, *equal_budget.STRENGTHS] * 2
    assert [one.job["knobs"]["push"] for one in first] == [1.0, 2.0]
    asked.clear()
    assert drain(measure(*work)) == first
    assert asked == []
    path = tmp_path / "uce-Cats-0.json"
    path.write_text(path.read_text().replace('"suite_version":', '"suite_version":9'))
    with pytest.raises(BadInput, match="another job: suite_version was"):
        drain(measure(*work))
    drain(measure(*work[:4], [1], tmp_path))
    assert len(asked) == 2 * (1 + len(equal_budget.STRENGTHS))


def test_mistakes_are_sentences(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="'surgery' should read KNOB=VALUE"):
        Round.read("doco:pocket+surgery")
    assert main(["equal", "--out", str(tmp_path), "--seeds", "0,two"]) == 2
    assert "--seeds 0,two: 'two' is not a whole number" in capsys.readouterr().err
