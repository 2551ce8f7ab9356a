"""Sentences around a concept: given one by one, or as a file of captions."""

from __future__ import annotations

from pathlib import Path

import pytest

from erase.concept import Concept
from erase.errors import BadInput
from erase.methods.registry import build
from erase.prompts.templates import spoken


def test_a_file_of_captions_stands_for_its_lines(tmp_path: Path) -> None:
    (tmp_path / "captions.txt").write_text("a lake in {} style\n\n  {} style, a dog  \n")
    method = build("ablate", None, {"templates": f"@{tmp_path / 'captions.txt'} | a {{}} house"})
    lines = ("a lake in {} style", "{} style, a dog", "a {} house")
    assert method.templates == lines  # type: ignore[attr-defined]
    assert method.model_dump(mode="json")["templates"] == list(lines)  # type: ignore[attr-defined]
    pairs = spoken(Concept(name="Van Gogh", kind="style"), lines)
    assert pairs[1] == ("a lake in Van Gogh style", "a lake in painting style")


@pytest.mark.parametrize(
    ("content", "sentence"), [(None, "cannot be read"), (" \n\n", "is empty"), ("a lake\n", "needs exactly one {}")]
)
def test_a_file_that_holds_no_captions_is_refused(tmp_path: Path, content: str | None, sentence: str) -> None:
    if content is not None:
        (tmp_path / "captions.txt").write_text(content)
    with pytest.raises(BadInput, match=sentence):
        build("ablate", None, {"templates": f"@{tmp_path / 'captions.txt'}"})
