"""One erasure in its RUN folder: prepared, run with its state kept, resumed, and finished to the same bits."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

from app.runs.checkpoints import Checkpoint
from app.runs.job import Job, circumstances
from app.runs.previews import previewed
from app.runs.run import Events, Run, create, is_run, open_run
from benchmarks.metrics.cost import Peak
from erase.edit import Edit
from erase.errors import BadInput, DiskFull
from erase.files import free_bytes, require_space, size
from erase.methods.registry import build
from erase.model import Generator
from erase.request import Request, run_method
from erase.work import Step, Work

SAVE_EVERY = 30.0  # seconds between snapshots: the most work that a power cut can cost
SAVE_SHARE = 20  # a snapshot that takes a second to write is written at most every 20 seconds


def occupied(folder: Path, job: Job, resume: bool) -> Run | None:
    """The run that `folder` holds for this job; None when it is free, BadInput when it holds something else.

    To be asked by the process that has claimed the folder: no other works on what is found there.
    """
    if not is_run(folder):
        if folder.exists() and (not folder.is_dir() or _things_in(folder)):
            raise BadInput(f"{folder} exists and is not an empty folder or a run. Choose another --out.")
        return None
    run = open_run(folder)
    if run.job.hash != job.hash:
        differences = "; ".join(run.job.differences(job))
        raise BadInput(f"{folder} already holds another run ({run.job.title}): {differences}. Choose another --out.")
    status = "lost" if run.status == "running" else run.status
    if status != "done" and not resume:
        raise BadInput(
            f"{folder} holds this very job, {status} after {run.state['steps']} steps. "
            "Add --resume to go on, or choose another --out."
        )
    return run


def prepare(folder: Path, job: Job, model: Generator, parents: Sequence[Edit], record: Mapping[str, Any]) -> Run:
    """A new RUN folder for a job whose model is loaded; BadInput when the disk has no room for what it will write."""
    require_space(folder, _needed(model, parents), f"erasing {job.title}")
    base = {"name": model.name, "fingerprint": model.fingerprint}
    return create(folder, job, {"base": base, **circumstances(model), **record}, parents)


def erase_in(
    run: Run,
    model: Generator,
    warn: Callable[[str], object],
    save_every: float = SAVE_EVERY,
    previews: float | None = None,
) -> Work[Edit]:
    """Run or resume the job of a RUN folder. Closed at a Step, it first writes that Step's state: nothing is lost.

    `previews` are the seconds between pictures of what the deltas in a Step's state draw; None draws none.
    Raises BadInput when the base model is not the one the run began with, or another process works on the run.
    """
    run.check_base(model)
    job, parents = run.job, run.parents()
    method = build(job.method, overrides=dict(job.knobs))
    with run.held(), stacked(parents).applied(model.network) if parents else contextlib.nullcontext():
        checkpoint, damaged = run.checkpoint()
        for sentence in damaged:
            warn(sentence)
        keeper = _Keeper(run, checkpoint, save_every)
        work = run_method(
            method,
            Request(model, job.concepts, job.keep, seed=job.seed),
            state=None if checkpoint is None else checkpoint.tensors,
        )
        if previews is not None:
            work = previewed(work, model, job.concepts, job.keep, previews)
        peak = Peak(model.device)
        try:
            with contextlib.closing(work), contextlib.closing(peak), run.events(keeper.steps) as events:
                edit = yield from _watched(work, keeper, events)
        finally:
            # Reached on every way out; `finish` below says `done` over it when there is an edit.
            run.note(keeper.status, keeper.steps, keeper.seconds)
        whole = stacked([*parents, edit]) if parents else edit
        cost = {"peak_memory_bytes": _whole(peak.bytes()), "memory_probe": peak.probe}
        try:
            if parents:
                run.enter(edit)
            run.finish(whole, keeper.steps, keeper.seconds, **cost)
        except DiskFull as error:
            raise DiskFull(
                f"The disk has no room for the edit of {run.folder}, which needs {size(whole.storage_bytes)}. "
                f"Free some space, then `studio resume {run.folder}` goes on from the last snapshot."
            ) from error
        return whole


def _watched(work: Work[Edit], keeper: _Keeper, events: Events) -> Work[Edit]:
    """The same work with every Step logged and kept; when it is stopped at a Step, that Step's state is written."""
    while True:
        try:
            step = keeper.timed(lambda: next(work))
        except StopIteration as end:
            return end.value
        except KeyboardInterrupt:
            keeper.status = "cancelled"
            raise
        events.add(step)
        keeper.look(step)
        try:
            yield step
        except BaseException:  # whatever is raised here is the caller's wish to stop, GeneratorExit above all
            keeper.status = "cancelled"
            keeper.save()
            raise


