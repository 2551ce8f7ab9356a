"""What an erasure costs: seconds, peak memory, bytes to keep it."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from erase.work import Work

T = TypeVar("T")
SINCE_START = "ru_maxrss of the process since it started"

try:
    import resource
except ImportError:  # Windows has none
    resource = None


@dataclass(frozen=True)
class Cost:
    """Wall-clock seconds, and peak memory in bytes: the device's own count on CUDA, else of the whole process."""

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
        work.close()


class Peak:
    """The highest memory use since this was made, in bytes; `probe` says who counted."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self.probe = "torch.cuda.max_memory_allocated"
        elif _forget_peak():
            self.probe = "VmHWM of the process"
        else:
            self.probe = SINCE_START

    def bytes(self) -> float:
        """NaN where the system does not tell."""
        if self.device.type == "cuda":
            return float(torch.cuda.max_memory_allocated(self.device))
        if self.probe.startswith("VmHWM"):
            return _status("VmHWM")
        if resource is None:
            return float("nan")
        # macOS counts in bytes, everything else in KiB.
        return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def resident() -> float:
    """Bytes of memory the process uses now, freed ones given back first; NaN where the system does not tell."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # only glibc keeps them and can be asked
        ctypes.CDLL(None).malloc_trim(0)
    return _status("VmRSS")


def _forget_peak() -> bool:
    """Asks Linux to measure the process's peak from now on; False where that is not possible."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status(line: str) -> float:
    try:
        for text in Path("/proc/self/status").read_text().splitlines():
            if text.startswith(line + ":"):
                return float(text.split()[1]) * 1024
    except OSError:
        pass
    return float("nan")
