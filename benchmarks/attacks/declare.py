"""Writes the indexes of what every method and attack declares: `python -m benchmarks.attacks.declare`."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.attacks.registry import attack_kind, every_attack
from erase.methods._declared import Declaration, declaration_of, write
from erase.methods.registry import knobs, methods


def every_declaration() -> dict[Path, Declaration]:
    """What the classes of all bundled methods and attacks declare, by their files."""
    here = [kind for kind in methods().values() if kind.__module__.startswith("erase.methods.")]
    kinds = [*here, *map(attack_kind, every_attack())]
    return {Path(str(sys.modules[kind.__module__].__file__)): declaration_of(kind, knobs) for kind in kinds}


if __name__ == "__main__":
    write(every_declaration())
