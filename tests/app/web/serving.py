"""The real server in a process of its own: forked from this one, which has its libraries in memory, or spawned."""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from typing import Any

PATIENCE = 300.0  # seconds: the machine may be busy


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Served:
    """A studio at a port, which can be killed and started again."""

    def __init__(self, method: str = "fork") -> None:
        self.method, self.port = method, free_port()
        self.process: BaseProcess | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self, wait: bool = True) -> BaseProcess:
        if self.method == "fork":
            importlib.import_module("app.web.server")
        context: Any = multiprocessing.get_context(self.method)
        self.process = context.Process(target=_serve, args=(self.port,), daemon=True)
        self.process.start()
        limit = time.monotonic() + PATIENCE
        while wait and not self.answers():
            assert self.process.is_alive(), "the server ended"
            assert time.monotonic() < limit, "the server did not answer"
            time.sleep(0.1)
        return self.process

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.join()

    def answers(self) -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/config", timeout=30) as answer:
            return answer.status == 200
        return False

    def ask(self, name: str, *data: Any) -> Any:
        """What the action of that name answers; AssertionError with its sentence where it refuses."""
        body = json.dumps({"data": data}).encode()
        request = urllib.request.Request(
            f"{self.url}/gradio_api/call/{name}", body, {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            event = json.load(answer)["event_id"]
        with urllib.request.urlopen(f"{self.url}/gradio_api/call/{name}/{event}", timeout=PATIENCE) as stream:
            kind = ""
            for line in stream:
                word, _, rest = line.decode().rstrip("\n").partition(": ")
                if word == "event":
                    kind = rest
                elif word == "data" and kind in ("complete", "error"):
                    assert kind == "complete", rest
                    return json.loads(rest)[0]
        raise AssertionError(f"{name} did not answer")

    def memory(self) -> int:
        """Bytes a spawned server holds; one that was forked makes its parent's pages its own by reading them."""
        assert self.process is not None
        with open(f"/proc/{self.process.pid}/smaps_rollup") as file:
            lines = dict(line.split(":", 1) for line in file if ":" in line)
        return sum(int(lines[name].split()[0]) for name in ("Private_Clean", "Private_Dirty")) * 1024


@contextlib.contextmanager
def serving(method: str = "fork") -> Iterator[Served]:
    made = Served(method)
    made.start()
    try:
        yield made
    finally:
        made.kill()


def _serve(port: int) -> None:
    server = importlib.import_module("app.web.server")
    with open(os.devnull, "w") as silent, contextlib.redirect_stderr(silent):
        server.serve_forever("127.0.0.1", port, None)
