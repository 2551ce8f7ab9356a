"""`studio neighbours`: the concepts nearest in meaning to one, which an erasure is most likely to harm."""

from __future__ import annotations

import argparse

from app.cli.answer import Answer
from app.cli.options import COUNT, SOURCE, Parser


def neighbours_options(parser: Parser) -> None:
    parser.add_argument("source", metavar="MODEL|RUN", help=SOURCE)
    parser.add_argument("--concept", required=True, metavar="NAME", help="whose neighbours")
    parser.add_argument("--suite", default="pocket-canvas", metavar="NAME|FILE", help="whose concepts are compared")
    parser.add_argument("--count", type=COUNT, default=8, metavar="N", help="how many (default: %(default)s)")


def neighbours(args: argparse.Namespace) -> Answer:
    """The suite's concepts of the same kind, nearest first by the model's own text encoder."""
    from app.models import loaded, source
    from benchmarks.suites.neighbours import by_distance
    from benchmarks.suites.suite import load_suite
    from erase.model import Denoiser, require

    suite = load_suite(args.suite)
    target = suite.target(args.concept)
    model = loaded(source(args.source), args)
    require(model, Denoiser, "neighbours")
    near = [suite.spoken(label) for label in by_distance(model, target, [target], suite)[: args.count]]
    return Answer({"version": 1, "concept": target.label, "kind": target.kind, "neighbours": near}, "\n".join(near))
