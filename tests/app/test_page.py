"""The page in a real browser: a style is erased, watched, found again after a reload, looked at, and carried away."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio")
playwright = pytest.importorskip("playwright.sync_api")

ROOT = Path(__file__).parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 900_000  # milliseconds: the machine may be busy
SHOTS = os.environ.get("STUDIO_SHOTS")  # a folder for the documentation's pictures

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium: apt-get install chromium"),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """`studio serve` in a process of its own, which can be killed and started again."""

    def __init__(self, home: Path) -> None:
        self.port, self.home = free_port(), home
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        environment = {**os.environ, "STUDIO_HOME": str(self.home), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "app", "serve", "--port", str(self.port)]
        self.process = subprocess.Popen(command, cwd=ROOT, env=environment)
        limit = time.monotonic() + PATIENCE / 1000
        while True:
            try:
                urllib.request.urlopen(self.url, timeout=30).close()
                return
            except OSError:
                assert self.process.poll() is None, "the server ended"
                assert time.monotonic() < limit, "the server did not answer"
                time.sleep(0.5)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path / "home")
    made.start()
    yield made
    made.kill()


@pytest.fixture
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield opened
        opened.close()


def watched(browser: Any, asked: set[str], complaints: list[str], width: int = 1280) -> Any:
    """A page that notes every host it talks to and every error of its scripts."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(PATIENCE)
    page.on("request", lambda request: asked.add(request.url.split("/")[2] if "://" in request.url else "inline"))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    return page


def shot(page: Any, name: str) -> None:
    """A picture for the documentation, if any are wanted."""
    if SHOTS:
        page.wait_for_timeout(1500)
        page.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)


def tab(page: Any, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).first.click()


def test_the_journey_from_a_concept_to_a_download(server: Server, browser: Any, tmp_path: Path) -> None:
    asked: set[str] = set()
    complaints: list[str] = []
    page = watched(browser, asked, complaints)
    page.goto(server.url)
    page.get_by_text("Nothing is being done yet.").wait_for()
    page.locator("#start").click()
    page.get_by_text("What is to be erased?").wait_for()  # a sentence, no trace
    page.get_by_label("Concept").first.fill("Van <b>Gogh</b>")
    page.locator("#start").click()
    page.get_by_text("Unknown concept of pocket-sd").wait_for()
    assert page.locator("b", has_text="Gogh").count() == 0  # what was typed is no markup

    page.get_by_label("Concept").first.fill("Van Gogh")
    page.get_by_label("Measure afterwards").uncheck()
    page.locator("#start").click()
    page.locator("#progress .status").wait_for()
    page.wait_for_url("**/?run=pocket-sd-van-gogh-uce-*")
    shot(page, "erase-1280")
    page.reload()  # in the middle of the job
    page.locator("#progress", has_text="Van Gogh by uce").wait_for()
    server.kill()  # the job goes on without it
    server.start()
    page.goto(page.url)
    page.locator("#progress .status.done").wait_for()
    shot(page, "done-1280")

    tab(page, "Before / after")
    page.locator("#pictures img").first.wait_for()
    assert page.locator("#pictures img").count() == 16
    alt = page.locator("#pictures img").first.get_attribute("alt")
    assert alt.startswith("before, seed ")
    assert "Van Gogh" in alt
    at_one = page.locator("#pictures img").nth(1).get_attribute("src")
    shot(page, "before-after-1280")
    page.locator("#strength input[type=number]").fill("0")
    page.locator("#strength input[type=number]").press("Enter")
    page.get_by_text("Before, and at strength 0", exact=True).wait_for()
    pair = [page.locator("#pictures img").nth(place).get_attribute("src") for place in (0, 1)]
    assert pair[0] == pair[1] != at_one  # strength 0 is the unedited model, byte for byte

    tab(page, "Ledger")
    page.locator("#ledger").get_by_role("cell", name="Van Gogh", exact=True).wait_for()
    tab(page, "Export")
    page.get_by_role("cell", name="single-file", exact=True).wait_for()
    page.get_by_label("Format").first.click()
    page.get_by_role("option", name="edit", exact=True).click()
    page.get_by_role("button", name="Export", exact=True).click()
    page.locator("#queue tr", has_text="edit of Van Gogh by uce").get_by_text("done").wait_for()
    page.get_by_role("button", name="Prepare the download").click()
    page.locator("#card", has_text="not a security boundary").wait_for()
    shot(page, "export-1280")
    with page.expect_download() as waiting:
        page.locator("#download a").first.click()
    waiting.value.save_as(tmp_path / "fetched")
    (run,) = (server.home / "runs").iterdir()
    assert (tmp_path / "fetched").read_bytes() == (run / "exports" / "edit" / "edit.safetensors").read_bytes()

    assert asked <= {f"127.0.0.1:{server.port}", "inline"}
    # Between the server's end and its return the page could not ask for news; that is all it may complain of.
    assert [text for text in complaints if "ERR_CONNECTION_REFUSED" not in text and "connect" not in text.lower()] == []

    narrow = watched(browser, asked, complaints, width=390)
    narrow.goto(f"{server.url}?run={run.name}")
    for name in ("Erase", "Before / after"):
        if narrow.get_by_role("tab", name=name, exact=True).count():
            tab(narrow, name)
        narrow.wait_for_timeout(1000)
        assert narrow.evaluate("document.documentElement.scrollWidth") <= 390
        shot(narrow, f"{name.split()[0].lower()}-390")


def test_programs_use_the_same_actions_by_name(server: Server) -> None:
    described = json.load(urllib.request.urlopen(f"{server.url}gradio_api/info", timeout=600))
    names = set(described["named_endpoints"])
    assert names >= {f"/{name}" for name in (
        "erase", "cancel", "discard", "resume", "before_after", "draw", "measure", "best_strength", "attack",
        "contrast", "take_off", "export", "download", "neighbours",
    )}  # fmt: skip
    assert not any(name.startswith("/look_again") for name in names)
