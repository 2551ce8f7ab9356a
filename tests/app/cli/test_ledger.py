"""The ledger of a run: what it wears, and one edit taken off again, exactly where that is possible."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import generators
from app.runs.run import open_run
from erase.edit import Edit
from tests.app.conftest import Outcome, Studio
from tests.toys.compare import same_bits, weights

UCE = ("--method", "uce")
WEAK = ("--method", "uce", "--damping", "60")
ESD = ("--method", "esd", "--iterations", "2", "--steps", "2", "--seeds", "2", "--variant", "x-strict", "--lr", "1e-3")


@pytest.fixture
def erased(studio: Studio, folder: Path, tmp_path: Path):
    """`erased("Cats", ESD, "cats")` erases from the model, `erased("Dogs", UCE, "both", "cats")` from a run."""

    def run(concept: str, method: tuple[str, ...], name: str, source: str | None = None, *more: str) -> Path:
        what = folder if source is None else tmp_path / source
        outcome = studio("erase", what, "--concept", concept, *method, *more, "--out", tmp_path / name)
        assert outcome.code == 0, outcome.err
        return tmp_path / name

    return run


def without(studio: Studio, run: Path, wanted: str, out: Path) -> Outcome:
    return studio("ledger", run, "--without", wanted, "--out", out, "--json")


def edit_of(run: Path) -> Edit:
    return Edit.load(run / "edit.safetensors")


def test_the_ledger_lists_edits_in_order(studio: Studio, erased, tmp_path: Path) -> None:
    alone, both = erased("Cats", ESD, "alone"), erased("Dogs", UCE, "both", "alone")
    listed = studio("ledger", both, "--json").document["edits"]
    assert [(e["number"], e["concepts"], e["method"], e["strength"]) for e in listed] == [
        (1, ["Cats"], "esd", 1.0),
        (2, ["Dogs"], "uce", 1.0),
    ]
    assert listed[0]["hash"] == edit_of(alone).hash
    text = studio("ledger", both).out
    assert "Cats" in text and listed[1]["hash"][:12] in text
    [own] = studio("ledger", alone, "--json").document["edits"]
    assert (own["concepts"], own["hash"]) == (["Cats"], edit_of(alone).hash)
    parts, total = open_run(both).ledger(), edit_of(both)
    for name, delta in total.deltas.items():
        torch.testing.assert_close(delta, sum(part.deltas[name] for part in parts if name in part.deltas))


def test_the_newest_edit_comes_off_to_the_bit(studio: Studio, erased, folder: Path, tmp_path: Path) -> None:
    alone = erased("Cats", ESD, "alone")
    erased("Dogs", UCE, "both", "alone")
    three = erased("Birds", ESD, "three", "both")
    two = without(studio, three, "Birds", tmp_path / "two")
    assert two.document["approximate"] is False
    assert edit_of(tmp_path / "two").hash == edit_of(tmp_path / "both").hash
    one = without(studio, tmp_path / "two", "2", tmp_path / "one")
    assert one.code == 0, one.err
    assert edit_of(tmp_path / "one").hash == edit_of(alone).hash
    again = studio("reproduce", tmp_path / "one", "--out", tmp_path / "again")
    assert again.code == 0, again.err


def test_a_closed_form_is_solved_again_without_it(studio: Studio, erased, tmp_path: Path) -> None:
    keep = ("--keep", "Dogs", "Frogs")
    erased("Cats", UCE, "cats", None, *keep)
    both = erased("Dogs", UCE, "both", "cats", "--keep", "Frogs")
    fresh = erased("Dogs", UCE, "fresh", None, "--keep", "Frogs")
    assert edit_of(both).hash != edit_of(fresh).hash
    outcome = without(studio, both, "cats", tmp_path / "left")
    assert outcome.code == 0, outcome.err
    assert outcome.document["approximate"] is False
    assert outcome.document["took_off"]["concepts"] == ["Cats"]
    assert edit_of(tmp_path / "left").hash == edit_of(fresh).hash  # Cats left no trace
    assert edit_of(tmp_path / "left").about["concepts"] == edit_of(fresh).about["concepts"]


def test_of_three_closed_forms_the_others_are_one_solve(studio: Studio, erased, folder: Path, tmp_path: Path) -> None:
    erased("Cats", UCE, "one", None, "--keep", "Dogs")  # what is kept first and erased later is not kept any more
    erased("Birds", UCE, "two", "one")
    three = erased("Dogs", UCE, "three", "two")
    assert without(studio, three, "Birds", tmp_path / "left").code == 0
    joint = studio("erase", folder, "--concept", "Cats", "--concept", "Dogs", *UCE, "--out", tmp_path / "joint")
    assert joint.code == 0, joint.err
    assert edit_of(tmp_path / "left").hash == edit_of(tmp_path / "joint").hash
    assert edit_of(tmp_path / "left").about["keep"] == []


@pytest.mark.parametrize(("first", "second"), [(ESD, UCE), (UCE, ESD), (UCE, WEAK)])
def test_an_edit_below_others_is_subtracted_and_marked(
    studio: Studio, erased, folder: Path, tmp_path: Path, first: tuple[str, ...], second: tuple[str, ...]
) -> None:
    erased("Cats", first, "cats")
    both = erased("Dogs", second, "both", "cats")
    mine = studio("ledger", both, "--json").document["edits"][1]["hash"]
    outcome = without(studio, both, "Cats", tmp_path / "left")
    assert outcome.code == 0, outcome.err
    assert outcome.document["approximate"] is True
    left = edit_of(tmp_path / "left")
    assert left.hash == mine  # Dogs' own delta stays to the bit
    assert "Cats" in left.about["approximate"]
    assert "Approximate" in studio("ledger", tmp_path / "left").out
    network = generators.load(folder).network
    base = weights(network)
    with left.applied(network):
        touched = {name for name, weight in weights(network).items() if not torch.equal(weight, base[name])}
    assert touched <= set(left.deltas)  # where Cats alone had changed something, the base is back
    assert same_bits(base, weights(network))
    refused = studio("reproduce", tmp_path / "left", "--out", tmp_path / "again")
    assert refused.code == 2
    assert "has been taken off" in refused.err


def test_a_run_without_an_edit_is_a_run(studio: Studio, erased, folder: Path, tmp_path: Path) -> None:
    erased("Cats", ESD, "cats")
    erased("Dogs", UCE, "two", "cats")
    three = erased("Birds", ESD, "three", "two")
    left = tmp_path / "left"
    hash = studio("ledger", three, "--json").document["edits"][0]["hash"]
    assert without(studio, three, hash[:8], left).code == 0
    assert [e["concepts"] for e in studio("ledger", left, "--json").document["edits"]] == [["Dogs"], ["Birds"]]
    record = json.loads((left / "job.json").read_text())
    assert (record["job"]["model"], open_run(left).status) == (str(folder), "done")
    assert len(record["job"]["parents"]) == 1
    drawn = studio("sample", left, "--seeds", "1", "--steps", "1", "--out", tmp_path / "x.png", "--json")
    assert drawn.document["edit"] == edit_of(left).hash
    four = erased("Frogs", UCE, "four", "left")
    assert [e["concepts"][0] for e in studio("ledger", four, "--json").document["edits"]] == ["Dogs", "Birds", "Frogs"]
    assert {entry["title"] for entry in studio("runs", left, "--json").document["runs"]} == {
        "Birds by esd, on top of Dogs"
    }


def test_mistakes_are_a_sentence_and_write_nothing(studio: Studio, erased, folder: Path, tmp_path: Path) -> None:
    alone, both = erased("Cats", ESD, "alone"), erased("Dogs", UCE, "both", "alone")
    out = tmp_path / "out"
    hash = edit_of(alone).hash
    for run, wanted, says in (
        (both, "Catz", "Did you mean 'Cats'?"),
        (both, "3", "the ledger has 1 to 2"),
        (both, "0", "the ledger has 1 to 2"),
        (both, "ffffffffffff", "number or hash"),
        (both, hash[:4], "number or hash"),  # too short to be meant as a hash
        (alone, "Cats", "this one edit only"),
        (folder, "Cats", "is not a run"),
    ):
        outcome = studio("ledger", run, "--without", wanted, "--out", out)
        assert outcome.code == 2, wanted
        assert says in outcome.err
        assert len([line for line in outcome.err.splitlines() if not line.startswith("Opening ")]) == 1
        assert not out.exists()
    assert "Add --out" in studio("ledger", both, "--without", "Cats").err
    assert "--without" in studio("ledger", both, "--out", out).err
    taken = studio("ledger", both, "--without", "Cats", "--out", alone)
    assert taken.code == 2
    assert "Choose another --out" in taken.err


def test_a_name_that_means_several_things_is_asked_about(studio: Studio, erased, folder: Path, tmp_path: Path) -> None:
    erased("Cats", UCE, "one")
    twice = erased("Cats", ESD, "twice", "one")
    outcome = without(studio, twice, "Cats", tmp_path / "out")
    assert outcome.code == 2
    assert "edits 1 and 2" in outcome.err
    together = studio("erase", folder, "--concept", "Cats", "--concept", "Dogs", *UCE, "--out", tmp_path / "together")
    assert together.code == 0
    more = erased("Birds", ESD, "more", "together")
    outcome = without(studio, more, "dogs", tmp_path / "out")
    assert outcome.code == 2
    assert "--without 1 takes all of them off" in outcome.err
