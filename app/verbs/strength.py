"""`studio strength`: the strength at which a run's edit erases its concept and spares the rest."""

from __future__ import annotations

import argparse

from app.cli.answer import Answer
from app.cli.options import COUNT, Parser
from app.cli.progress import follow
from erase.errors import BadInput
from erase.files import require_writable, write_json


def strength_options(parser: Parser) -> None:
    parser.add_argument("source", metavar="RUN", help="the folder of a finished run")
    parser.add_argument("--suite", metavar="NAME|FILE", default="pocket-canvas", help="what to draw")
    parser.add_argument("--shots", type=COUNT, default=40, metavar="N", help="of the concept (default: 40)")


def strength(args: argparse.Namespace) -> Answer:
    """Search, leave strength.json in the run's folder, and say which strength to wear."""
    from app.models import loaded, source
    from benchmarks.suites.suite import load_suite
    from benchmarks.sweeps.strength import strength as searched

    suite = load_suite(args.suite)
    what = source(args.source)
    edit = what.edit()
    if what.run is None or edit is None:
        raise BadInput(f"{args.source} is not a run: a strength belongs to an edit. `studio erase` makes one.")
    require_writable(what.run.folder)
    model = loaded(what, args)
    found = follow(searched(model, edit, suite, shots=args.shots), f"strength of {what.run.job.title}")
    document = {"version": 1, "edit": edit.hash, **found.model_dump(mode="json")}
    path = what.run.folder / "strength.json"
    write_json(path, document)
    lines = [found.table(), f"Written to {path}"]
    if found.status == "found":
        lines.append(f"Next: studio export {what.run.folder} --as pipeline --strength {found.strength:g} --out DIR")
    return Answer(document, "\n".join(lines))
