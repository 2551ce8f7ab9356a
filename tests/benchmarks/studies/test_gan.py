"""The table of GAN methods and the cost of Adapt-then-Unlearn, on a tiny GAN."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.judging.judge_gan import judge_gan
from benchmarks.speed.gan import speed_adapt_unlearn
from benchmarks.speed.methods import Plan
from benchmarks.studies import gan as benchmark
from benchmarks.studies.gan import Case, chosen, erase_and_judge, summary, table
from erase.concept import Concept
from erase.errors import BadInput
from erase.methods.registry import build
from erase.request import Request, run_method
from erase.work import drain
from tests.benchmarks.judging.test_judge_gan import SUITE, probed
from tests.contract.test_gan_methods import ADAPT
from tests.toys.gan import ToyGan

__all__ = ["probed"]  # a fixture
ROWS = [Case(form, "adapt-unlearn", "eyeglasses", {**ADAPT, "form": form}) for form in ("EL2", "IL2")]


@pytest.fixture
def small(probed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "judge_gan", lambda *args, **named: judge_gan(*args, **named, suite=SUITE))


def test_a_row_per_method_with_its_spread_over_seeds(small: None, tmp_path: Path) -> None:
    reports = drain(erase_and_judge(ToyGan(), ROWS, [0, 1], tmp_path))
    rows = summary(reports)
    assert [(row["label"], row["seeds"]) for row in rows] == [("EL2", [0, 1]), ("IL2", [0, 1])]
    assert rows[0]["FID"]["mean"] == pytest.approx(sum(r.scores["FID"].value for r in reports[::2]) / 2)
    assert rows[0]["FID"]["sd"] > 0 and table(rows).count("\n") == 3
    again = drain(erase_and_judge(ToyGan(), ROWS, [0, 1], tmp_path))
    assert [r.about["edit"] for r in again] == [r.about["edit"] for r in reports]
    with pytest.raises(BadInput, match="another job"):
        drain(
            erase_and_judge(ToyGan(), [Case("EL2", "adapt-unlearn", "eyeglasses", ADAPT | {"steps": 2})], [0], tmp_path)
        )
    alone = summary(reports[:1])[0]["FID"]
    assert "sd" not in alone and alone["low"] <= alone["mean"] <= alone["high"]
    json.dumps([report.model_dump(mode="json") for report in reports], allow_nan=False)


def test_the_documentation_shows_the_committed_table() -> None:
    shown = benchmark.DOCS.read_text(encoding="utf-8").split(benchmark.BEGIN)[1].split(benchmark.END)[0].strip()
    assert shown == table(json.loads(benchmark.KEPT.read_text(encoding="utf-8"))["rows"])


def test_what_is_there_becomes_the_table(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results, page = tmp_path / "gan.json", tmp_path / "gans.md"
    monkeypatch.setattr(benchmark, "KEPT", results)
    monkeypatch.setattr(benchmark, "DOCS", page)
    monkeypatch.setattr(benchmark, "cases", lambda: {"forms": ROWS})
    results.write_text('{"attacks": {"code-inversion": 1}}')
    page.write_text(f"above\n{benchmark.BEGIN}\nold\n{benchmark.END}\nbelow\n", encoding="utf-8")
    with pytest.raises(BadInput, match="no report of a case"):
        benchmark.finished(tmp_path / "reports")
    drain(erase_and_judge(ToyGan(), ROWS, [0, 3], tmp_path / "reports"))
    assert main(["gan", "--out", str(tmp_path / "reports"), "--render"]) == 0
    found = page.read_text(encoding="utf-8").removeprefix(f"above\n{benchmark.BEGIN}\n")
    assert found.startswith("| method | erased | seeds |") and found.endswith(f"\n{benchmark.END}\nbelow\n")
    kept = json.loads(results.read_text())
    assert kept["attacks"] == {"code-inversion": 1} and [row["seeds"] for row in kept["rows"]] == [[0, 3], [0, 3]]
    assert table(kept["rows"]) in found


def test_forms_that_share_stage_one_end_in_the_bits_of_their_own(small: None, tmp_path: Path) -> None:
    shared = drain(erase_and_judge(ToyGan(), ROWS, [0], tmp_path))[1]
    alone = run_method(
        build("adapt-unlearn", None, ROWS[1].knobs),
        Request(ToyGan(), [Concept(name="eyeglasses", kind="attribute")], [], seed=0),
    )
    assert shared.about["edit"] == drain(alone).hash


def test_unknown_cases_are_named() -> None:
    assert {case.method for case in chosen("text,far")} == {"text-unlearn"}
    with pytest.raises(BadInput, match="adapt, forms"):
        list(chosen("texts"))


def test_running_sums_and_reloaded_models_agree_and_cost_differently() -> None:
    found = drain(speed_adapt_unlearn(ToyGan(), Plan(steps=2)))
    assert found.loss["ours"] == pytest.approx(found.loss["published"], rel=1e-3)
    assert found.memory_ratio == 5.0 and found.wall_ratio > 1
