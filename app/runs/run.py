"""A RUN folder: one erasure with everything about it, each file whole or absent.

job.json           the whole job as typed and as resolved, versions, seeds, base-model hash
state.json         running | done | cancelled | failed, with Steps and seconds so far
events.jsonl       one Step a line
state/             while unfinished: the two newest snapshots
ledger/            of an erasure stacked on others: each of them and its own, one file an edit, named by hash
edit.safetensors   the result; of a stacked erasure the sum
report.json, grid.png, previews/
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from pydantic import ValidationError

from app.runs.job import Job
from app.runs.stored import Stored, stored
from erase.errors import BadInput, reading
from erase.files import lock, make_folder, metadata, replace, sweep, write_json
from erase.work import Step

if TYPE_CHECKING:  # so that listing runs does not wait for torch
    from app.runs import checkpoints
    from erase.edit import Edit
    from erase.model import Generator

_CLAIMED: set[Path] = set()  # folders whose lock this process has, and in which it has not begun to work


@dataclass(frozen=True)
class Run:
    """An existing RUN folder; what changes while it runs is read from the disk each time it is asked for."""

    folder: Path
    record: Mapping[str, Any]  # job.json

    @property
    def job(self) -> Job:
        """The job this folder is for; BadInput when job.json is from another version or was edited by hand."""
        try:
            return Job.model_validate(self.record["job"])
        except (ValidationError, KeyError, TypeError) as error:
            raise BadInput(f"{self.folder / 'job.json'} holds no job this version can read: {error}") from error

    @property
    def state(self) -> dict[str, Any]:
        """state.json; a run that claims to be running while no process holds it is `lost`."""
        state = self._noted() or {"status": "running", "steps": 0, "seconds": 0.0}
        if state["status"] == "running" and not self._is_held():
            state["status"] = "lost"
        return state

    @property
    def status(self) -> str:
        """running, done, cancelled, failed or lost."""
        return self.state["status"]

    def _noted(self) -> dict[str, Any] | None:
        """state.json; when that is damaged, how far the newest snapshot reaches."""
        try:
            return _read_json(self.folder / "state.json")
        except BadInput:
            kept, _ = self.checkpoint()
            return kept and {"status": "running", "steps": kept.steps, "seconds": kept.seconds}

    @property
    def title(self) -> str:
        """All that is erased in this run: what it erases itself, and what the edits it is stacked on have erased."""
        before = [metadata(self._ledger(hash), "edit") for hash in self.job.parents]
        names = [concept["name"] for entry in before for concept in json.loads(entry or "{}")["about"]["concepts"]]
        return f"{self.job.title}, on top of {', '.join(dict.fromkeys(names))}" if names else self.job.title

    def edit(self) -> Edit:
        """The result; BadInput with the next step when the run has none yet."""
        from erase.edit import Edit

        path = self.folder / "edit.safetensors"
        if not path.is_file():
            raise BadInput(
                f"{self.folder} is {self.status} and holds no edit yet. `studio resume {self.folder}` finishes it."
            )
        edit = Edit.load(path)
        self._check(edit.about)
        return edit

    def _check(self, about: Mapping[str, Any]) -> None:
        """BadInput when an edit is about other concepts than this run's job."""
        path = self.folder / "edit.safetensors"
        made = [concept["name"] for concept in about.get("concepts", ()) if isinstance(concept, Mapping)]
        asked = [concept.name for concept in self.job.concepts]
        if made and made[-len(asked) :] != asked:  # of a stacked run the sum is about all that was erased
            raise BadInput(
                f"{path} says that it erases {', '.join(made)}, but job.json of that run says {', '.join(asked)}. "
                "One of the two files was changed by hand or belongs to another run; put the right one back."
            )

    def parents(self) -> list[Edit]:
        """The edits this one is stacked on, oldest first."""
        return [self._entry(hash) for hash in self.job.parents]

    def ledger(self) -> list[Edit]:
        """The edits whose sum is the result, oldest first: for an erasure from a plain model its own alone."""
        edit = self.edit()
        return [self._entry(entry["hash"]) for entry in edit.about.get("parents", ())] or [edit]

    def listed(self) -> Sequence[Stored | Edit]:
        """The ledger as far as a list needs it: read from the files' headers where these are whole."""
        path = self.folder / "edit.safetensors"
        own = stored(path)
        if own is None:
            return self.ledger()
        self._check(own.about)
        parents = [stored(self._ledger(entry["hash"])) for entry in own.about.get("parents", ())]
        return self.ledger() if None in parents else [each for each in parents if each is not None] or [own]

    def enter(self, edit: Edit) -> None:
        """Write an edit into the ledger."""
        with replace(self._ledger(edit.hash)) as part:
            edit.save(part)

    def _entry(self, hash: str) -> Edit:
        from erase.edit import Edit

        path = self._ledger(hash)
        if not path.is_file():
            raise BadInput(f"{self.folder} stands on an edit that its ledger has lost: {path} is missing. Erase again.")
        return Edit.load(path)

    def _ledger(self, hash: str) -> Path:
        return self.folder / "ledger" / f"{hash[:16]}.safetensors"

    def report(self) -> dict[str, Any] | None:
        """report.json as it is, when the run has been judged."""
        return _read_json(self.folder / "report.json")

    def checkpoint(self) -> tuple[checkpoints.Checkpoint | None, list[str]]:
        """The newest undamaged snapshot, and a sentence for each damaged one."""
        from app.runs import checkpoints

        return checkpoints.newest(self.folder / "state", self.job.hash)

    def keep_checkpoint(self, checkpoint: checkpoints.Checkpoint) -> None:
        """Write a snapshot and note in state.json how far it reaches."""
        from app.runs import checkpoints

        checkpoints.save(self.folder / "state", checkpoint, self.job.hash)
        self.note("running", checkpoint.steps, checkpoint.seconds)

    def note(self, status: str, steps: int, seconds: float, **more: Any) -> None:
        """Replace state.json."""
        write_json(self.folder / "state.json", {"status": status, "steps": steps, "seconds": round(seconds, 3), **more})

    def finish(self, edit: Edit, steps: int, seconds: float, **cost: Any) -> None:
        """Write the edit, then say so, then drop the snapshots: killed in between, the run is resumed or done."""
        with replace(self.folder / "edit.safetensors") as part:
            edit.save(part)
        self.note("done", steps, seconds, **cost)
        shutil.rmtree(self.folder / "state", ignore_errors=True)

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Be the one process that works on this run."""
        place = self.folder.resolve()
        mine = place in _CLAIMED
        with contextlib.nullcontext() if mine else _locked(self.folder):
            _CLAIMED.discard(place)  # from here on it is worked on, by nobody else in this process either
            try:
                sweep(self.folder)
                yield
            finally:
                _CLAIMED.update({place} if mine else ())

    @contextlib.contextmanager
    def events(self, steps: int) -> Iterator[Events]:
        """Open events.jsonl to go on after `steps` Steps: later lines, and one torn by a kill, are cut off."""
        path = self.folder / "events.jsonl"
        lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
        with path.open("r+b" if path.exists() else "w+b") as file:
            file.truncate(sum(map(len, lines[:steps])))
            file.seek(0, 2)
            yield Events(self.folder, file, steps)

    def check_base(self, model: Generator) -> None:
        """BadInput when the base model is not the one this run began with."""
        begun = self.record.get("base", {}).get("fingerprint", model.fingerprint)
        if model.fingerprint != begun:
            raise BadInput(
                f"The base model has changed since {self.folder} began: its weights hash to {model.fingerprint[:12]}, "
                f"then {str(begun)[:12]}. Put the old model back, or start a new run."
            )

    def _is_held(self) -> bool:
        try:
            with FileLock(self.folder / ".lock", timeout=0):
                return False
        except Timeout:
            return True
        except OSError:  # a place where nobody can write, so nobody works there
            return False


class Events:
    """The log of Steps: one line each, pictures beside it in previews/."""

    def __init__(self, folder: Path, file: Any, steps: int) -> None:
        self.folder, self.file, self.steps = folder, file, steps

    def add(self, step: Step) -> None:
        """Append one Step; its preview, if any, becomes previews/<number>.png."""
        self.steps += 1
        line: dict[str, Any] = {
            "at": round(time.time(), 3),
            "stage": step.stage,
            "done": step.done,
            "total": step.total,
        }
        line |= {"loss": dict(step.loss)} if step.loss else {}
        if step.preview is not None:
            from app.runs.pictures import save_picture

            picture = self.folder / "previews" / f"{self.steps:08d}.png"
            save_picture(step.preview, picture)
            line["preview"] = f"previews/{picture.name}"
        self.file.write(json.dumps(line).encode() + b"\n")
        self.file.flush()


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Be the one process that may look at `folder`, begin a run there and work on it.

    BadInput before anything is written when another process has the folder. A run that was begun here and refused
    before its first Step leaves nothing, so that the corrected command finds the folder free.
    """
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} exists and is not an empty folder or a run. Choose another --out.")
    there = folder.exists()
    make_folder(folder)
    with _locked(folder):
        was_run = is_run(folder)
        _CLAIMED.add(folder.resolve())
        try:
            yield
        except BadInput:
            if not was_run and is_run(folder) and open_run(folder).state["steps"] == 0:
                _remove(folder)
            raise
        finally:
            _CLAIMED.discard(folder.resolve())
            if not is_run(folder):
                with contextlib.suppress(OSError):  # while it is held: nobody else's lock is taken away
                    (folder / ".lock").unlink()
                    if not there:
                        folder.rmdir()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder's lock; the system lets go of it even after kill -9."""
    # Somebody who asks for the status holds the lock for a moment.
    with lock(folder, timeout=0.5):
        yield


