"""The table over all targets: made once, resumed, never mixed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.attacks.registry import build
from benchmarks.attacks.run import AttackReport
from benchmarks.report import Report
from benchmarks.studies.common import Round, attack_of, board, erase_and_judge
from benchmarks.suites.suite import chosen
from benchmarks.sweeps.leaderboard import Leaderboard
from erase.errors import BadInput, plain
from erase.prompts.templates import SCENES, fill
from erase.work import drain
from generators.pocket.canvas import words
from tests.benchmarks.attacks.attacking import Says
from tests.benchmarks.doubles import TINY, Painter, Reader
from tests.toys.denoiser import Toy

TURN = '''
"""A method for the painter: the concept is painted as another one of its labels."""
from typing import Any, ClassVar
import torch
from pydantic import BaseModel
from erase.edit import Edit
from erase.model import Generator
from erase.work import Step

class Turn(BaseModel, frozen=True, extra="forbid"):
    paper: ClassVar[str] = "none"
    needs: ClassVar[type] = Generator
    presets: ClassVar[dict[str, dict[str, Any]]] = {"object": {"strength": 0.2}}
    strength: float = 1.0

    def erase(self, model, concepts, keep=(), *, seed=0, state=None):
        yield Step("turn", 1, 1)
        plain = [label.replace("_", " ") for label in model.labels]
        here = plain.index(concepts[0].name)
        weight = torch.zeros(len(plain), len(plain))
        weight[here, here] = -self.strength
        weight[{0: 1, 2: 0, 3: 4, 4: 3}[here], here] = self.strength
        return Edit({"unet.weight": weight}, {"method": "turn", "kept": len(keep)})
'''
TARGETS = chosen(TINY, "all")


@pytest.fixture(autouse=True)
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "turn.py").write_text(TURN)
    monkeypatch.setenv("ERASE_METHODS", str(tmp_path / "methods"))
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("benchmarks.judging.judge.probe_of", lambda *_: Reader())


def test_targets_by_kind_and_by_name() -> None:
    assert [target.label for target in TARGETS] == ["Ink_Art", "Van_Gogh", "Cats", "Dogs"]
    assert [target.label for target in chosen(TINY, "Styles")] == ["Ink_Art", "Van_Gogh"]
    assert [target.label for target in chosen(TINY, "dogs,van gogh")] == ["Dogs", "Van_Gogh"]
    with pytest.raises(BadInput, match="Dogs"):
        chosen(TINY, "Dogz")


def test_every_target_gets_a_report_and_a_line(tmp_path: Path) -> None:
    out = tmp_path / "out"
    reports = drain(erase_and_judge(Painter(), TINY, [Round("turn")], TARGETS, out))
    assert sorted(path.name for path in (out / "turn").iterdir()) == [
        "Cats.json",
        "Dogs.json",
        "Ink_Art.json",
        "Van_Gogh.json",
    ]
    cats = Report.read(out / "turn" / "Cats.json")
    assert (cats.job["preset"], cats.job["knobs"]["strength"]) == ("object", 0.2)
    assert not cats.scores["seconds"].unscored
    found = board(reports)
    styles, objects = found.lines
    # Styles are erased wholly; objects, by their own preset, too weakly.
    assert (styles.scores["UA"].value, objects.scores["UA"].value) == (1.0, 0.0)
    assert styles.scores["UA"].baseline == 0.0
    assert {entry.concept: entry.scores["IRA"].value for entry in found.entries if entry.kind == "object"} == {
        "Cats": 1.0,
        "Dogs": 1.0,
    }
    assert "100.0 % [100.0 %, 100.0 %]" in found.table()
    assert "seconds" not in found.entries[0].scores
    assert Leaderboard.read(found.model_dump_json()) == found


def test_finished_targets_are_not_made_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    drain(erase_and_judge(Painter(), TINY, [Round("turn")], TARGETS[:3], out))
    before = {path.name: path.stat().st_mtime_ns for path in (out / "turn").iterdir()}
    painter = Painter()
    reports = drain(erase_and_judge(painter, TINY, [Round("turn")], TARGETS, out))
    assert len(reports["turn"]) == 4
    assert {shot.prompt for shot in painter.drawn} == {cell.shot.prompt for cell in TINY.shots()}
    assert all((out / "turn" / name).stat().st_mtime_ns == when for name, when in before.items())


def test_a_report_of_another_job_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    drain(erase_and_judge(Painter(), TINY, [Round("turn")], TARGETS[:1], out))
    with pytest.raises(BadInput, match="another job: seed"):
        drain(erase_and_judge(Painter(), TINY, [Round("turn", seed=1)], TARGETS[:1], out))
    drain(erase_and_judge(Painter(), TINY, [Round.read("turn+strength=0.5")], TARGETS[:1], out))
    assert sorted(path.name for path in out.iterdir()) == ["turn", "turn+strength=0.5"]


def test_the_other_labels_can_be_kept(tmp_path: Path) -> None:
    drain(erase_and_judge(Painter(), TINY, [Round("turn", keep_others=True)], TARGETS[:1], tmp_path / "out"))
    report = Report.read(tmp_path / "out" / "turn" / "Ink_Art.json")
    assert report.about["erasure"]["kept"] == 3


def test_edits_of_the_first_targets_are_attacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("judging.judge", "attacks.run"):
        monkeypatch.setattr(f"benchmarks.{place}.probe_of", lambda *_: Says(lambda number, image: True))
    how, out = build("random", 2), tmp_path / "out"
    suite = TINY.model_copy(update={"clip": None})

    def reports() -> list[Report]:
        return drain(erase_and_judge(Toy(), suite, [Round("uce")], TARGETS[1::-1], out, attacks=[how], attacked=1))[
            "uce"
        ]

    first, second = reports()
    places = {name: out / "uce" / "attacks" / f"{name}-random" / "report.json" for name in ("Van_Gogh", "Ink_Art")}
    assert [path.exists() for path in places.values()] == [True, False]
    found, path = attack_of(out / "uce" / "Van_Gogh.json", first, how), places["Van_Gogh"]
    assert found is not None and found.job["edit"] == first.about["edit"] != second.about["edit"]
    assert attack_of(out / "uce" / "Van_Gogh.json", first, build("random", 3)) is None
    edit = first.about["edit"]
    other = second.model_copy(update={"about": second.about | {"edit": edit}})  # one edit may stand for both
    entry, beside = board({"uce": [first, other]}, {(edit, "Van_Gogh"): {"random": found}}).entries
    assert entry.scores["ASR random"] == found.scores["ASR"] and "ASR random" not in beside.scores
    when, text = path.stat().st_mtime_ns, path.read_text()
    reports()
    assert path.stat().st_mtime_ns == when
    path.unlink()
    reports()
    assert AttackReport.read(path).scores.keys() == AttackReport.read(text).scores.keys()
    assert AttackReport.read(path).job == AttackReport.read(text).job


def test_a_preset_has_a_form_for_the_targets_kind_where_there_is_one() -> None:
    style, thing = TARGETS[0], TARGETS[-1]
    assert [Round("doco", "pocket").preset_for(each) for each in (style, thing)] == ["pocket-style", "pocket-object"]
    assert [Round("esd", "pocket").preset_for(each) for each in (style, thing)] == ["pocket", "pocket"]
    assert [Round("nullspace").preset_for(each) for each in (style, thing)] == ["style", "object"]
    assert Round("turn").preset_for(style) is None


@pytest.mark.parametrize(("kind", "labels"), [("style", words.THEMES), ("object", words.OBJECTS)])
def test_scenes_name_nothing_that_could_be_what_is_erased(kind: str, labels: Sequence[str]) -> None:
    for scene in SCENES[kind]:
        beside = f" {plain(fill(scene, ''))} "
        assert scene.count("{}") == 1
        assert not [label for label in labels if f" {plain(label)} " in beside or f" {plain(label)[:-1]} " in beside]
