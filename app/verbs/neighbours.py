"""`studio neighbours`: the concepts nearest in meaning to one, which an erasure is most likely to harm."""

from __future__ import annotations

import argparse

from app.cli.answer import Answer
from app.models import load, loading, source
from benchmarks.suites.neighbours import by_distance
from benchmarks.suites.suite import load_suite
from erase.model import Denoiser, require


def neighbours(args: argparse.Namespace) -> Answer:
    """The suite's concepts of the same kind, nearest first by the model's own text encoder."""
    suite = load_suite(args.suite)
    target = suite.target(args.concept)
    model = load(source(args.source).base, loading(args))
    require(model, Denoiser, "neighbours")
    near = [suite.spoken(label) for label in by_distance(model, target, [target], suite)[: args.count]]
    return Answer({"version": 1, "concept": target.label, "kind": target.kind, "neighbours": near}, "\n".join(near))