def _remove(folder: Path) -> None:
    """Take away what a run has written that made no Step."""
    for name in ("job.json", "state.json", "events.jsonl"):
        (folder / name).unlink(missing_ok=True)
    for name in ("ledger", "state", "previews"):
        shutil.rmtree(folder / name, ignore_errors=True)


def create(
    folder: Path, job: Job, record: Mapping[str, Any], ledger: Sequence[Edit] = (), finished: Edit | None = None
) -> Run:
    """Lay out a new RUN; job.json comes last, so that a folder with one has all that resuming needs.

    `ledger` are the edits it stands on; a run that needs no work brings its own among them, and what it ends in.
    """
    make_folder(folder)
    content = {"version": 1, "hash": job.hash, "job": job.model_dump(mode="json"), **record}
    run = Run(folder, content)
    for edit in ledger:
        run.enter(edit)
    if finished is not None:
        run.finish(finished, 0, 0.0)
    write_json(folder / "job.json", content)
    return run


def is_run(folder: str | Path) -> bool:
    """Whether a path is a RUN folder: it has a job.json."""
    return (Path(folder) / "job.json").is_file()


def open_run(folder: str | Path) -> Run:
    """An existing RUN; BadInput when the folder is missing or is something else."""
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"There is no folder {folder}. `studio runs` lists the runs below a folder.")
    record = _read_json(folder / "job.json")
    if record is None:
        raise BadInput(f"{folder} is not a run: it has no job.json. `studio erase` makes runs.")
    return Run(folder, record)


def find_runs(root: Path, depth: int = 3) -> list[Run]:
    """The runs in `root` and below it, by name, hidden folders left out; one with a damaged job.json has no job."""
    if is_run(root):
        try:
            return [open_run(root)]
        except BadInput:
            return [Run(root, {})]
    if depth == 0 or not root.is_dir():
        return []
    below = [child for child in sorted(root.iterdir()) if child.is_dir() and not child.name.startswith(".")]
    return [run for child in below for run in find_runs(child, depth - 1)]


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        with reading(path, "JSON"):
            value = json.loads(path.read_text(encoding="utf-8-sig"))
    except BadInput as error:
        raise BadInput(f"{error} It belongs to a run; move the run's folder away and start again.") from error
    if not isinstance(value, dict):
        raise BadInput(f"{path} is not a JSON object, so it does not belong to a run.")
    return value
