"""`studio completion`: the script by which a shell completes commands and options."""

from __future__ import annotations

import argparse

from app.cli.answer import Answer
from app.cli.options import Parser

SHELLS = ("bash", "zsh", "tcsh")


def completion_options(parser: Parser) -> None:
    parser.add_argument("shell", choices=SHELLS, help='for bash: eval "$(studio completion bash)" in ~/.bashrc')


def completion(args: argparse.Namespace) -> Answer:
    """Print the script, with every command and its options."""
    import shtab

    from app.cli.parser import parsers

    parser, _ = parsers([], every=True)
    script = shtab.complete(parser, shell=args.shell)
    return Answer({"version": 1, "shell": args.shell, "script": script}, script)
