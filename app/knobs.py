"""A method's knobs as command-line options and as text; name, type, default, bounds and help come from its class."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from erase.errors import BadInput
from erase.methods.registry import Knob, declaration

if TYPE_CHECKING:
    from erase.methods._declared import Declaration

NEEDS = {"denoiser": "a diffusion model", "gan": "a GAN", "generator": "any model"}


def add_knobs(parser: argparse.ArgumentParser, name: str, said: Declaration | None = None) -> None:
    """Offer each knob of a method, or of what else is `said`, as --KNOB VALUE; a yes-or-no knob may stand alone."""
    said = declaration(name) if said is None else said
    group = parser.add_argument_group(f"knobs of {name}", f"{said.about} Presets: {', '.join(said.presets) or 'none'}.")
    taken = {option for action in parser._actions for option in action.option_strings}
    for knob in said.knobs:
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


def described(name: str, said: Declaration | None = None) -> tuple[dict[str, Any], str]:
    """A method, or whatever else is `said`, with its paper, presets and knobs: as a JSON document and as text."""
    said = declaration(name) if said is None else said
    listed = [
        {"name": k.name, "type": k.type, "default": k.default, "bounds": k.bounds, "choices": k.choices, "help": k.help}
        for k in said.knobs
    ]
    document = {**in_short(name, said), "presets": said.presets, "knobs": listed}
    lines = [
        f"{name}: {said.about}",
        f"Paper: {said.paper}",
        *([f"Needs: {NEEDS.get(said.needs, said.needs)}"] if said.needs else []),
        "",
        "Knobs",
    ]
    lines += [f"  --{k.name.replace('_', '-')} {_value(k)}\n      {_meaning(k)}" for k in said.knobs]
    lines += ["", "Presets (what differs from the defaults)"]
    lines += [f"  {preset}: {_differs(values)}" for preset, values in said.presets.items()]
    return document, "\n".join(lines)


def in_short(name: str, said: Declaration | None = None) -> dict[str, Any]:
    """The line of a method, or of whatever else is `said`, in the list."""
    said = declaration(name) if said is None else said
    return {"name": name, "about": said.about, "paper": said.paper} | ({"needs": said.needs} if said.needs else {})


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
