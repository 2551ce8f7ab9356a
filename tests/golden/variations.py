"""Every knob of a method or an attack turned once, so that none can be lost unnoticed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from erase.methods import Knob, knobs

OTHER_LISTS: dict[str, Any] = {
    "templates": ("a picture of {}", "{} by night"), "retain": ("a boat", "a chair"), "seeds": "3, 5, 9",
    "present": ("a {} portrait",), "absent": ("a portrait",),
}  # fmt: skip


def turned(kind: type, base: Mapping[str, Any], only: Collection[str] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The base knobs, then the base with one knob at another value, each with a name; every choice has its turn."""
    yield "base", dict(base)
    for knob in knobs(kind):
        if only is None or knob.name in only:
            now = base.get(knob.name, knob.default)
            for value in _others(knob, now):
                yield f"{knob.name}={value}", {**base, knob.name: value}


def _others(knob: Knob, now: Any) -> list[Any]:
    if knob.type == "choice":
        return [choice for choice in knob.choices if choice != now]
    if knob.type == "bool":
        return [not now]
    if knob.type in ("int", "float"):
        return [_another(knob, now)]
    other = [OTHER_LISTS[knob.name]] if knob.name in OTHER_LISTS else []
    return [value for value in ([not now, *other] if isinstance(now, bool) else other) if value != now]


def _another(knob: Knob, now: float | None) -> float:
    """A value nearby: one more, or half as much again (of a zero a half), or less where more is out of bounds."""
    low, high = knob.bounds
    if knob.type == "int":
        more = 1 + int(now or low or 0)
        return more if high is None or more <= high else more - 2
    more = 1.5 * now if now else 0.5
    return more if high is None or more <= high else (low or 0.0) / 2 + (now or 0.0) / 2
