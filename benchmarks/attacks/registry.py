"""The attacks: every file in `diffusion` is one, and so is every file in `gan` that `ON_GANS` names.

An attack is a frozen pydantic model with a paper and presets; its name is its file's, with `-` for `_`, and its fields
are its knobs. On a diffusion model it has `begin` and `advance`, on a GAN `search`.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from erase.errors import BadInput, match
from erase.methods._declared import Declaration, declaration_of, declared
from erase.methods.registry import filled, knobs

if TYPE_CHECKING:
    from benchmarks.attacks.engine import Attack

# Spelt out, so that a list of names does not wait for torch.
ON_GANS = ("code-inversion", "latent-search", "prompt-boundary")


def attack_names() -> list[str]:
    """The names of the attacks on diffusion models, sorted."""
    return sorted(
        file.stem.replace("_", "-")
        for file in (Path(__file__).parent / "diffusion").glob("*.py")
        if not file.stem.startswith("_")
    )


def every_attack() -> list[str]:
    """The names of all attacks: first those on diffusion models, then those on GANs."""
    return [*attack_names(), *ON_GANS]


def attack_kind(name: str) -> type:
    """The attack of this name, on either family of models; raises BadInput with the nearest guess."""
    known = match(name, every_attack(), "attack")
    return _attack_in("gan", known, "search") if known in ON_GANS else attack_class(known)


def attack_declaration(name: str) -> Declaration:
    """What the attack of this name declares, without waiting for torch; BadInput with the nearest guess."""
    known = match(name, every_attack(), "attack")
    family = "gan" if known in ON_GANS else "diffusion"
    file = Path(__file__).parent / family / f"{known.replace('-', '_')}.py"
    return declared(file) or declaration_of(attack_kind(known), knobs)


def attack_class(name: str) -> type[Attack]:
    """The attack on diffusion models of this name; raises BadInput with the nearest guess."""
    return _attack_in("diffusion", match(name, attack_names(), "attack"), "advance")


def _attack_in(family: str, known: str, verb: str) -> Any:
    """The one class with that method which an attack's module defines."""
    module = importlib.import_module(f"benchmarks.attacks.{family}.{known.replace('-', '_')}")
    found = [
        thing
        for thing in vars(module).values()
        if isinstance(thing, type) and thing.__module__ == module.__name__ and hasattr(thing, verb)
    ]
    if len(found) != 1:
        raise BadInput(f"{module.__file__} should define one attack; it defines {len(found)}.")
    return found[0]


def name_of(attack: object) -> str:
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
            f"--budget {budget} is not valid: it takes a whole number from 1 on, or one of {', '.join(kind.presets)}."
        )
    return filled(known, kind, str(budget).lower(), knobs)
