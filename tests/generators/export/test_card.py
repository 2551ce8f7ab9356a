"""What a file or a user names stands in cards as text: it is no markup, and the Python around it parses."""

from __future__ import annotations

import ast
import re

import pytest

from erase.errors import visible
from generators.export import card as cards
from generators.export.format import FORMS, Place, form

ODD = (
    "trailing \\\\", 'a "quote"', "<script>alert(1)</script>", "three ``` ticks", "\x1b[2Jgone", "two\nlines",
    "a|b [x](y)",
)  # fmt: skip


@pytest.mark.parametrize("name", [name for name in FORMS if name != "gan"])
@pytest.mark.parametrize("odd", ODD)
def test_the_python_of_a_card_parses_and_means_the_name(name: str, odd: str) -> None:
    place = Place(cards.quoted(odd), cards.quoted(odd), cards.quoted(odd), "sd1", published=True)
    (code,) = re.findall(r"```python\n(.*?)\n```", form(name).recipe(place), re.DOTALL)
    texts = [node.value for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Constant)]
    assert odd in texts
    assert "\x1b" not in code


@pytest.mark.parametrize("odd", ODD)
def test_a_name_is_no_markup_in_a_card(odd: str) -> None:
    concept = {"name": odd, "kind": "style", "anchor": odd}
    text = cards.card({"concepts": [concept], "keep": [odd], "model": "m", "method": "uce"}, recipe="")
    assert "<script>" not in text and "\x1b" not in text and "](y)" not in text.replace("\\](y)", "")
    assert text.count("```") == 0
    assert len([line for line in text.splitlines() if line.startswith("# ")]) == 1


def test_a_terminal_is_shown_no_control_characters() -> None:
    assert visible("a\x1b[2J\tb\nc \u202e é 你") == "a\\x1b[2J\tb\nc \\u202e é 你"
