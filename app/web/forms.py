"""A method's knobs as fields of a form, and methods as cards; both are read from the method's class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.knobs import NEEDS, in_short
from erase.errors import BadInput
from erase.methods.registry import Knob, build, knobs, method, method_names

OWN = "defaults"  # as the presets' list calls them


@dataclass(frozen=True)
class Field:
    """One control: `kind` is check, whole, number, choice or text."""

    name: str
    label: str
    kind: str
    value: Any
    low: float | None
    high: float | None
    choices: tuple[str, ...]
    info: str


def offered(needs: str) -> list[str]:
    """The methods for a family of models: denoiser or gan."""
    return [name for name in method_names() if in_short(name)["needs"] in (needs, "generator")]


def card(name: str) -> dict[str, str]:
    """What a method's card says: what it does, its paper, what it needs."""
    said = in_short(name)
    return {"name": name, "about": said["about"], "paper": said["paper"], "needs": NEEDS[said["needs"]]}


def presets(name: str) -> list[str]:
    """The names of a method's presets, its defaults first."""
    return [OWN, *method(name).presets]


def fields(name: str, preset: str | None = None) -> list[Field]:
    """The form of a method, filled in as a preset says."""
    values = build(name, None if preset in (None, OWN) else preset).model_dump(mode="json")  # type: ignore[attr-defined]
    return [_field(knob, values[knob.name]) for knob in knobs(method(name))]


def changed(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The knobs that differ from the defaults; BadInput names the field and its bounds where a value will not do."""
    given = {knob: value for knob, value in values.items() if value is not None and value != ""}
    asked = build(name, None, given).model_dump(mode="json")  # type: ignore[attr-defined]
    usual = build(name).model_dump(mode="json")  # type: ignore[attr-defined]
    return {knob: value for knob, value in asked.items() if value != usual[knob]}


def typed(knob: str, value: Any) -> list[str]:
    """A knob as a command line spells it."""
    text = " | ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    if text.startswith("-"):
        return [f"--{knob.replace('_', '-')}={text}"]
    return [f"--{knob.replace('_', '-')}", text.lower() if isinstance(value, bool) else text]


def _field(knob: Knob, value: Any) -> Field:
    kind = {"bool": "check", "int": "whole", "float": "number", "choice": "choice"}.get(knob.type, "text")
    if kind == "text":
        value = " | ".join(map(str, value)) if isinstance(value, (list, tuple)) else "" if value is None else str(value)
    low, high = knob.bounds
    return Field(knob.name, knob.name.replace("_", " "), kind, value, low, high, knob.choices, knob.help)


def number(text: str | int | None, what: str, low: int = 0, high: int | None = None) -> int:
    """A whole number that was typed; BadInput for an empty field, anything else, and one out of bounds."""
    if text is None or not str(text).strip():
        raise BadInput(f"{what} is empty; type a whole number.")
    try:
        found = int(str(text).strip())
    except ValueError:
        raise BadInput(f"{what} takes a whole number; {text!r} is none.") from None
    if found < low or (high is not None and found > high):
        bounds = f"from {low:,} on" if high is None else f"from {low:,} to {high:,}"
        raise BadInput(f"{what} takes a whole number {bounds}; {found:,} is not valid here.")
    return found


def text(value: object) -> str:
    """What a field holds as text; an empty one holds nothing."""
    return "" if value is None else str(value).strip()
