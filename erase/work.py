"""Long jobs as generators: they yield Steps, return a result, and may be closed at any Step."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:  # so that listing methods and printing help never wait for torch
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Step:
    """One unit of progress: `done` of `total` in `stage`, counted in `unit`s where these have a name.

    `preview` is an image batch [n 3 h w] in [0, 1]. `state()` gives the tensors from which the job can be resumed to
    the same bits; it is good until the next Step is asked for, so the caller decides when to copy it to disk.
    A `stale` state is that of an earlier Step: a job resumed from it makes this Step again.
    """

    stage: str
    done: int
    total: int | None = None
    loss: Mapping[str, float] = field(default_factory=dict)
    preview: Tensor | None = None
    state: Callable[[], dict[str, Tensor]] | None = None
    stale: bool = False
    unit: str = ""


Work = Generator[Step, None, T]


def drain(work: Work[T], on_step: Callable[[Step], object] | None = None) -> T:
    """Runs a job to its end and returns the result; the job is closed if `on_step` raises."""
    try:
        while True:
            step = next(work)
            if on_step is not None:
                on_step(step)
    except StopIteration as end:
        return end.value
    finally:
        work.close()


def map_steps(work: Work[T], change: Callable[[Step], Step]) -> Work[T]:
    """The same job with every Step changed; its result is passed on, and closing this job closes that one."""
    try:
        while True:
            try:
                step = next(work)
            except StopIteration as end:
                return end.value
            yield change(step)
    finally:
        work.close()


def with_state(work: Work[T], more: Mapping[str, Tensor]) -> Work[T]:
    """The same job, with more tensors in the state of each of its Steps: what the jobs before it have finished.

    A Step without a state gets theirs, which is stale.
    """

    def change(step: Step) -> Step:
        own = step.state
        if own is None:
            return replace(step, state=lambda: dict(more), stale=True)
        return replace(step, state=lambda: {**more, **own()})

    return map_steps(work, change)
