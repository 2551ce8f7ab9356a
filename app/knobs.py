"""A method's knobs as command-line options and as text; name, type, default, bounds and help come from its class."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

from erase.errors import BadInput
from erase.methods import Knob, knobs, method

NEEDS = {"denoiser": "a diffusion model", "gan": "a GAN", "generator": "any model"}


def add_knobs(parser: argparse.ArgumentParser, name: str) -> None:
    """Offer every knob of a method as --KNOB VALUE; a yes-or-no knob may stand alone for yes."""
    kind = method(name)
    group = parser.add_argument_group(
        f"knobs of {name}", f"{summary(kind)} Presets: {', '.join(kind.presets) or 'none'}."
    )
    taken = {option for action in parser._actions for option in action.option_strings}
    for knob in knobs(kind):
        option = "--" + knob.name.replace("_", "-")
        if option in taken:
            raise BadInput(
                f"The method {name} calls a knob {knob.name}, which `studio erase` needs for itself; rename it."
            )
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


def described(name: str) -> tuple[dict[str, Any], str]:
    """A method with its paper, presets and knobs: as a JSON document and as text."""
    kind = method(name)
    listed = [
        {"name": k.name, "type": k.type, "default": k.default, "bounds": k.bounds, "choices": k.choices, "help": k.help}
        for k in knobs(kind)
    ]
    document = {**in_short(name), "presets": kind.presets, "knobs": listed}
    lines = [
        f"{name}: {summary(kind)}",
        f"Paper: {kind.paper}",
        f"Needs: {NEEDS.get(document['needs'], document['needs'])}",
        "",
        "Knobs",
    ]
    lines += [f"  --{k.name.replace('_', '-')} {_value(k)}\n      {_meaning(k)}" for k in knobs(kind)]
    lines += ["", "Presets (what differs from the defaults)"]
    lines += [f"  {preset}: {_differs(values)}" for preset, values in kind.presets.items()]
    return document, "\n".join(lines)


def in_short(name: str) -> dict[str, Any]:
    """A method's line in the list."""
    kind = method(name)
    return {"name": name, "about": summary(kind), "paper": kind.paper, "needs": kind.needs.__name__.lower()}


def summary(kind: type) -> str:
    """The first sentence of a method's documentation."""
    return (kind.__doc__ or "").strip().split("\n")[0]


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
