"""Several processes at one judging: each draws its share, all know all answers, and no number depends on it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.judging.distributed import Team, team
from benchmarks.judging.predictions import answers
from benchmarks.metrics.distribution import fid, kid
from erase.work import drain
from tests.benchmarks.doubles import TINY, Painter, Reader

ROOT = Path(__file__).parents[3]
MEMBER = """
import sys
import torch
from benchmarks.judging.predictions import answers
from benchmarks.metrics.distribution import fid, kid
from erase.work import drain
from tests.benchmarks.doubles import TINY, Painter, Reader

painter = Painter()
shots = [cell.shot for cell in TINY.shots(["Cats"])]
found = drain(answers(painter, shots, TINY, Reader(), batch=2))
far = [distance(found.numbers["features"], found.numbers["features"].flip(1)).value for distance in (fid, kid)]
prompts = [shot.prompt for shot in found.shots]
torch.save({"far": far, "drawn": len(painter.drawn), **found.numbers, "prompts": prompts}, sys.argv[1])
"""


def test_batches_are_dealt_out_in_turn() -> None:
    assert [Team(1, 3).mine(number) for number in range(6)] == [False, True, False, False, True, False]
    assert Team().gathered([(2, "c"), (0, "a"), (1, "b")]) == ["a", "b", "c"]
    assert team() == Team() and Team().leads and not Team(1, 2).leads


@pytest.mark.slow
def test_two_processes_give_the_answers_of_one(tmp_path: Path) -> None:
    shots = [cell.shot for cell in TINY.shots(["Cats"])]
    alone = drain(answers(Painter(), shots, TINY, Reader(), batch=2))
    assert len(shots) == 9
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    members = [
        subprocess.Popen(
            [sys.executable, "-c", MEMBER, str(tmp_path / f"{rank}.pt")],
            cwd=ROOT, env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank), "PYTHONPATH": str(ROOT)},
        )
        for rank in range(2)
    ]  # fmt: skip
    assert [member.wait() for member in members] == [0, 0]
    told = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    assert [each["drawn"] for each in told] == [5, 4]  # batches of 2, 2, 2, 2, 1
    features = alone.numbers["features"]
    far = [distance(features, features.flip(1)).value for distance in (fid, kid)]
    for each in told:
        assert each["far"] == pytest.approx(far, rel=1e-6)
        assert each["prompts"] == [shot.prompt for shot in shots]
        assert all(torch.equal(each[name], value) for name, value in alone.numbers.items() if name != "clip")
