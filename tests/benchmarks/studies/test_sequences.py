"""The sequential and the pair track on a painter whose every answer is known, and probes that look inside."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import generators
from benchmarks.judging.predictions import answers
from benchmarks.studies.common import Round, as_json
from benchmarks.studies.linear_probe import Found, cells_beside, inside_table, middle, recognised, told_apart
from benchmarks.studies.sequences import Finer, pair_cells, pairs_table, sequences, sequences_table, shares
from benchmarks.suites.suite import load_suite
from erase.edit import Edit
from erase.rng import stream
from erase.work import drain
from tests.benchmarks.doubles import TINY, Painter, Reader, turned
from tests.toys.pipelines import toy_folder

# Paints the concept as another label; forgetful, it first puts back whatever was erased before.
TURN = """
from typing import Any, ClassVar
import torch
from pydantic import BaseModel
from erase.edit import Edit
from erase.model import Generator
from erase.work import Step

class Turn(BaseModel, frozen=True, extra="forbid"):
    paper: ClassVar[str] = "none"
    needs: ClassVar[type] = Generator
    presets: ClassVar[dict[str, dict[str, Any]]] = {"forgetful": {"forgetful": True}}
    forgetful: bool = False

    def erase(self, model, concepts, keep=(), *, seed=0, state=None):
        yield Step("turn", 1, 1)
        weight = model.network["unet"].weight.detach()
        delta = torch.eye(len(weight)) - weight if self.forgetful else torch.zeros_like(weight)
        for concept in concepts:
            here = [label.replace("_", " ") for label in model.labels].index(concept.name)
            delta[here, here] -= 1.0
            delta[{0: 1, 2: 1, 3: 4, 4: 3}[here], here] += 1.0
        return Edit({"unet.weight": delta}, {"method": "turn", "concepts": []})
