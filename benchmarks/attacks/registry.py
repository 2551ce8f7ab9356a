"""The attacks: every file in `diffusion` is one, a frozen pydantic model with paper, presets, begin and advance.

An attack's name is its file's, with `-` for `_`; its fields are its knobs.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erase.errors import BadInput, match
from erase.methods.registry import filled

if TYPE_CHECKING:
    from benchmarks.attacks.engine import Attack


def attack_names() -> list[str]:
    """The names of all attacks, sorted."""
    return sorted(
        file.stem.replace("_", "-")
        for file in (Path(__file__).parent / "diffusion").glob("*.py")
        if not file.stem.startswith("_")
    )


def attack_class(name: str) -> type[Attack]:
    """The attack of this name; raises BadInput with the nearest guess."""
    known = match(name, attack_names(), "attack")
    module = importlib.import_module(f"benchmarks.attacks.diffusion.{known.replace('-', '_')}")
    found = [
        thing
        for thing in vars(module).values()
        if isinstance(thing, type) and thing.__module__ == module.__name__ and hasattr(thing, "advance")
    ]
    if len(found) != 1:
        raise BadInput(f"{module.__file__} should define one attack; it defines {len(found)}.")
    return found[0]


def name_of(attack: Attack) -> str:
    """The name under which an attack is asked for."""
    return type(attack).__module__.rpartition(".")[2].replace("_", "-")


def build(name: str, budget: str | int | None = None, knobs: Mapping[str, Any] | None = None) -> Attack:
    """An attack with its knobs set; a budget is a number, or the name of one of the attack's presets.

    Raises BadInput for an unknown attack, knob or budget, with the nearest guess, and for values out of bounds.
    """
    kind = attack_class(name)
    return budgeted(match(name, attack_names(), "attack"), kind, budget, knobs)


def budgeted(known: str, kind: Any, budget: str | int | None, knobs: Mapping[str, Any] | None) -> Any:
    """An attack of a kind with its budget, a number or a preset's name, and knobs set."""
    if budget is None or str(budget).lstrip("+-").isdigit():
        return filled(known, kind, None, {**({} if budget is None else {"budget": int(budget)}), **(knobs or {})})
    if str(budget).lower() not in kind.presets:
        raise BadInput(
            f"--budget {budget} will not do: it takes a whole number from 1 on, or one of {', '.join(kind.presets)}."
        )
    return filled(known, kind, str(budget).lower(), knobs)
