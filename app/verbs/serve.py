"""`studio serve`: the page, on this machine alone unless a login is asked for."""

from __future__ import annotations

import argparse
import os
import socket
from importlib.util import find_spec

from app.cli.answer import Answer
from app.cli.options import Parser, number
from erase.errors import BadInput

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def serve_options(parser: Parser) -> None:
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="ADDRESS", help="address to listen on (default: %(default)s)"
    )
    parser.add_argument("--port", type=number(int, 0, 65535), default=7860, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="ask for a login; STUDIO_AUTH says the same unseen")
    parser.add_argument("--show", metavar="RUN", help="put a copy of this run among those of the page")


def serve(args: argparse.Namespace) -> Answer:
    """Serve until Ctrl-C; tasks go on without the page."""
    login = read_login(args.auth or os.environ.get("STUDIO_AUTH"))
    if args.host not in LOOPBACK and login is None:
        raise BadInput(
            f"--host {args.host} lets other machines in, so it needs a login: add --auth USER:PASSWORD, "
            "or set STUDIO_AUTH, which other users of this machine do not see."
        )
    if find_spec("gradio") is None:
        raise BadInput("The page needs Gradio, which is not installed: pip install 'concept-erasure-studio[studio]'.")
    refuse_taken(args.host, args.port)
    if args.show is not None:
        from app.web.actions import adopt

        adopt(args.show)
    from app.web.server import serve_forever

    serve_forever(args.host, args.port, login)
    return Answer({"version": 1, "status": "done"}, "The page is closed; whatever is in the queue goes on without it.")


def read_login(text: str | None) -> tuple[str, str] | None:
    """USER:PASSWORD as a pair; BadInput where one of them is missing."""
    if text is None:
        return None
    user, colon, password = text.partition(":")
    if not (user and colon and password):
        raise BadInput("--auth takes USER:PASSWORD, both not empty.")
    return user, password


def refuse_taken(host: str, port: int) -> None:
    """BadInput when nobody can listen there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise BadInput(f"{host}:{port} cannot be used ({error.strerror}). Choose another --port.") from error
