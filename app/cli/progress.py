"""Steps as one line on stderr: live on a terminal, a line now and then elsewhere; and Ctrl-C that waits for a Step."""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, TextIO, TypeVar

from erase.work import Work, drain

if TYPE_CHECKING:
    from erase.work import Step

T = TypeVar("T")

LIVE, QUIET = 0.1, 5.0  # seconds between redraws on a terminal, and between lines in a log

# Told what is being done, its Step, and the seconds that are left of the stage, if that can be said.
Watcher = Callable[[str, "Step", float | None], object]
_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


class Progress:
    """Prints Steps; call it once per Step and `end` it when the work is over."""

    def __init__(self, what: str, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self.what, self.stream, self.clock = what, stream or sys.stderr, clock
        self.live = self.stream.isatty()
        self.stage: str | None = None
        self.began = self.moved = clock()
        self.shown = -math.inf  # the first Step is shown at once
        self.first = self.done = 0

    def __call__(self, step: Step) -> None:
        """Show a Step, unless one was shown a moment ago."""
        now = self.clock()
        if step.stage != self.stage:
            self.stage, self.began, self.first = step.stage, now, step.done
            self.moved, self.done = now, step.done
        elif step.done != self.done:
            self.moved, self.done = now, step.done
        if (watcher := _watcher.get()) is not None:
            watcher(self.what, step, self.left(step, now))
        if now - self.shown < (LIVE if self.live else QUIET):
            return
        self.shown = now
        line = self.line(step, now)
        self.stream.write(f"\r\x1b[K{line[: width(self.stream) - 1]}" if self.live else line + "\n")
        self.stream.flush()

    def line(self, step: Step, now: float) -> str:
        """What is being done, how far it is, how long it will take, and the losses."""
        count = f"{step.done}/{step.total}" if step.total else f"{step.done}"
        parts = [f"{self.what}: {step.stage} {count} {step.unit}".rstrip()]
        if (left := self.left(step, now)) is not None:
            parts.append(f"about {duration(left)} left of this stage")
        parts += [f"{name} {value:.4g}" for name, value in step.loss.items()]
        return ", ".join(parts)

    def left(self, step: Step, now: float) -> float | None:
        """The seconds until this stage is over, if it goes on as it went so far; while a count stands it goes down."""
        if not step.total or step.done <= self.first:
            return None
        if (left := step.total - step.done) <= 0:
            return None
        each = (self.moved - self.began) / (step.done - self.first)
        return max(each * left - (now - self.moved), each * (left - 1))

    def end(self) -> None:
        """Wipe the live line, so that what follows starts on a clean one."""
        if self.live:
            self.stream.write("\r\x1b[K")
            self.stream.flush()


@contextlib.contextmanager
def watched(by: Watcher) -> Iterator[None]:
    """Inside the block, everything that is followed tells `by` of each of its Steps."""
    before = _watcher.set(by)
    try:
        yield
    finally:
        _watcher.reset(before)


def follow(work: Work[T], what: str) -> T:
    """Drain work with progress on stderr. Ctrl-C or a polite kill closes it at the next Step as KeyboardInterrupt."""
    progress = Progress(what)
    with _stoppable() as stopped:

        def on_step(step: Step) -> None:
            progress(step)
            if stopped():
                raise KeyboardInterrupt

        try:
            return drain(work, on_step)
        finally:
            progress.end()


@contextlib.contextmanager
def _stoppable() -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT or SIGTERM into a note to stop; the second interrupts at once."""
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt
        print("Stopping after this step; press Ctrl-C again to stop at once.", file=sys.stderr)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def width(stream: TextIO) -> int:
    """The columns of the terminal that a stream writes to; of another stream what the environment says, or 80."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError, AttributeError):
        return shutil.get_terminal_size().columns


def duration(seconds: float) -> str:
    """Seconds for people: 0.4 s, 35 s, 3 min, 2 h 10 min."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
