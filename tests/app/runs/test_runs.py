"""A RUN folder survives being stopped, killed, damaged and misused; what it ends in is always the same edit."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from app.cli.main import main
from app.runs import erase as runs_erase
from app.runs.erase import erase_in, occupied, prepare
from app.runs.job import Job
from app.runs.run import Run, find_runs, open_run
from erase import edit as edits
from erase import files
from erase.concept import Concept
from erase.edit import Edit
from erase.errors import BadInput, DiskFull
from erase.methods.registry import build
from erase.work import Step, Work, drain, map_steps
from tests.app.runs.conftest import walk_job
from tests.toys.compare import same_bits, weights
from tests.toys.denoiser import Toy

Begin = Callable[..., Run]


def finished(run: Run, toy: Toy, **options: float) -> Edit:
    return drain(erase_in(run, toy, warn=pytest.fail, **options))


def stopped_at(run: Run, toy: Toy, step: int, save_every: float = 1e9) -> None:
    """Close the work at its n-th Step, as the command line does on Ctrl-C."""
    work = erase_in(run, toy, warn=pytest.fail, save_every=save_every)
    for _ in range(step):
        next(work)
    work.close()


def killed_at(run: Run, toy: Toy, step: int) -> None:
    """Snapshots after every Step, then sudden death: no generator is closed, no file tidied, no status noted."""
    work = erase_in(run, toy, warn=pytest.fail, save_every=0.0)
    for _ in range(step):
        next(work)
    state, job = run.folder / "state", (run.folder / "state.json").read_bytes()
    frozen = {path: path.read_bytes() for path in state.iterdir()}
    work.close()
    for path in state.iterdir():
        path.unlink()
    for path, content in frozen.items():
        path.write_bytes(content)
    (run.folder / "state.json").write_bytes(job)


def test_a_finished_run_has_what_the_interface_names(begin: Begin, toy: Toy) -> None:
    run = begin()
    edit = finished(run, toy)
    assert {path.name for path in run.folder.iterdir() if not path.name.startswith(".")} == {
        "job.json", "state.json", "events.jsonl", "edit.safetensors",
    }  # fmt: skip
    record = json.loads((run.folder / "job.json").read_text())
    assert record["base"] == {"name": "toy", "fingerprint": toy.fingerprint}
    assert record["hash"] == run.job.hash
    assert record["job"]["knobs"]["steps"] == 8
    assert record["versions"]["torch"] == torch.__version__
    assert record["typed"] == "a test"
    events = [json.loads(line) for line in (run.folder / "events.jsonl").read_text().splitlines()]
    assert [event["done"] for event in events] == list(range(1, 9))
    assert events[-1]["loss"] == {"length": 8.0}
    assert Edit.load(run.folder / "edit.safetensors").hash == edit.hash
    assert run.status == "done"
    assert run.state["peak_memory_bytes"] > 0


@pytest.mark.parametrize("step", [1, 5, 8])
def test_closing_at_a_step_keeps_it_and_resuming_ends_in_the_same_bits(begin: Begin, toy: Toy, step: int) -> None:
    straight = finished(begin("straight"), toy)
    run, before = begin("stopped"), weights(toy.network)
    stopped_at(run, toy, step)
    assert run.status == "cancelled"
    assert run.state["steps"] == step
    assert same_bits(before, weights(toy.network))
    resumed = []
    edit = drain(erase_in(run, toy, warn=pytest.fail), resumed.append)
    assert edit.hash == straight.hash
    assert [step.done for step in resumed] == list(range(step + 1, 9))
    events = (run.folder / "events.jsonl").read_text().splitlines()
    assert [json.loads(line)["done"] for line in events] == list(range(1, 9))


def test_a_killed_run_is_lost_and_resumes_to_the_same_bits(begin: Begin, toy: Toy) -> None:
    straight = finished(begin("straight"), toy)
    run = begin("killed")
    killed_at(run, toy, 5)
    with (run.folder / "events.jsonl").open("a") as file:
        file.write('{"stage": "wal')  # torn in the middle of a line
    torn = [run.folder / ".999-state.json", run.folder / "state" / ".999-00000006.safetensors"]
    for path in torn:
        path.write_text("half a fi")
    assert run.status == "lost"
    assert finished(run, toy).hash == straight.hash
    assert not any(path.exists() for path in torn)
    assert len((run.folder / "events.jsonl").read_text().splitlines()) == 8


def test_a_run_killed_before_its_first_snapshot_starts_over(begin: Begin, toy: Toy) -> None:
    straight = finished(begin("straight"), toy)
    run = begin("early")
    assert run.status == "lost"
    assert finished(run, toy).hash == straight.hash


@pytest.mark.parametrize("damage", ["cut", "bit", "empty"])
def test_a_damaged_newest_snapshot_falls_back_to_the_older(begin: Begin, toy: Toy, damage: str) -> None:
    straight = finished(begin("straight"), toy)
    run = begin("damaged")
    killed_at(run, toy, 5)
    older, newest = sorted((run.folder / "state").glob("*.safetensors"))
    assert (older.stem, newest.stem) == ("00000004", "00000005")
    content = newest.read_bytes()
    harmed = {"cut": content[:-7], "bit": content[:-1] + bytes([content[-1] ^ 1]), "empty": b""}[damage]
    newest.write_bytes(harmed)
    warnings: list[str] = []
    steps: list[Step] = []
    edit = drain(erase_in(run, toy, warn=warnings.append), steps.append)
    assert steps[0].done == 5
    assert edit.hash == straight.hash
    assert len(warnings) == 1
    assert "00000005" in warnings[0]


def test_a_snapshot_of_another_job_is_not_taken(begin: Begin, toy: Toy) -> None:
    run, other = begin("one"), begin("other", seed=1)
    killed_at(run, toy, 3)
    killed_at(other, toy, 5)
    (other.folder / "state" / "00000005.safetensors").replace(run.folder / "state" / "00000005.safetensors")
    assert run.checkpoint()[0].steps == 3
    assert "another job" in run.checkpoint()[1][0]


def test_a_failing_method_leaves_a_failed_run_that_can_go_on(begin: Begin, toy: Toy) -> None:
    run = begin(fail_at=4)
    with pytest.raises(RuntimeError, match="told to fail"):
        finished(run, toy, save_every=0.0)
    assert run.status == "failed"
    assert run.checkpoint()[0].steps == 3
    assert not (run.folder / "edit.safetensors").exists()


def test_two_processes_cannot_work_on_one_run(begin: Begin, toy: Toy) -> None:
    run = begin()
    first = erase_in(run, toy, warn=pytest.fail)
    next(first)
    assert run.status == "running"
    with pytest.raises(BadInput, match="another process"):
        finished(run, toy)
    first.close()
    assert finished(run, toy).hash


def test_a_changed_base_model_is_refused(begin: Begin) -> None:
    run = begin()
    with pytest.raises(BadInput, match="base model has changed"):
        finished(run, Toy(seed=1))


def test_stacking_wears_the_parent_and_keeps_the_sum(begin: Begin, toy: Toy, tmp_path: Path) -> None:
    parent = finished(begin("parent"), toy)
    run = begin("child", concepts=(Concept(name="Dogs"),), seed=5, applied=[parent])
    alone = finished(begin("alone", concepts=(Concept(name="Dogs"),), seed=5), toy)
    before = weights(toy.network)
    seen = []

    def look(step: Step) -> None:
        seen.append(weights(toy.network))

    edit = drain(erase_in(run, toy, warn=pytest.fail), look)
    assert same_bits(before, weights(toy.network))
    with parent.applied(toy.network):
        assert same_bits(seen[0], weights(toy.network))  # the walk happened on the parent's weights
    name = next(iter(edit.deltas))
    torch.testing.assert_close(edit.deltas[name], parent.deltas[name] + alone.deltas[name])
    assert [concept["name"] for concept in edit.about["concepts"]] == ["Cats", "Dogs"]
    assert [entry["hash"] for entry in edit.about["parents"]] == [parent.hash, alone.hash]
    assert edit.about["base"] == toy.fingerprint
    assert run.title == "Dogs by walk, on top of Cats"
    assert [entry.hash for entry in run.ledger()] == [parent.hash, alone.hash]
    third = finished(begin("third", concepts=(Concept(name="Birds"),), seed=6, applied=run.ledger()), toy)
    assert [entry["hash"] for entry in third.about["parents"]][:2] == [parent.hash, alone.hash]
    torch.testing.assert_close(
        third.deltas[name], sum(entry.deltas[name] for entry in open_run(tmp_path / "third").ledger())
    )


def test_a_ledger_that_lost_an_edit_says_so(begin: Begin, toy: Toy) -> None:
    parent = finished(begin("parent"), toy)
    run = begin("child", seed=5, applied=[parent])
    finished(run, toy)
    for file in (run.folder / "ledger").glob(f"{parent.hash[:16]}*"):
        file.unlink()
    with pytest.raises(BadInput, match="its ledger has lost"):
        run.ledger()


def test_a_stacked_run_resumes_to_the_same_bits(begin: Begin, toy: Toy) -> None:
    parent = finished(begin("parent"), toy)
    straight = finished(begin("straight", seed=5, applied=[parent]), toy)
    run = begin("stopped", seed=5, applied=[parent])
    stopped_at(run, toy, 3)
    assert finished(run, toy).hash == straight.hash


def test_a_folder_is_free_or_holds_this_job_or_is_refused(begin: Begin, toy: Toy, tmp_path: Path) -> None:
    job = walk_job()
    assert occupied(tmp_path / "new", job, resume=False) is None
    (tmp_path / "empty").mkdir()
    assert occupied(tmp_path / "empty", job, resume=False) is None
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "holiday.jpg").touch()
    with pytest.raises(BadInput, match="not an empty folder or a run"):
        occupied(tmp_path / "full", job, resume=False)
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="not an empty folder or a run"):
        occupied(tmp_path / "file", job, resume=False)

    run = begin()
    stopped_at(run, toy, 2)
    with pytest.raises(BadInput, match="cancelled after 2 steps. Add --resume"):
        occupied(run.folder, job, resume=False)
    assert occupied(run.folder, job, resume=True) == run
    with pytest.raises(BadInput, match="steps is 8 there and 9 here"):
        occupied(run.folder, walk_job(steps=9), resume=True)
    with pytest.raises(BadInput, match="'Cats' .* there and 'Dogs'"):
        occupied(run.folder, walk_job(concepts=(Concept(name="Dogs"),)), resume=False)
    finished(run, toy)
    assert occupied(run.folder, job, resume=False).status == "done"


def test_no_room_is_said_before_anything_is_written(
    begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.shutil, "disk_usage", lambda place: SimpleNamespace(free=1_200_000))
    with pytest.raises(BadInput, match=r"1.2 MB free; erasing Cats by walk needs about"):
        begin("run")
    assert not (tmp_path / "run").exists()


def test_a_disk_that_fills_up_leaves_the_last_whole_snapshot(
    begin: Begin, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = finished(begin("straight"), toy)
    run, real = begin("full"), os.fsync
    work = erase_in(run, toy, warn=pytest.fail, save_every=0.0)
    for _ in range(4):
        next(work)

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(DiskFull, match="Free some space"):
        next(work)
    monkeypatch.setattr(files.os, "fsync", real)
    assert run.checkpoint()[0].steps == 4
    assert not [path for path in run.folder.rglob("*") if path.name.startswith(".") and path.name != ".lock"]
    assert finished(run, toy).hash == straight.hash


QUICK = {
    "salun": {"epochs": 1, "steps": 2, "seeds": 17, "retain": 0, "batch": 9, "templates": False, "lr": 1e-3},
    "ablate": {"iterations": 2, "steps": 2, "seeds": 17, "batch": 2, "templates": False, "lr": 1e-3},
}


@pytest.mark.parametrize("method", QUICK)
def test_a_run_killed_in_any_stage_goes_on_from_that_step(method: str, toy: Toy, tmp_path: Path) -> None:
    knobs = build(method, overrides=QUICK[method]).model_dump(mode="json")  # type: ignore[attr-defined]
    job = Job(model="toy", concepts=(Concept(name="Cats"),), method=method, knobs=knobs)
    straight, steps = prepare(tmp_path / "straight", job, toy, (), {}), []
    edit = drain(erase_in(straight, toy, warn=pytest.fail), steps.append)
    assert [step.done for step in steps if step.stage == "draw"]
    for at in (1, 3, len(steps) - 1):
        run = prepare(tmp_path / f"killed-{at}", job, toy, (), {})
        killed_at(run, toy, at)
        assert run.state["steps"] == at
        resumed: list[Step] = []
        assert drain(erase_in(run, toy, warn=pytest.fail), resumed.append).hash == edit.hash
        assert [(step.stage, step.done) for step in resumed] == [(step.stage, step.done) for step in steps[at:]]
        assert run.state["steps"] == straight.state["steps"] == len(steps)
        assert (run.folder / "events.jsonl").read_bytes().count(b"\n") == len(steps)


def test_steps_that_are_made_again_are_counted_once(begin: Begin, toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    work, kept = runs_erase.run_method, {}

    def stale(*given: object, **options: object) -> Work[Edit]:
        """The walk, whose third to fifth Steps offer the state of the second."""

        def change(step: Step) -> Step:
            if step.done == 2:
                kept.update({name: value.clone() for name, value in step.state().items()})
            return replace(step, state=kept.copy, stale=True) if step.done in (3, 4, 5) else step

        return map_steps(work(*given, **options), change)

    monkeypatch.setattr(runs_erase, "run_method", stale)
    straight, run = begin("straight"), begin("stopped")
    edit = finished(straight, toy)
    stopped_at(run, toy, 4)
    assert run.checkpoint()[0].steps == 2
    assert finished(run, toy).hash == edit.hash
    assert run.state["steps"] == straight.state["steps"] == 8


def test_no_room_for_the_edit_keeps_the_last_state_and_names_resume(
    begin: Begin, toy: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, run = finished(begin("straight"), toy), begin("full")

    def full(*given: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(DiskFull, match=f"studio resume {run.folder}"):
        patched.setattr(edits, "save_file", full)
        finished(run, toy)
    assert run.checkpoint()[0].steps == 8
    left: list[Step] = []
    assert drain(erase_in(run, toy, warn=pytest.fail), left.append).hash == straight.hash
    assert not left


def test_runs_are_found_by_folder(begin: Begin, tmp_path: Path) -> None:
    begin("a/one")
    begin("two")
    assert [run.folder.name for run in find_runs(tmp_path)] == ["one", "two"]
    with pytest.raises(BadInput, match="no job.json"):
        open_run(tmp_path)
    (tmp_path / "two" / "job.json").write_text("{")
    with pytest.raises(BadInput, match="cannot be read as JSON"):
        open_run(tmp_path / "two")


def test_equal_jobs_have_equal_hashes() -> None:
    assert walk_job().hash == walk_job().hash
    assert len({walk_job().hash, walk_job(seed=1).hash, walk_job(steps=9).hash, walk_job(parents=("a",)).hash}) == 4


@pytest.mark.parametrize("file", ["job.json", "state.json", "report.json"])
def test_one_damaged_run_hides_no_other(
    file: str, begin: Begin, toy: Toy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "c"):
        finished(begin(name), toy)
    (tmp_path / "b" / file).write_text('{"status"')
    assert main(["runs", str(tmp_path), "--json"]) == 0
    printed = capsys.readouterr()
    statuses = {Path(run["run"]).name: run["status"] for run in json.loads(printed.out)["runs"]}
    assert (statuses["a"], statuses["c"]) == ("done", "done")
    assert statuses["b"] == ("lost" if file == "state.json" else "damaged")
    assert (file in printed.err) == (file != "state.json")


@pytest.mark.parametrize("content", ["", '{"status": "run'])
def test_a_damaged_state_is_recovered_from_the_snapshot(content: str, begin: Begin, toy: Toy) -> None:
    straight = finished(begin("straight"), toy)
    run = begin("damaged")
    stopped_at(run, toy, 3)
    (run.folder / "state.json").write_text(content)
    assert (run.state["status"], run.state["steps"]) == ("lost", 3)
    assert finished(run, toy).hash == straight.hash
