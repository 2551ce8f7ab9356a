"""Twenty visitors at once and fifty jobs in the line: none lost, none mixed up, the server small and quick."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from app.cli.parser import parse
from app.queue import paths, queue
from erase.edit import Edit
from tests.app.web.serving import Served, serving

pytest.importorskip("gradio")

VISITORS, JOBS, COMPUTED = 20, 50, 5
OFTEN = 1000  # questions while the jobs are computed
GROWTH = 150 * 2**20  # bytes


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A studio whose line is held, so that the jobs are asked for and wait."""
    queue.hold()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with serving("spawn") as made:
        yield made
    for task in queue.tasks():
        queue.cancel(task, wait=0.0)
        queue.force(task)


@pytest.mark.slow
def test_of_fifty_jobs_of_twenty_visitors_each_is_cancelled_or_done(served: Served) -> None:
    def wanted(seed: int) -> list[str]:
        return ["Cats", ("Dogs", "Trees", "Towers")[seed % 3]]

    def asked(seed: int) -> str:
        return served.ask("erase", "pocket-sd", "\n".join(wanted(seed)), "", "", [], "uce", {}, seed, False)

    asked(0)
    before = served.memory()
    with ThreadPoolExecutor(VISITORS) as visitors:
        runs = list(visitors.map(asked, range(JOBS)))
    assert len(set(runs)) == JOBS
    found = {task.run.name: task for task in queue.tasks()}
    assert sorted(found) == sorted(runs)  # the first was asked for twice and is one
    for seed, run in enumerate(runs):
        args = parse(found[run].commands[0])
        assert (args.seed, args.concept) == (seed, wanted(seed))
        assert Path(args.out) == paths.runs() / run
    assert all(task.status == "queued" for task in found.values())

    # The answer to a cancel that had to wait for its worker would be another: it is stopping.
    assert {served.ask("cancel", run) for run in runs[:10]} == {"cancelled"}
    computed, unwanted = runs[10 : 10 + COMPUTED], runs[10 + COMPUTED :]
    with ThreadPoolExecutor(VISITORS) as visitors:
        assert set(visitors.map(partial(served.ask, "cancel"), unwanted)) == {"cancelled"}
        grown = served.memory() - before
        served.ask("release", "")
        list(visitors.map(lambda _: served.ask("status", computed[-1]), range(OFTEN)))
    while any(found[run].status not in (*queue.OVER, "lost") for run in computed):
        time.sleep(0.2)
    assert {found[run].status for run in computed} == {"done"}
    for run in computed:
        about, seed = Edit.load(paths.runs() / run / "edit.safetensors").about, runs.index(run)
        assert (about["seed"], [concept["name"] for concept in about["concepts"]]) == (seed, wanted(seed))
    grown = max(grown, served.memory() - before)
    assert grown < GROWTH, f"the server grew by {grown / 2**20:.0f} MB"
