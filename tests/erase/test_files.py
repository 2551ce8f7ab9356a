"""Files that people get: as readable as their own, read whatever editor wrote them, and named once."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import torch

from erase import files
from erase.edit import Edit
from erase.files import file_name, replace, write_text
from erase.gan.feedback import clicks
from erase.methods.uce import UCE
from erase.provenance import erased_names

BOM = "\ufeff"  # what editors on Windows put before a text


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_files_have_the_mode_that_files_usually_have(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        made = Edit({"w": torch.ones(1)}, {}).save(tmp_path / "edit.safetensors")
        write_text(tmp_path / "text", "")
        with replace(tmp_path / "other") as part:
            part.chmod(0o600)  # as safetensors leaves its files
    finally:
        os.umask(before)
    for path in (made, tmp_path / "text", tmp_path / "other"):
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask, path


def test_what_was_erased_twice_is_named_once() -> None:
    twice = [{"strength": 1.0, "about": {"concepts": [{"name": "Van Gogh"}]}} for _ in range(2)]
    assert erased_names({"parents": twice}) == ["Van Gogh"]


def test_a_mark_of_the_editor_is_no_part_of_a_text(tmp_path: Path) -> None:
    captions, marks = tmp_path / "captions.txt", tmp_path / "marks.json"
    captions.write_text(f"{BOM}a photo of {{}}\na drawing of {{}}\n", encoding="utf-8")
    assert UCE(templates=(f"@{captions}",)).templates == ("a photo of {}", "a drawing of {}")
    marks.write_text(BOM + json.dumps({"yes": list(range(8)), "no": list(range(8, 16))}), encoding="utf-8")
    assert {side: len(seeds) for side, seeds in clicks(marks).items()} == {"yes": 8, "no": 8}


@pytest.mark.parametrize("text", ["..", ".", "/../../../escaped", "a/b", "c:\\d", "...", "Van Gogh"])
def test_a_name_leads_nowhere_else(text: str, tmp_path: Path) -> None:
    place = tmp_path / file_name(text)
    assert place.resolve().parent == tmp_path.resolve()
    assert place != tmp_path
    assert file_name("uce, beta=0.5-Van_Gogh") == "uce,_beta=0.5-Van_Gogh"


def test_a_digest_is_computed_again_only_when_the_file_has_changed(tmp_path: Path) -> None:
    file, asked = tmp_path / "weights", []

    def digest() -> str:
        asked.append(file.read_text())
        return files.sha256(file)

    file.write_text("one")
    first = files.remembered([file], "all", digest)
    assert files.remembered([file], "all", digest) == first
    assert len(asked) == 2  # written a moment ago: the next change might leave the same time

    def settled() -> str:
        return files.remembered([file], "all", digest)

    later = time.time_ns() + 10 * files.SETTLED
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files.time, "time_ns", lambda: later)
        assert settled() == first and settled() == first
        assert len(asked) == 3
        assert files.remembered([file], "another", digest) == first
        assert len(asked) == 4
        file.write_text("two")
        assert settled() != first
        assert asked[-1] == "two"
        before = settled()
        other = tmp_path / "other"
        other.write_text("six")
        os.utime(other, ns=(file.stat().st_atime_ns, file.stat().st_mtime_ns))
        os.replace(other, file)  # same size, same time
        assert settled() != before
        for kept in (files.cache_folder() / "digests").iterdir():
            kept.write_text("damaged")
        assert settled() == files.sha256(file)
