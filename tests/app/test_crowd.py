"""Twenty visitors at once and fifty jobs in the line: none lost, none mixed up, the server small and quick."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from app import home, queue
from app.options import parse
from tests.app.serving import Served, serving

pytest.importorskip("gradio")

VISITORS, JOBS = 20, 50
GROWTH = 150 * 2**20  # bytes


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A studio whose line is held, so that the jobs are asked for and wait."""
    monkeypatch.setenv("STUDIO_HOME", str(tmp_path / "home"))
    queue.hold()
    with serving("spawn") as made:
        yield made


@pytest.mark.slow
def test_fifty_jobs_of_twenty_visitors_wait_in_order_and_each_is_cancelled_within_two_seconds(served: Served) -> None:
    def asked(seed: int) -> str:
        concept = f"Cats\n{('Dogs', 'Trees', 'Towers')[seed % 3]}"
        return served.ask("erase", "pocket-sd", concept, "", "", [], "uce", {}, seed, False)

    asked(0)
    before = served.memory()
    with ThreadPoolExecutor(VISITORS) as visitors:
        runs = list(visitors.map(asked, range(JOBS)))
    assert len(set(runs)) == JOBS
    found = {task.run.name: task for task in queue.tasks()}
    assert sorted(found) == sorted(runs)  # the first was asked for twice and is one
    for seed, run in enumerate(runs):
        args = parse(found[run].commands[0])
        assert (args.seed, args.concept) == (seed, ["Cats", ("Dogs", "Trees", "Towers")[seed % 3]])
        assert Path(args.out) == home.runs() / run
    assert all(task.status == "queued" for task in found.values())

    def timed(name: str, run: str) -> tuple[str, float]:
        began = time.monotonic()
        return served.ask(name, run), time.monotonic() - began

    usual = max(timed("status", run)[1] for run in runs[:10])  # what any answer takes on this machine
    answers = [timed("cancel", run) for run in runs[:10]]
    slowest = max(seconds for _, seconds in answers)
    assert {said for said, _ in answers} == {"cancelled"}
    assert slowest <= 2.0 + usual, f"a cancel was answered after {slowest:.1f} s"
    with ThreadPoolExecutor(VISITORS) as visitors:
        assert {said for said, _ in visitors.map(partial(timed, "cancel"), runs[10:])} == {"cancelled"}
    assert {task.status for task in queue.tasks()} == {"cancelled"}
    grown = served.memory() - before
    assert grown < GROWTH, f"the server grew by {grown / 2**20:.0f} MB"
    print(f"ten cancels ≤ {slowest:.2f} s, ten questions ≤ {usual:.2f} s, {grown / 2**20:.0f} MB more than before")
