"""`python -m tests.mutants` makes each change of mutants.toml in a copy of the tree and tells if a test notices."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from tests.mutants.runner import Verdict, copied, judged, tested
from tests.mutants.table import ROOT, Mutant, mutants


def main(given: Sequence[str]) -> int:
    """0 where every mutant is caught, 1 where one survives, 2 where nothing is tried or the tests fail anyway."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="mutants whose file or words hold this")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="mutants tried at once, each in its own copy")
    asked = parser.parse_args(given)
    chosen = [mutant for mutant in mutants() if asked.only.lower() in f"{mutant.file} {mutant.what}".lower()]
    if not chosen:
        print(f"No mutant's file or description holds {asked.only!r}; give another --only.")
        return 2
    with tempfile.TemporaryDirectory() as folder:
        trees = [copied(ROOT, Path(folder) / str(number)) for number in range(max(1, asked.jobs))]
        status, output = tested(sorted({test for mutant in chosen for test in mutant.tests}), trees[0])
        if status != 0:
            print(f"{output}\nThe tests fail without any mutant, so they can tell nothing; mend them first.")
            return 2
        survived = [verdict for verdict in _tried(chosen, trees) if not verdict.caught]
    print(f"{len(chosen)} mutants, {len(survived)} survived.")
    return 1 if survived else 0


def _tried(chosen: Sequence[Mutant], trees: Sequence[Path]) -> list[Verdict]:
    free: SimpleQueue[Path] = SimpleQueue()
    for tree in trees:
        free.put(tree)

    def one(mutant: Mutant) -> Verdict:
        tree = free.get()
        try:
            verdict = judged(mutant, tree)
        finally:
            free.put(tree)
        word = "caught  " if verdict.caught else "SURVIVED"
        print(f"{word} {mutant.file}: {mutant.what} ({verdict.by})", flush=True)
        return verdict

    with ThreadPoolExecutor(len(trees)) as pool:
        return list(pool.map(one, chosen))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
