"""A method's knobs as command-line options and as text; name, type, default, bounds and help come from its class."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from erase.errors import BadInput
from erase.methods.registry import Knob, knobs, method

NEEDS = {"denoiser": "a diffusion model", "gan": "a GAN", "generator": "any model"}


def add_knobs(parser: argparse.ArgumentParser, name: str, kind: type | None = None) -> None:
    """Offer every knob of a method, or of another `kind`, as --KNOB VALUE; a yes-or-no knob may stand alone for yes."""
    kind = method(name) if kind is None else kind
    group = parser.add_argument_group(
        f"knobs of {name}", f"{summary(kind)} Presets: {', '.join(_presets(kind)) or 'none'}."
    )
    taken = {option for action in parser._actions for option in action.option_strings}
    for knob in knobs(kind):
        option = "--" + knob.name.replace("_", "-")
        if option in taken:
            raise BadInput(f"{name} calls a knob {knob.name}, which `{parser.prog}` needs for itself; rename it.")
        alone: dict[str, Any] = {"nargs": "?", "const": "true"} if "bool" in knob.type else {}
        group.add_argument(
            option, dest=f"knob_{knob.name}", metavar=_value(knob), help=_escaped(_meaning(knob)), **alone
        )


def given_knobs(args: argparse.Namespace) -> dict[str, str]:
    """The knobs that stand on the command line, as typed."""
    return {
        name.removeprefix("knob_"): value
        for name, value in vars(args).items()
        if name.startswith("knob_") and value is not None
    }


def described(name: str, kind: type | None = None) -> tuple[dict[str, Any], str]:
    """A method, or another `kind`, with its paper, presets and knobs: as a JSON document and as text."""
    kind = method(name) if kind is None else kind
    listed = [
        {"name": k.name, "type": k.type, "default": k.default, "bounds": k.bounds, "choices": k.choices, "help": k.help}
        for k in knobs(kind)
    ]
    document = {**in_short(name, kind), "presets": _presets(kind), "knobs": listed}
    lines = [
        f"{name}: {summary(kind)}",
        f"Paper: {document['paper']}",
        *([f"Needs: {NEEDS.get(document['needs'], document['needs'])}"] if "needs" in document else []),
        "",
        "Knobs",
    ]
    lines += [f"  --{k.name.replace('_', '-')} {_value(k)}\n      {_meaning(k)}" for k in knobs(kind)]
    lines += ["", "Presets (what differs from the defaults)"]
    lines += [f"  {preset}: {_differs(values)}" for preset, values in _presets(kind).items()]
    return document, "\n".join(lines)


def in_short(name: str, kind: type | None = None) -> dict[str, Any]:
    """The line of a method, or of another `kind`, in the list."""
    kind = method(name) if kind is None else kind
    needs = getattr(kind, "needs", None)
    line = {"name": name, "about": summary(kind), "paper": kind.paper}  # type: ignore[attr-defined]
    return line | ({"needs": needs.__name__.lower()} if needs else {})


def summary(kind: type) -> str:
    """The first sentence of a method's documentation."""
    return (kind.__doc__ or "").strip().split("\n")[0]


def _presets(kind: type) -> Mapping[str, Mapping[str, Any]]:
    return kind.presets  # type: ignore[attr-defined]


def _meaning(knob: Knob) -> str:
    low, high = knob.bounds
    facts = [f"default: {knob.default}"]
    if knob.choices:
        facts.append("one of " + ", ".join(knob.choices))
    if low is not None or high is not None:
        facts.append(f"from {low:g}" if high is None else f"up to {high:g}" if low is None else f"{low:g} to {high:g}")
    return f"{knob.help} ({'; '.join(facts)})"


def _value(knob: Knob) -> str:
    return "|".join(knob.choices) if knob.choices else {"int": "N", "float": "X"}.get(knob.type, knob.type.upper())


def _differs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "the defaults"


def _escaped(text: str) -> str:
    return text.replace("%", "%%")  # argparse reads % as a placeholder
