"""What the options of several commands share. Nothing heavy is imported here, so that --help answers at once."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import NoReturn

from erase.errors import BadInput

KINDS = ("style", "object", "nudity", "identity", "attribute")
DTYPES = ("fp32", "fp16", "bf16")
PROBES = (
    "who reads the pictures: a probe, clip:NAME|DIR, or UnlearnCanvas' folder of classifiers (default: the suite's)"
)
SOURCE = "a bundled model, a local pipeline folder or .safetensors file, a hub id, or a RUN folder"


class Parser(argparse.ArgumentParser):
    """Answers mistakes with BadInput, so that they end like every other mistake: one sentence and exit 2.

    `words` is the whole command line, for options that depend on others: a method has knobs of its own.
    """

    words: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        if message.endswith(("expected one argument", "expected at least one argument")):
            option = message.removeprefix("argument ").split(":")[0]
            message += f" (a value that begins with a dash is written {option}=VALUE)"
        raise BadInput(f"{message[0].upper()}{message[1:]}. `{self.prog} --help` lists what is possible.")


def loading_options(parser: Parser, *, dtype: bool = True) -> None:
    """How a model is loaded: device, dtype, what saves memory, and whether a hub may be asked."""
    group = parser.add_argument_group("loading")
    group.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 … (default: the GPU if there is one)")
    if not dtype:
        parser.set_defaults(dtype="auto")
    else:
        group.add_argument("--dtype", default="auto", choices=("auto", *DTYPES), help="of the weights in memory")
    group.add_argument("--attention-slicing", action="store_true", help="less memory, slower")
    group.add_argument("--offload", action="store_true", help="keep idle parts in main memory (GPU only)")
    group.add_argument("--config", metavar="DIR", help="pipeline folder whose shape a single-file checkpoint has")
    group.add_argument("--online", action="store_true", help="allow a hub id to be fetched")


def number(kind: type[int] | type[float], low: float, high: float, *, above: bool = False) -> Callable[[str], float]:
    """The type of an option that takes a number from `low` (or, with `above`, above it) to `high`; NaN is none."""

    def read(text: str) -> float:
        found = kind(text)
        if not (low < found if above else low <= found) or not found <= high:
            what = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(
                f"{text} is not valid; it takes {what} {'above' if above else 'from'} {low:,} to {high:,}"
            )
        return found

    read.__name__ = kind.__name__  # as argparse calls it in its own sentence
    return read


SEED = number(int, 0, 2**63 - 1)
COUNT = number(int, 1, 1_000_000)
SECONDS = number(float, 0, 1e9)
STRENGTH = number(float, -100, 100)


def unused(args: argparse.Namespace, why: str, **defaults: object) -> None:
    """BadInput for an option that was given and that nothing would read; `why` says what is done instead."""
    for name, default in defaults.items():
        if getattr(args, name) != default:
            raise BadInput(f"{why}, so --{name.replace('_', '-')} has no effect. Leave it out.")


def value(argv: Sequence[str], option: str) -> str | None:
    """The value an option will have, read before the parser for it can be built."""
    for at, word in enumerate(argv):
        if word == option and at + 1 < len(argv):
            return argv[at + 1]
        if word.startswith(option + "="):
            return word.split("=", 1)[1]
    return None
