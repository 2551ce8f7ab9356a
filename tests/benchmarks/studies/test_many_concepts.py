"""Erasing many concepts at once: which ones, which shots, and that its numbers tell a good eraser from a bad one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.studies.many_concepts import cells, erase_many, order, summary, table
from benchmarks.suites.suite import load_suite
from erase.errors import BadInput
from erase.work import drain
from tests.benchmarks.doubles import TINY, Painter, Reader

CANVAS = load_suite("pocket-canvas")
WIPE = '''
"""A method for the painter: erased labels are painted as others, and so are kept ones unless it is careful."""
from typing import Any, ClassVar
import torch
from pydantic import BaseModel
from erase.edit import Edit
from erase.model import Generator
from erase.work import Step

class Wipe(BaseModel, frozen=True, extra="forbid"):
    paper: ClassVar[str] = "none"
    needs: ClassVar[type] = Generator
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    careful: bool = True

    def erase(self, model, concepts, keep=(), *, seed=0, state=None):
        yield Step("wipe", 1, 1)
        plain = [label.replace("_", " ") for label in model.labels]
        weight = torch.zeros(len(plain), len(plain))
        for concept in (*concepts, *(() if self.careful else keep)):
            here = plain.index(concept.name)
            weight[here, here] = -1.0
            weight[{0: 1, 2: 1, 3: 4, 4: 3}[here], here] = 1.0
        return Edit({"unet.weight": weight}, {"method": "wipe"})
'''


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "wipe.py").write_text(WIPE)
    monkeypatch.setenv("ERASE_METHODS", str(tmp_path / "methods"))
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("benchmarks.studies.many_concepts.open_probe", lambda *_: Reader())


def test_the_order_has_every_label_once_and_both_kinds_from_the_start() -> None:
    row = order(CANVAS, 0)
    assert len(row) == len(set(row)) == 34
    for n in (10, 20, 30):
        styles = sum(target.kind == "style" for target in row[:n])
        assert abs(styles - n * 14 / 34) <= 1
    assert row == order(CANVAS, 0) != order(CANVAS, 1)
    assert CANVAS.photo not in [target.label for target in row]


@pytest.mark.parametrize("n", [1, 10, 30])
def test_every_cell_shows_one_erased_label_or_none(n: int) -> None:
    row = order(CANVAS, 0)
    gone = {target.label for target in row[:n]}
    drawn = cells(CANVAS, row[:n], row[n:], 20, 0)
    shown = [{cell.style, cell.object} & gone for cell in drawn]
    forgotten, spared = [s for s in shown if s], [s for s in shown if not s]
    assert all(len(labels) == 1 for labels in forgotten)
    assert (len(forgotten), len(spared)) == (max(20, n), 20)
    turns = Counter(label for labels in forgotten for label in labels)
    assert turns.keys() == gone and max(turns.values()) - min(turns.values()) <= 1
    assert len({(cell.shot.seed, cell.shot.prompt) for cell in drawn}) == len(drawn)  # no image twice


@pytest.mark.usefixtures("bench")
def test_the_numbers_tell_keeping_from_wiping_everything() -> None:
    painter = Painter()
    [good] = drain(erase_many(painter, TINY, {"wipe": {}}, [2], images=4))
    [bad] = drain(erase_many(painter, TINY, {"wipe": {"careful": False}}, [2], images=4))
    assert (good.scores["UA"].value, good.scores["IRA"].value, good.scores["CRA"].value) == (1.0, 1.0, 1.0)
    assert good.scores["UA"].baseline == 0.0
    assert bad.scores["IRA"].value < 0.6
    assert {*good.erased, *good.kept} == {"Ink_Art", "Van_Gogh", "Cats", "Dogs"}
    found = json.loads(json.dumps(summary([good])))["wipe"]["2"]
    assert (found["scores"]["UA"]["value"], found["erased"]) == (1.0, list(good.erased))
    assert found["scores"]["seconds"]["value"] >= 0
    text = table([good, bad])
    assert text.count("wipe") == 2 and "unedited, n 2: UA 0.0 %" in text


@pytest.mark.usefixtures("bench")
def test_erasing_so_much_that_nothing_is_left_is_refused() -> None:
    for n in (0, 4):
        with pytest.raises(BadInput, match="cannot be erased"):
            drain(erase_many(Painter(), TINY, {"wipe": {}}, [n]))
    with pytest.raises(BadInput, match="leaves no style or no object"):
        drain(erase_many(Painter(), TINY, {"wipe": {}}, [3]))


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--methods", "uze"], "uce"),
        (["--counts", "1,many"], "'many' is not a whole number"),
        (["--images", "0"], "--images 0"),
        (["--steps", "0"], "--steps 0"),
        (["--suite", "pocket-canvs"], "pocket-canvas"),
    ],
)
def test_mistakes_are_one_sentence(argv: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["many", *argv]) == 2
    said = capsys.readouterr().err
    assert says in said and "Traceback" not in said


@pytest.mark.usefixtures("bench")
def test_the_command_prints_a_table_or_one_document(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("generators.loading.load", lambda *_, **__: Painter())
    monkeypatch.setattr("benchmarks.suites.suite.load_suite", lambda _: TINY)
    asked = ["many", "--methods", "wipe", "--counts", "1,2", "--images", "2", "--steps", "1"]
    assert main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["wipe"].keys() == {"1", "2"}
    assert main(asked) == 0
    assert "wipe" in capsys.readouterr().out
