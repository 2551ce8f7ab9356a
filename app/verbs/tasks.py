"""`studio cancel`: stops what is being done to a run, whoever started it from the page."""

from __future__ import annotations

import argparse

from app.cli.answer import Answer
from app.cli.options import Parser
from app.queue import queue


def cancel_options(parser: Parser) -> None:
    parser.add_argument("source", metavar="RUN", help="the folder of the run, or a task's id from `studio runs --json`")
    parser.add_argument("--discard", action="store_true", help="remove an unfinished run instead of keeping its state")
    parser.add_argument("--force", action="store_true", help="end the process if it does not stop within two seconds")


def cancel(args: argparse.Namespace) -> Answer:
    """Ask for the stop and say how the task stands."""
    task = queue.find(args.source)
    status = queue.cancel(task, "discard" if args.discard else "keep")
    if args.force and status == "stopping":
        queue.force(task)
        status = task.status
    document = {"version": 1, "status": status, "task": task.id, "run": task.run}
    told = {
        "stopping": f"{task.title} stops after its step. Again with --force ends it at once.",
        "cancelled": f"Cancelled: {task.title}."
        + ("" if args.discard or task.kind != "erase" else f" `studio resume {task.run}` goes on from there."),
    }
    return Answer(document, told.get(status, f"{task.title} is {status}; there is nothing to cancel."))
