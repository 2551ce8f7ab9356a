"""Runs tests in copies of the tree in which one line is wrong."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.table import Mutant

LONGEST = 1800  # seconds after which a run is given up
WRITTEN = {"build", "dist", "demo", "runs", "out"}  # folders at the root that commands have written


@dataclass(frozen=True)
class Verdict:
    """Whether a failing test noticed a mutant, and the test's name or what came of the run in its place."""

    mutant: Mutant
    caught: bool
    by: str


def copied(root: Path, folder: Path) -> Path:
    """A copy of the tree without hidden files, bytecode, and what commands have written."""

    def left_out(inside: str, names: list[str]) -> set[str]:
        hidden = {name for name in names if name.startswith(".") or name == "__pycache__"}
        return hidden | (WRITTEN & set(names) if Path(inside) == root else set())

    shutil.copytree(root, folder, ignore=left_out)
    return folder


def judged(mutant: Mutant, tree: Path) -> Verdict:
    """What the mutant's tests say of a copy of the tree that holds it; the copy is put right again."""
    file = tree / mutant.file
    source = file.read_text(encoding="utf-8")
    file.write_text(mutant.changed(source), encoding="utf-8")
    try:
        status, output = tested(mutant.tests, tree)
    finally:
        file.write_text(source, encoding="utf-8")
    failed = re.search(r"^FAILED (\S+)", output, re.MULTILINE)
    if status == 1 and failed:
        return Verdict(mutant, True, failed[1])
    return Verdict(mutant, False, "no test failed" if status == 0 else f"pytest ended with {status}")


def tested(tests: Sequence[str], tree: Path) -> tuple[int, str]:
    """The exit status of pytest up to the first failure, and what it wrote; -1 where it took too long."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    # Without bytecode, which Python would take for that of the changed file if both were written within a second.
    around = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=tree, env=around, capture_output=True, text=True, timeout=LONGEST)
    except subprocess.TimeoutExpired:
        return -1, ""
    return done.returncode, done.stdout + done.stderr
