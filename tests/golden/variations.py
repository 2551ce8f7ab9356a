"""Every knob of a method or an attack turned, numbers together, so that none can be lost unnoticed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from erase.methods.registry import Knob, knobs

OTHER_LISTS: dict[str, Any] = {
    "templates": ("a picture of {}", "{} by night"), "retain": ("a boat", "a chair"), "seeds": "3, 5, 9",
    "present": ("a {} portrait",), "absent": ("a portrait",),
}  # fmt: skip


def turned(kind: type, base: Mapping[str, Any], only: Collection[str] | None = None) -> Iterator[tuple[str, dict]]:
    """The base knobs, then the base with every other choice, then with all whole numbers, and all others, changed."""
    yield "base", dict(base)
    listed = [knob for knob in knobs(kind) if only is None or knob.name in only]
    for knob in listed:
        for value in _others(knob, base.get(knob.name, knob.default)):
            yield f"{knob.name}={value}", {**base, knob.name: value}
    for type in ("int", "float"):
        these = [knob for knob in listed if knob.type == type]
        values = {knob.name: _another(knob, base.get(knob.name, knob.default), n) for n, knob in enumerate(these)}
        if values:
            yield ", ".join(f"{name}={value}" for name, value in values.items()), {**base, **values}


def _others(knob: Knob, now: Any) -> list[Any]:
    if knob.type == "choice":
        return [choice for choice in knob.choices if choice != now]
    if knob.type == "bool":
        return [not now]
    other = [OTHER_LISTS[knob.name]] if "list" in knob.type and knob.name in OTHER_LISTS else []
    return [value for value in ([not now, *other] if isinstance(now, bool) else other) if value != now]


def _another(knob: Knob, now: float | None, place: int) -> float:
    """A value nearby: one more, or more by a share (of a zero a half); where that is out of bounds, between them.

    Each place has a share of its own: a method may heed nothing but the proportions of its knobs.
    """
    low, high = knob.bounds
    more = 1 + int(now or low or 0) if knob.type == "int" else round((1.5 + 0.1 * place) * now, 9) if now else 0.5
    inside = (low is None or more >= low) and (high is None or more <= high)
    return more if inside else round(((low or 0.0) + (high or 0.0)) / 2 + 0.01, 6)
