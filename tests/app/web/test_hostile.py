"""Visitors who mean harm: refused with a sentence, nothing executed, nothing leaked, and the server lives."""

from __future__ import annotations

import http.client
import os
import pickle
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.queue import queue
from tests.app.web.serving import Served, serving
from tests.toys.pipelines import toy_folder

pytest.importorskip("gradio")

MARKUP = '<img src=x onerror="alert(1)">'
HUGE = 5 * 10**9


class Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """The server, with its uploads in a folder of their own."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))
    with serving("spawn") as made:
        yield made


def refused(served: Served, name: str, *data: Any) -> str:
    """The sentence with which an action is refused."""
    with pytest.raises(AssertionError) as caught:
        served.ask(name, *data)
    return str(caught.value)


def over(run: str) -> str:
    """How the task of a run ended: its sentence."""
    limit = time.monotonic() + 300
    while True:
        task = next(task for task in queue.tasks() if task.run.name == run)
        if task.status in (*queue.OVER, "lost"):
            return f"{task.status}: {task.state['error']['message']}"
        assert time.monotonic() < limit
        time.sleep(0.1)


def held(folder: Path) -> int:
    """Bytes below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.slow
def test_models_that_would_run_code_or_swell_are_refused(served: Served, tmp_path: Path) -> None:
    proof, folder = tmp_path / "executed", tmp_path / "models"
    folder.mkdir()
    for name in ("network.pkl", "sd.ckpt"):
        (folder / name).write_bytes(pickle.dumps({"G_ema": Touch(proof)}))
    with zipfile.ZipFile(folder / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"g_ema": Touch(proof)}))
        archive.writestr("archive/data/0", bytes(300 * 2**20))  # 300 kB here, 300 MB unpacked
    before = served.memory()
    methods = dict.fromkeys(("network.pkl", "bomb.pt"), "feature-unlearn") | {"sd.ckpt": "uce"}
    runs = {name: served.ask("erase", str(folder / name), "hat", "", "", [], method, {}, 0, False)
            for name, method in methods.items()}  # fmt: skip
    said = {name: over(run) for name, run in runs.items()}
    assert all(sentence.startswith("failed: ") and "Traceback" not in sentence for sentence in said.values()), said
    assert {task.state["error"]["kind"] for task in queue.tasks()} == {"bad-input"}, said
    assert not proof.exists()
    assert served.answers()
    assert served.memory() - before < 100 * 2**20
    assert not any((tmp_path / "home").rglob("data.pkl"))


def test_names_that_lead_elsewhere_are_refused(served: Served, tmp_path: Path) -> None:
    for name in ("../../etc/passwd", "/etc/passwd", "..", "runs/../../x"):
        for action, more in (
            ("draw", ("", "")),
            ("export", ("edit", 1.0, "", None)),
            ("download", ("edit",)),
            ("take_off", (1,)),
        ):
            assert "not a valid name for a run" in refused(served, action, name, *more)
        assert "neither a task nor a run" in refused(served, "cancel", name)
        said = refused(served, "latents", name, 0)
        assert "root:" not in said
    assert "not a valid name for a run" in refused(served, "measure", f"x/{MARKUP}")
    for path in ("/etc/passwd", "../../etc/passwd", "..%2f..%2fetc%2fpasswd", f"{tmp_path}/home/tasks"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"{served.url}/gradio_api/file={path}", timeout=60)
        assert caught.value.code in (403, 404)
        assert b"root:" not in caught.value.read()
    assert queue.tasks() == []
    assert served.answers()


def test_markup_in_a_name_comes_back_as_text(served: Served, tmp_path: Path) -> None:
    queue.hold()
    run = served.ask("erase", str(toy_folder(tmp_path / "toy")), MARKUP, "object", "", [], "uce", {}, 0, False)
    assert "<" not in run
    said = refused(served, "erase", "pocket-sd", MARKUP, "", "", [], "uce", {}, 0, False)
    assert "Unknown concept" in said
    assert "<img" not in said
    assert "<img" not in refused(served, "attack", run, MARKUP, "", "", 20)


def test_five_gigabytes_are_refused_before_they_are_sent_and_while_they_are(served: Served, tmp_path: Path) -> None:
    before = served.memory()
    announced = http.client.HTTPConnection("127.0.0.1", served.port, timeout=60)
    announced.putrequest("POST", "/gradio_api/upload")
    announced.putheader("content-length", str(HUGE))
    announced.putheader("content-type", "multipart/form-data; boundary=x")
    announced.endheaders()
    answer = announced.getresponse()
    assert answer.status == 413
    assert b"put it on this machine" in answer.read()
    for path in ("/gradio_api/upload", "/gradio_api/call/erase", "/login"):
        assert streamed(served.port, path) < 200 * 2**20
    assert held(tmp_path / "uploads") < 25 * 2**20
    assert served.memory() - before < 150 * 2**20
    assert served.answers()


def streamed(port: int, path: str) -> int:
    """Bytes that the server let itself be sent, without having been told how many would come."""
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="m.bin"\r\n\r\n'
    connection, sent, part = http.client.HTTPConnection("127.0.0.1", port, timeout=60), 0, bytes(2**20)
    connection.putrequest("POST", path)
    connection.putheader("transfer-encoding", "chunked")
    connection.putheader("content-type", "multipart/form-data; boundary=x")
    connection.endheaders()
    try:
        connection.send(b"%x\r\n%s\r\n" % (len(head), head))
        while sent < HUGE:
            connection.send(b"%x\r\n%s\r\n" % (len(part), part))
            sent += len(part)
    except OSError:  # it has hung up
        pass
    finally:
        connection.close()
    return sent