class _Keeper:
    """Counts Steps and seconds, and writes a snapshot when one is due and the method offers its state."""

    def __init__(self, run: Run, checkpoint: Checkpoint | None, every: float) -> None:
        self.run, self.every = run, every
        self.steps = checkpoint.steps if checkpoint else 0
        self.seconds = checkpoint.seconds if checkpoint else 0.0
        self.status = "failed"  # what it will have been, unless the work is stopped or ends well
        self.kept, self.cost = time.monotonic(), 0.0  # when a snapshot was written, and the seconds it took
        self.reached = self.steps, self.seconds  # where a job resumed from the newest state begins
        self.state: Callable[[], dict[str, Any]] | None = None
        run.note("running", self.steps, self.seconds)

    def timed(self, call: Callable[[], Step]) -> Step:
        """One Step, its seconds counted; from the moment it is asked for, the last Step's state is void."""
        self.state = None
        start = time.perf_counter()
        try:
            return call()
        finally:
            self.seconds += time.perf_counter() - start

    def look(self, step: Step) -> None:
        """Count a Step and keep its state when enough time has passed, at the end of a stage sooner."""
        self.steps += 1
        self.state = step.state
        if not step.stale:
            self.reached = self.steps, self.seconds
        start = time.monotonic()
        patience = 0.0 if step.done == step.total else self.every
        if start - self.kept >= max(patience, SAVE_SHARE * self.cost if self.every else 0.0):
            self.save()
            self.kept = time.monotonic()
            self.cost = self.kept - start

    def save(self) -> None:
        """Write the last Step's state, if it has one that still holds."""
        if self.state is None:
            return
        tensors = self.state()
        free, needed = free_bytes(self.run.folder), sum(tensor.nbytes for tensor in tensors.values())
        if free < needed:
            raise DiskFull(
                f"The disk has {size(free)} free and the state after {self.steps} steps needs {size(needed)}. "
                f"Free some space, then `studio resume {self.run.folder}` goes on from the snapshot before."
            )
        self.run.keep_checkpoint(Checkpoint(tensors, *self.reached))


def stacked(edits: Sequence[Edit]) -> Edit:
    """The sum, which alone on the base does what all did; it is about the newest and lists every one in `parents`."""
    if len(edits) == 1:
        return edits[0]
    concepts = [concept for edit in edits for concept in edit.about.get("concepts", ())]
    listed = [{"hash": edit.hash, "strength": 1.0, "about": dict(edit.about)} for edit in edits]
    total = reduce(add, edits)
    return Edit(total.deltas, {**edits[-1].about, "concepts": concepts, "parents": listed})


def _whole(count: float) -> int | None:
    """A count of bytes; None where the system could not tell."""
    return None if math.isnan(count) else int(count)


def _things_in(folder: Path) -> list[str]:
    """What is in a folder beside what a run leaves that was killed before it had a job.json."""
    return [path.name for path in folder.iterdir() if not path.name.startswith(".") and path.name != "ledger"]


def _needed(model: Generator, parents: Sequence[Edit]) -> int:
    """Bytes a run writes at least: an edit of the readers, and for a stacked run every parent and the sum."""
    edit = sum(4 * reader.weight.numel() for reader in model.readers().values())
    return edit + 2 * sum(parent.storage_bytes for parent in parents)
