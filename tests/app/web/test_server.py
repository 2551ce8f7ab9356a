"""The real server, asked by a program: who gets in, which files it gives away, what it says of itself."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")
testclient = pytest.importorskip("starlette.testclient")

Opened = Callable[..., Any]
API = "/gradio_api"


@pytest.fixture
def opened() -> Opened:
    """The page as a client meets it, with a login or without."""
    server = importlib.import_module("app.web.server")
    return lambda login=None: testclient.TestClient(server.application(login))


def test_without_the_login_nothing_answers(opened: Opened) -> None:
    with opened(("me", "secret")) as client:
        asked = [client.get("/config"), client.get(f"{API}/info"), client.get(f"{API}/queue/data?session_hash=x"),
                 client.post(f"{API}/call/erase", json={"data": ["pocket-sd", "Cats"]}),
                 client.post(f"{API}/upload", files={"files": b"x"}), client.get(f"{API}/file=/etc/passwd"),
                 client.post("/login", data={"username": "me", "password": "wrong"})]  # fmt: skip
        assert all(answer.status_code in (400, 401, 403) for answer in asked), [a.status_code for a in asked]
        assert client.post("/login", data={"username": "me", "password": "secret"}).status_code == 200
        assert client.get(f"{API}/info").status_code == 200


def test_files_of_runs_and_of_the_system_are_not_given_away(opened: Opened, tmp_path: Path) -> None:
    with opened() as client:
        log = tmp_path / "home" / "tasks" / "1" / "log.txt"
        job = tmp_path / "home" / "runs" / "one" / "job.json"
        kept = tmp_path / "home" / "downloads" / "edit.safetensors"
        for path in (log, job, kept):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("private")
        for path in ("/etc/passwd", "../../etc/passwd", str(log), str(job), f"{kept.parent}/../runs/one/job.json"):
            answer = client.get(f"{API}/file={path}")
            assert answer.status_code in (403, 404), path
            assert "private" not in answer.text
            assert "root:" not in answer.text
        assert client.get(f"{API}/file={kept}").text == "private"


def test_an_upload_over_the_limit_is_refused(opened: Opened) -> None:
    with opened() as client:
        assert client.post(f"{API}/upload", files={"files": b"x"}).status_code == 200
        assert client.post(f"{API}/upload", files={"files": b"x" * (21 * 1000 * 1000 + 2**20)}).status_code == 413
        assert client.get("/config").status_code == 200


def test_the_page_itself_names_no_other_host_in_its_head(opened: Opened) -> None:
    with opened() as client:
        answer = client.get("/")
    assert answer.status_code == 200
    assert "default-src 'self'" in answer.headers["content-security-policy"]
    head = answer.text.split("</head>")[0]
    tags = [part for part in head.split("<") if part.startswith(("link", "meta", "script src", "img"))]
    assert tags
    assert not [tag for tag in tags if "://" in tag.split(">")[0]]
