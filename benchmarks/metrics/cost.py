"""What an erasure costs: seconds, peak memory, bytes to keep it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from erase.work import Work

T = TypeVar("T")
ANONYMOUS, PERIOD = "RssAnon", 0.01  # the line of /proc/self/status; seconds
SINCE_START = "ru_maxrss of the process since it started"

try:
    import resource
except ImportError:  # Windows has none
    resource = None


@dataclass(frozen=True)
class Cost:
    """Wall-clock seconds, and peak memory in bytes: the device's own count on CUDA, else of the process's own."""

    seconds: float
    peak_memory_bytes: float
    probe: str

    @property
    def since_start(self) -> bool:
        """Whether the peak is that of the process since it started, which includes everything done before."""
        return self.probe == SINCE_START


def metered(work: Work[T], device: torch.device | str = "cpu") -> Work[tuple[T, Cost]]:
    """The same job with its cost beside its result, from "model in memory" to "result in hand".

    The clock stops while the caller looks at a Step, so slow progress bars are not charged.
    """
    peak = Peak(device)
    seconds = 0.0
    try:
        while True:
            start = time.perf_counter()
            try:
                step = next(work)
            except StopIteration as end:
                seconds += time.perf_counter() - start
                return end.value, Cost(seconds, peak.bytes(), peak.probe)
            seconds += time.perf_counter() - start
            yield step
    finally:
        peak.close()
        work.close()


class Peak:
    """The highest memory use since this was made, in bytes; `probe` says who counted.

    On Linux it is memory of this process alone: pages of files, which the system may drop at any time, are left out.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._watch: _Watch | None = None
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self.probe = "torch.cuda.max_memory_allocated"
        elif _status(ANONYMOUS) == _status(ANONYMOUS):
            self._watch = _Watch()
            self.probe = f"{ANONYMOUS} of the process, read every {PERIOD * 1000:.0f} ms"
        else:
            self.probe = SINCE_START

    def bytes(self) -> float:
        """NaN where the system does not tell; nothing is counted after the first call."""
        if self.device.type == "cuda":
            return float(torch.cuda.max_memory_allocated(self.device))
        if self._watch is not None:
            return self._watch.highest()
        if resource is None:
            return float("nan")
        # macOS counts in bytes, everything else in KiB.
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)

    def close(self) -> None:
        """Counts no further."""
        if self._watch is not None:
            self._watch.highest()


class _Watch:
    """The largest value of a process's anonymous memory, which Linux does not keep itself."""

    def __init__(self) -> None:
        self._most = _status(ANONYMOUS)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(PERIOD):
            self._most = max(self._most, _status(ANONYMOUS))

    def highest(self) -> float:
        """The largest value so far; the watch ends."""
        self._over.set()
        self._thread.join()
        self._most = max(self._most, _status(ANONYMOUS))
        return self._most


def resident() -> float:
    """Bytes of its own memory that the process uses now, freed ones given back; NaN where the system does not tell."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # only glibc keeps them and can be asked
        ctypes.CDLL(None).malloc_trim(0)
    return _status(ANONYMOUS)


def _status(line: str) -> float:
    try:
        for text in Path("/proc/self/status").read_text().splitlines():
            if text.startswith(line + ":"):
                return float(text.split()[1]) * 1024
    except OSError:
        pass
    return float("nan")
