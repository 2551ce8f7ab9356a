"""The command line of `studio` as a namespace. Only the file of the command that is asked for is imported."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from importlib import import_module, metadata

from app.cli.options import Parser, loading_options
from app.verbs import VERBS
from erase.errors import BadInput, nearest


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line as a namespace; `run` names the verb's function. BadInput names the nearest option or verb."""
    argv = [_dashed(word) for word in argv]
    if argv and not argv[0].startswith("-") and argv[0] not in VERBS:
        raise nearest(argv[0], VERBS, "command")
    parser, verbs = parsers(argv)
    args, rest = parser.parse_known_args(argv)
    args.typed = shlex.join(["studio", *argv])
    if rest:
        if not rest[0].startswith("--"):
            raise BadInput(f"{rest[0]!r} is one argument too many for `studio {args.verb}`.")
        method = getattr(args, "method", None)
        what = f"option of `studio {args.verb}`" + (f" or knob of {method}" if method else "")
        options = [name.removeprefix("--") for action in verbs[args.verb]._actions for name in action.option_strings]
        raise nearest(rest[0].removeprefix("--").split("=")[0], [name for name in options if len(name) > 2], what)
    return args


def parsers(argv: Sequence[str], *, every: bool = False) -> tuple[Parser, dict[str, Parser]]:
    """The parser of the whole command line, and that of each command.

    A command's own options are there for the command that `argv` begins with, or for all of them.
    """
    parser = Parser(
        prog="studio",
        allow_abbrev=False,
        description="Erase a concept from an image generator, measure what was lost, and export the result.",
        epilog="Start with `studio demo`. `studio COMMAND --help` explains each command; "
        "`studio methods NAME` explains a method's knobs.",
    )
    parser.add_argument("--version", action="version", version=_version())
    group = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True, parser_class=Parser)
    verbs: dict[str, Parser] = {}
    for name, verb in VERBS.items():
        about = f"{verb.about[0].upper()}{verb.about[1:]}."
        verbs[name] = made = group.add_parser(name, help=verb.about, description=about, allow_abbrev=False)
        made.words = argv
        made.add_argument("--json", action="store_true", help="print exactly one JSON document on stdout")
        made.set_defaults(run=f"app.verbs.{verb.run}", online=False)
        if verb.loads:
            loading_options(made)
        if every or argv[:1] == [name]:
            module, function = verb.run.split(":")
            if add := getattr(import_module(f"app.verbs.{module}"), f"{function}_options", None):
                add(made)
    return parser, verbs


def _dashed(word: str) -> str:
    """--kept_rows is --kept-rows: underscores and dashes are alike in names, and left alone in values."""
    name, equals, value = word.partition("=")
    return (name.replace("_", "-") + equals + value) if word.startswith("--") else word


def _version() -> str:
    try:
        return f"studio {metadata.version('concept-erasure-studio')}"
    except metadata.PackageNotFoundError:
        return "studio, run from a checkout that is not installed"
