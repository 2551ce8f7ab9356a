"""Whatever README.md tells its readers to type is typed here, in its order, in one folder."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.app.conftest import Studio
from tests.app.documents import ROOT, blocks

CONSOLE = blocks("README.md", "console")


def test_the_readme_has_the_commands_this_test_is_about() -> None:
    commands = [words for block in CONSOLE for words in block.commands]
    assert {words[0] for words in commands} == {"studio"}
    assert {"models", "methods", "erase", "sample", "judge", "export", "reproduce", "runs"} <= {w[1] for w in commands}
    assert all(line.startswith("$ ") for block in CONSOLE for line in block.text.splitlines())


@pytest.mark.parametrize(
    "words", [words for block in CONSOLE if not block.needs_model for words in block.commands], ids=" ".join
)
def test_a_command_that_only_tells(studio: Studio, words: list[str]) -> None:
    outcome = studio(*words[1:])
    assert outcome.code == 0, outcome.err
    assert outcome.out


@pytest.mark.slow
def test_the_commands_that_draw(studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in CONSOLE:
        for words in block.commands if block.needs_model else ():
            outcome = studio(*words[1:])
            assert outcome.code == 0, f"{' '.join(words)}: {outcome.err}"
            if "--json" in words:
                assert outcome.document["status"] == "done"
    for name in ("before.png", "half.png", "runs/van-gogh/report.json", "runs/van-gogh/grid.png"):
        assert (tmp_path / name).is_file(), name
    scores = json.loads((tmp_path / "runs/van-gogh/report.json").read_text())["scores"]
    assert scores["UA"]["value"] > scores["UA"]["baseline"]


@pytest.mark.slow
def test_the_lines_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    [block] = blocks("README.md", "python")
    exec(compile(block.text, "README.md", "exec"), {})
    assert "UA" in capsys.readouterr().out
    assert (tmp_path / "erased" / "model_index.json").is_file()


PAGES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", *PAGES])
def test_links_between_documents_lead_somewhere(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    links = re.findall(r"\]\((?!http)([^)]+)\)", text)
    for target in links:
        page, _, heading = target.partition("#")
        file = (ROOT / document).parent / page if page else ROOT / document
        assert file.exists(), target
        assert not heading or heading in _anchors(file), target


def _anchors(file: Path) -> set[str]:
    """What a heading of a page is called in links to it."""
    heads = re.findall(r"(?m)^#+ (.+)$", file.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def test_readers_of_the_index_find_every_page() -> None:
    linked = set(re.findall(r"\]\(([^)#]+)\)", (ROOT / "docs/index.md").read_text(encoding="utf-8")))
    assert {page.removeprefix("docs/") for page in PAGES} - {"index.md"} <= linked
