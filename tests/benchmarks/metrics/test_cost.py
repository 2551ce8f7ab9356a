"""The meter: seconds of the job alone, and memory that is really counted."""

from __future__ import annotations

import mmap
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from benchmarks.metrics.cost import Peak, metered, resident
from erase.work import Step, Work, drain


def job(naps: int, nap: float, megabytes: int = 0) -> Work[str]:
    for done in range(naps):
        time.sleep(nap)
        held = torch.ones(megabytes * 2**18) if megabytes else None
        del held
        yield Step("nap", done + 1, naps)
    return "rested"


def test_the_result_comes_with_its_seconds() -> None:
    seen: list[Step] = []
    result, cost = drain(metered(job(3, 0.02)), seen.append)
    assert (result, [step.done for step in seen]) == ("rested", [1, 2, 3])
    assert 0.06 <= cost.seconds < 0.5


def test_the_clock_stops_while_the_caller_looks() -> None:
    _, cost = drain(metered(job(3, 0.0)), lambda _: time.sleep(0.1))
    assert cost.seconds < 0.1


def test_peak_memory_counts_what_was_let_go_again() -> None:
    _, small = drain(metered(job(1, 0.0)))
    _, large = drain(metered(job(1, 0.0, megabytes=300)))
    if not small.since_start:
        assert large.peak_memory_bytes - small.peak_memory_bytes > 200 * 2**20
    assert large.peak_memory_bytes > 300 * 2**20


def test_memory_held_now_is_below_its_peak() -> None:
    peak = Peak()
    torch.ones(50 * 2**18)
    assert 0 < resident() <= peak.bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells memory of files from the process's own")
def test_pages_of_files_are_not_counted(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(bytes(200 * 2**20))

    def reads() -> Work[int]:
        with (tmp_path / "weights").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages:
            total = sum(pages[at] for at in range(0, len(pages), mmap.PAGESIZE))
        yield Step("read", 1, 1)
        return total

    before = resident()
    _, cost = drain(metered(reads()))
    assert cost.peak_memory_bytes - before < 50 * 2**20


def test_a_job_that_is_closed_leaves_no_watch_behind() -> None:
    before = threading.active_count()
    work = metered(job(2, 0.0))
    next(work)
    assert threading.active_count() == before + (sys.platform == "linux")
    work.close()
    assert threading.active_count() == before


def test_closing_the_meter_closes_the_job() -> None:
    closed = []

    def watched() -> Work[None]:
        try:
            while True:
                yield Step("wait", 0)
        finally:
            closed.append(True)

    work = metered(watched())
    next(work)
    work.close()
    assert closed == [True]


def test_an_error_in_the_job_is_the_callers_to_see() -> None:
    def failing() -> Work[None]:
        yield Step("start", 0)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        drain(metered(failing()))
