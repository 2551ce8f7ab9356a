"""`studio`: reads the command line, runs one verb, and turns whatever happens into one answer and one exit code."""

from __future__ import annotations

import codecs
import contextlib
import errno
import os
import sys
import time
import traceback
import unicodedata
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from app.cli.answer import Answer
from app.cli.parser import parse
from app.verbs import VERBS
from erase.errors import BadInput, visible

# A path that was given cannot be used.
UNUSABLE = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP)
# What helps where memory ran out: on a CPU half precision and slicing do not, for weights there are only mapped.
ROOM = {
    "cuda": "On this GPU --dtype bf16, --attention-slicing and --offload need less; so does a closed form such as uce.",
    "cpu": "Close other programs, or take a closed form such as uce, or a model or a knob `batch` that is smaller.",
}
DONE, FAILED, BAD_INPUT, CANCELLED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; 0 done, 1 failed, 2 bad input, 130 cancelled."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    tolerate(sys.stdout, sys.stderr)
    as_json = "--json" in arguments
    try:
        answer = answered(arguments)
        if as_json:
            from erase.files import dumps

            print(dumps(answer.document))
        else:
            print(visible(answer.text))
        return answer.code
    except SystemExit as end:  # --help and --version have printed what was asked for
        return int(end.code or 0)
    except BrokenPipeError:  # `studio methods | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except BaseException as error:
        kind, code, message = explain(error)
        print(visible(message), file=sys.stderr)
        if kind == "unexpected" or os.environ.get("STUDIO_TRACEBACK"):
            _unfold(error)
        if as_json:
            _print_json({"version": 1, "status": "cancelled" if code == CANCELLED else "failed",
                         "error": {"kind": kind, "message": message}})  # fmt: skip
        return code


# What stands in for letters that a terminal's or file's encoding lacks.
ASCII = {"↑": "^", "↓": "v", "–": "-", "—": "-", "…": "...", "±": "+-", "≤": "<=", "≥": ">=", "·": "*", "×": "x",
         "→": "->", "“": '"', "”": '"', "’": "'", "✓": "+", "✕": "x", "−": "-"}  # fmt: skip


def tolerate(*streams: Any) -> None:
    """Let streams print what their encoding lacks as the nearest ASCII, so that output never ends in an error."""

    def stand_in(error: UnicodeError) -> tuple[str, int]:
        assert isinstance(error, UnicodeEncodeError)
        text = "".join(ASCII.get(letter, letter) for letter in error.object[error.start : error.end])
        plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
        return plain or "?", error.end

    codecs.register_error("studio-ascii", stand_in)
    for stream in streams:
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="studio-ascii")


def answered(arguments: Sequence[str]) -> Answer:
    """Run one command and give its answer; whatever goes wrong is raised."""
    _check_circumstances(arguments)
    args = parse(arguments)
    args.began = time.monotonic()
    if not args.online:
        # Read by huggingface_hub when it is imported: nothing asks the network behind the user's back.
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    if VERBS[args.verb].loads and getattr(args, "without", "") is not None:  # a ledger that is only listed loads none
        name = getattr(args, "source", None) or "the bundled model"
        print(f"Opening {name}; the libraries behind it take some seconds to load.", file=sys.stderr, flush=True)
    module, function = args.run.split(":")
    # Whatever a library prints goes to stderr: stdout is for the answer alone.
    with contextlib.redirect_stdout(sys.stderr):
        return getattr(import_module(module), function)(args)


def _check_circumstances(arguments: Sequence[str]) -> None:
    """BadInput for words that are no text, and for a working directory that is gone."""
    for word in arguments:
        if any("\ud800" <= letter <= "\udfff" for letter in word):
            raise BadInput(f"{word!a} is not UTF-8 text. Type it in a terminal with a UTF-8 encoding.")
    try:
        os.getcwd()
    except FileNotFoundError:
        raise BadInput("The working directory no longer exists. Change to one that does, and try again.") from None


def explain(error: BaseException) -> tuple[str, int, str]:
    """The kind of an error, its exit code, and the sentence for the user."""
    from erase.errors import disk_full, out_of_memory
    from erase.files import DiskFull

    if isinstance(error, BadInput):
        return "bad-input", BAD_INPUT, str(error)
    if isinstance(error, OSError) and error.errno in UNUSABLE and error.filename is not None:
        return "bad-input", BAD_INPUT, f"{str(error.filename)[:200]}: {error.strerror}. Choose another place."
    if isinstance(error, KeyboardInterrupt):
        return "cancelled", CANCELLED, str(error) or "Cancelled."
    if isinstance(error, DiskFull):
        return "disk", FAILED, str(error)
    if disk_full(error):
        return "disk", FAILED, f"The disk is full ({error}). Free some space, then run the same command again."
    said = str(error).lower()
    if out_of_memory(error):
        return "memory", FAILED, f"There was not enough memory. {ROOM['cuda' if 'cuda' in said else 'cpu']}"
    named = {"FloatingPointError": "collapsed", "Unproven": "unproven"}.get(type(error).__name__)
    if named:
        return named, FAILED, str(error)
    return "unexpected", FAILED, f"Failed: {type(error).__name__}: {error}"


def _unfold(error: BaseException) -> None:
    if os.environ.get("STUDIO_TRACEBACK"):
        traceback.print_exception(error)
    else:
        print("Set STUDIO_TRACEBACK=1 and run the same command again to see where.", file=sys.stderr)


def _print_json(document: dict[str, Any]) -> None:
    from erase.files import dumps

    print(dumps(document))
