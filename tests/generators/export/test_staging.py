"""Exports appear whole or not at all: killed, refused and full disks leave what was there before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from erase.errors import BadInput
from generators.export.staging import CARD, PROOF, arriving

FILE = "model.safetensors"
# Writes an export in small pieces, says when it began, and goes on until it is killed or done.
WRITER = f"""
import sys
from pathlib import Path
from generators.export.staging import arriving
print("begun", flush=True)
while True:
    with arriving(Path(sys.argv[1]), force=True, file={FILE!r}) as folder:
        for name in ({FILE!r}, {CARD!r}, {PROOF!r}):
            with (folder / name).open("w") as file:
                for _ in range(200):
                    file.write(sys.argv[2] * 10)
                    file.flush()
"""


def arrived(target: Path, text: str, *, force: bool = False) -> None:
    with arriving(target, force=force, file=FILE) as folder:
        for name in (FILE, CARD, PROOF):
            (folder / name).write_text(text)


@pytest.mark.parametrize("name", ["out", "out.safetensors"])
def test_killed_at_any_moment(name: str, tmp_path: Path) -> None:
    """kill -9 at moments spread over many exports: what stands there is the old or the new one, never a part."""
    target = tmp_path / name
    arrived(target, "a" * 2000)
    for moment in range(12):
        letter = "bc"[moment % 2]
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(target), letter], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
        )
        assert writer.stdout is not None and writer.stdout.readline() == b"begun\n"
        time.sleep(0.004 * moment)
        writer.kill()
        writer.wait()
        writer.stdout.close()
        held = [target] if target.is_file() else list(target.glob("*")) if target.is_dir() else []
        for path in held:
            text = path.read_text()
            assert len(text) == 2000 and len(set(text)) == 1, path
        assert len(held) in ((0, 1) if name.endswith(".safetensors") else (0, 3))
        arrived(target, letter * 2000, force=True)
        assert sorted(path.name for path in tmp_path.iterdir()) in (["out"], ["out.md", "out.safetensors"])


@pytest.mark.parametrize("name", ["out", "out.safetensors"])
@pytest.mark.parametrize("killed_before", [1, 2, 3, 4])
def test_killed_between_the_moves_of_a_replacement(
    name: str, killed_before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was moved aside comes back with the next export to the same place, even one that is refused."""
    target = tmp_path / name
    arrived(target, "old")
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom generators.export import staging\n"
        "real, count = os.replace, [0]\n"
        "def replace(source, aim):\n"
        "    count[0] += 1\n"
        f"    if count[0] == {killed_before}: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    real(source, aim)\n"
        "staging.os.replace = replace\n"
        f"with staging.arriving(Path(sys.argv[1]), force=True, file={FILE!r}) as folder:\n"
        f"    for name in ({FILE!r}, {CARD!r}, {PROOF!r}): (folder / name).write_text('new')\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(target)], cwd=Path(__file__).parents[3])
    moves = 2 if name == "out" else 4
    assert done.returncode == (-signal.SIGKILL if killed_before <= moves else 0)
    if target.is_file():
        assert target.read_text() == target.with_suffix(".md").read_text()
    with pytest.raises(BadInput, match="--force"):
        arrived(target, "third")
    text = "old" if killed_before <= moves else "new"
    parts = [target, target.with_suffix(".md")] if target.is_file() else list(target.iterdir())
    assert [part.read_text() for part in parts] == [text] * len(parts)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_error_puts_the_old_one_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.safetensors"
    arrived(target, "old")
    moved = []

    def failing(source: Path, aim: Path) -> None:
        moved.append(aim)
        if len(moved) == 4:
            raise KeyboardInterrupt
        real(source, aim)

    real = os.replace
    monkeypatch.setattr("generators.export.staging.os.replace", failing)
    with pytest.raises(KeyboardInterrupt):
        arrived(target, "new", force=True)
    assert [path.read_text() for path in sorted(tmp_path.iterdir())] == ["old", "old"]


def test_two_at_once(tmp_path: Path) -> None:
    with arriving(tmp_path / "out", force=False) as folder:
        (folder / PROOF).write_text("first")
        with pytest.raises(BadInput, match="being written by another process"):
            arrived(tmp_path / "out", "second")
    assert (tmp_path / "out" / PROOF).read_text() == "first"


def test_force_replaces_exports_alone(tmp_path: Path) -> None:
    mine = tmp_path / "mine.safetensors"
    mine.write_text("mine")
    with pytest.raises(BadInput, match="no card beside it"):
        arrived(mine, "new", force=True)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model_index.json").write_text("{}")
    with pytest.raises(BadInput, match="is not an export"):
        arrived(tmp_path / "model", "new", force=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine.safetensors", "model"]


def test_files_are_as_readable_as_files_usually_are(tmp_path: Path) -> None:
    with arriving(tmp_path / "out", force=False) as folder:
        (folder / FILE).touch(mode=0o600)
    (tmp_path / "usual").touch()
    assert (tmp_path / "out" / FILE).stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_names_of_every_kind(tmp_path: Path) -> None:
    for name in ("ohne Größe ☂", "a.b", "[x]*?", "-n", "1" * 240):
        arrived(tmp_path / name, "x")
        assert (tmp_path / name / FILE).read_text() == "x"
    with pytest.raises(BadInput, match="too long"):
        arrived(tmp_path / ("1" * 256), "x")
