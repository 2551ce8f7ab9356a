"""The command line of `studio` as a namespace. Only the file of the command that is asked for is imported."""

from __future__ import annotations

import argparse
import itertools
import shlex
from collections.abc import Sequence
from importlib import import_module, metadata

from app.cli.options import Parser, loading_options
from app.verbs import VERBS
from erase.errors import BadInput, nearest


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line as a namespace; `run` names the verb's function. BadInput names the nearest option or verb."""
    argv = [_dashed(word) for word in argv]
    if argv[:1] == ["help"]:  # `studio help erase` is `studio erase --help`
        argv = [*argv[1:2], "--help"]
    if argv and not argv[0].startswith("-") and argv[0] not in VERBS:
        raise nearest(argv[0], VERBS, "command")
    parser, verbs = parsers(argv)
    try:
        args, rest = parser.parse_known_args(argv)
    except BadInput as error:
        raise BadInput(f"{error}{_swallowed(verbs.get(argv[0] if argv else ''), argv)}") from None
    args.typed = shlex.join(["studio", *argv])
    if rest:
        if not rest[0].startswith("--"):
            raise BadInput(f"{rest[0]!r} is one argument too many for `studio {args.verb}`.{_repeated(argv, rest[0])}")
        method = getattr(args, "method", None)
        what = f"option of `studio {args.verb}`" + (f" or knob of {method}" if method else "")
        options = [name.removeprefix("--") for action in verbs[args.verb]._actions for name in action.option_strings]
        raise nearest(rest[0].removeprefix("--").split("=")[0], [name for name in options if len(name) > 2], what)
    return args


def _repeated(argv: Sequence[str], word: str) -> str:
    """The advice for a second value behind an option that takes one."""
    at = argv.index(word) if word in argv else 0
    before = next((each for each in reversed(argv[:at]) if each.startswith("--")), "")
    return f" Repeat --concept for each of several: --concept {shlex.quote(word)}." if before == "--concept" else ""


def _swallowed(parser: Parser | None, argv: Sequence[str]) -> str:
    """The advice where an option that takes several values has taken the model, too."""
    greedy = {} if parser is None else {a.option_strings[0]: a for a in parser._actions if a.nargs in ("+", "*")}
    for at, word in enumerate(argv):
        taken = list(itertools.takewhile(lambda each: not each.startswith("--"), argv[at + 1 :]))
        if word in greedy and len(taken) > 1 and len(argv) - at - 1 == len(taken):
            return f" {word} has taken {taken[-1]!r} as its last value; write the model before the options."
    return ""


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
    parser.add_argument("-V", "--version", action="version", version=_version())
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
