"""What a user can type or call, without the words that explain it: options, knobs, endpoints."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from app.cli.parser import parsers
from erase.methods.registry import knobs


def verbs(argv: Sequence[str]) -> dict[str, argparse.ArgumentParser]:
    """The parser of every verb as it is when this is typed; the one place that knows how parsers are made."""
    return parsers(list(argv), every=not argv)[1]


def options(parser: argparse.ArgumentParser) -> dict[str, Any]:
    """Option names, positional metavars, choices, defaults and how many values each takes."""
    found = {}
    for action in parser._actions:
        name = ", ".join(sorted(action.option_strings)) or f"positional {action.metavar}"
        facts = {
            "kind": type(action).__name__.strip("_").removesuffix("Action"), "default": action.default,
            "required": action.required, "nargs": action.nargs, "const": action.const,
            "type": getattr(action.type, "__name__", None), "choices": action.choices and list(action.choices),
        }  # fmt: skip
        found[name] = {key: value for key, value in facts.items() if value not in (None, False)}
    return dict(sorted(found.items()))


def of_class(kind: type) -> dict[str, Any]:
    """A method's or an attack's knobs with types, defaults, bounds and choices, its presets and what it needs."""
    needs = getattr(kind, "needs", None)
    return {
        "needs": needs and needs.__name__,
        "presets": kind.presets,  # type: ignore[attr-defined]
        "knobs": {knob.name: [knob.type, knob.default, knob.bounds, knob.choices] for knob in knobs(kind)},
    }


def endpoint(described: Mapping[str, Any]) -> dict[str, Any]:
    """One endpoint of the page: its parameters with types and defaults, and the types it returns."""
    return {
        "parameters": {
            each["parameter_name"]: [each["python_type"]["type"],
                                     each["parameter_default"] if each["parameter_has_default"] else "no default"]
            for each in described["parameters"]
        },
        "returns": [each["python_type"]["type"] for each in described["returns"]],
    }  # fmt: skip


def shape(document: Any) -> Any:
    """The keys of a JSON document and the types of its values; of a list of equal things one."""
    if isinstance(document, Mapping):
        return {key: shape(document[key]) for key in sorted(document)}
    if isinstance(document, (list, tuple)):
        shapes: list[Any] = []
        for part in document:
            if (found := shape(part)) not in shapes:
                shapes.append(found)
        return shapes
    return "number" if type(document) in (int, float) else type(document).__name__