"""


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods" / "turn.py").write_text(TURN)
    monkeypatch.setenv("ERASE_METHODS", str(tmp_path / "methods"))
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("benchmarks.judging.judge.probe_of", lambda *_: Reader())


@pytest.mark.usefixtures("bench")
def test_a_sequence_tells_whether_forgotten_stays_forgotten() -> None:
    targets = TINY.targets(["Van_Gogh", "Cats"])
    lines = drain(sequences(Painter(), TINY, [Round("turn"), Round("turn", "forgetful")], targets))
    told = {(line.method, line.order, line.erased): line for line in lines}
    assert len(told) == len(lines) == 10
    both = ("Van_Gogh", "Cats")
    assert told["turn", "forwards", both].UA == told["turn", "at once", both].UA == {"Van_Gogh": 1.0, "Cats": 1.0}
    assert told["turn-forgetful", "forwards", both].UA == {"Van_Gogh": 0.0, "Cats": 1.0}
    assert told["turn-forgetful", "backwards", both[::-1]].UA == {"Cats": 0.0, "Van_Gogh": 1.0}
    assert told["turn", "forwards", ("Van_Gogh",)].UA == {"Van_Gogh": 1.0}
    assert told["turn", "forwards", both].RA == 1.0
    assert "| `turn-forgetful` | forwards | Van_Gogh 0, Cats 100 | 100.0 |" in sequences_table(lines)


def test_a_pair_is_told_from_its_row_and_its_column() -> None:
    suite = load_suite("pocket-canvas-quick").model_copy(update={"sampler": "own"})
    groups = pair_cells(suite, "Van_Gogh", "Cats")
    assert {name: len(cells) for name, cells in groups.items()} == {"UA": 3, "SC": 6, "OC": 6, "UP": 12}
    assert {cell.style for cell in groups["SC"]} == {"Van_Gogh"} and {cell.object for cell in groups["OC"]} == {"Cats"}
    assert {"Dogs", "Bears"} <= {cell.object for cell in groups["SC"]}
    assert all(
        (cell.style, cell.object) != ("Van_Gogh", "Cats") for name in ("SC", "OC", "UP") for cell in groups[name]
    )
    assert all(cell.style != "Van_Gogh" and cell.object != "Cats" for cell in groups["UP"])
    painter, shots = Painter(suite), [cell.shot for cells in groups.values() for cell in cells]

    def seen(edit: Edit | None) -> dict[str, float]:
        with (edit or Edit({}, {})).applied(painter.network):
            found = drain(answers(painter, shots, suite, Reader(suite)))
        return {name: share for name, (share, _) in shares(groups, found, Reader(suite)).items()}

    assert seen(None) == {"UA": 0.0, "SC": 1.0, "OC": 1.0, "UP": 1.0}
    # Whoever forgets the whole style has forgotten the pair, and its row with it.
    assert seen(turned(painter, "Van_Gogh", "Rust")) == {"UA": 1.0, "SC": 0.0, "OC": 1.0, "UP": 1.0}
    assert seen(turned(painter, "Cats", "Dogs")) == {"UA": 1.0, "SC": 1.0, "OC": 0.0, "UP": 1.0}
    line = Finer("turn", "Van_Gogh", "Cats", {"UA": (1.0, 3), "SC": (0.5, 6)}, {"UA": (0.0, 3), "SC": (1.0, 6)})
    assert "| `turn` | 1 | 100.0 (44–100, n 3) | 50.0" in pairs_table([line])


def test_a_linear_probe_finds_what_is_there_and_nothing_else() -> None:
    is_it = torch.arange(80) < 40
    noise = torch.randn(80, 24, generator=stream(0, "noise"), dtype=torch.float64)
    planted = noise.clone()
    planted[is_it, 3] += 6.0
    assert told_apart(planted, is_it) > 0.97
    assert 0.3 < told_apart(noise, is_it) < 0.7
    assert recognised(planted, planted, is_it) > 0.97
    assert recognised(planted, noise, is_it) < 0.3  # told from nothing, and no longer what it was
    moved = noise.clone()
    moved[is_it, 7] += 6.0
    assert told_apart(moved, is_it) > 0.97 and recognised(planted, moved, is_it) < 0.3


def test_a_stranger_is_not_asked_what_it_still_recognises() -> None:
    lines = [Found("Cats", "uce", 0.9, 0.8, 0.25, 80), Found("Cats", "retrained", 0.9, 0.8, math.nan, 80)]
    one, other = inside_table(lines).splitlines()[2:]
    assert "25 (14–40) | 80" in one and other.endswith("| – | 80 |")
    assert [line["recognised"] for line in json.loads(as_json({"lines": [*map(vars, lines)]}))["lines"]] == [0.25, None]


def test_cells_differ_from_their_neighbours_in_the_target_alone() -> None:
    cells = cells_beside(load_suite("pocket-canvas-quick"), load_suite("pocket-canvas-quick").target("Cats"), 20)
    its, others = cells[:20], cells[20:]
    assert {cell.object for cell in its} == {"Cats"} and {cell.object for cell in others} == {
        "Dogs",
        "Bears",
        "Rabbits",
    }
    assert [cell.style for cell in its] == [cell.style for cell in others] and "Seed_Images" not in {
        c.style for c in its
    }
    assert len({cell.shot for cell in cells}) == 40


def test_the_middle_block_hears_the_prompt_until_no_reader_passes_it_on(tmp_path: Path) -> None:
    model = generators.load(str(toy_folder(tmp_path / "toy")), device="cpu")
    cells = TINY.shots()[:4]
    z = model.noise([cell.shot for cell in cells])
    asked = [middle(model, z, 900, [word] * 4, batch=3) for word in ("a cat", "a dog", "a cat")]
    assert torch.equal(asked[0], asked[2]) and not torch.allclose(asked[0], asked[1], atol=1e-6)
    silent = Edit({f"{name}.weight": -layer.weight.detach() for name, layer in model.readers().items()}, {})
    with silent.applied(model.network):
        asked = [middle(model, z, 900, [word] * 4) for word in ("a cat", "a dog")]
    assert torch.allclose(asked[0], asked[1], atol=1e-6)
