"""Rows of a look: a prompt of one's own is judged by the erased concepts it names, and each target is drawn once."""

from __future__ import annotations

import pytest
import torch

from benchmarks.judging.judge import erased
from benchmarks.pages import gallery
from benchmarks.pages.strengths import own_line
from benchmarks.pictures.grid import Pair
from benchmarks.suites.suite import load_suite
from erase.edit import Edit
from erase.model import Shot

SUITE = load_suite("pocket-canvas-small")
CARTOON = {"name": "Cartoon", "kind": "style"}
CATS = {"name": "Cats", "kind": "object", "prompts": ["a purring thing"]}


def edit(*concepts: dict[str, object]) -> Edit:
    """An edit about these concepts."""
    return Edit({"a.weight": torch.ones(1)}, {"concepts": list(concepts)})


@pytest.mark.parametrize(
    ("prompt", "gone", "style", "thing"),
    [
        ("A Dogs image in Cartoon style.", True, "Cartoon", ""),
        ("A Cats image in Cartoon style.", True, "Cartoon", "Cats"),
        ("A purring thing, asleep", True, "", "Cats"),
        ("two kittens and a kitten", True, "", "Cats"),
        ("A Dogs image in Van Gogh style.", False, "", ""),
        ("cartoonish concatenation", False, "", ""),
    ],
)
def test_a_prompt_of_ones_own_should_lose_what_it_names(prompt: str, gone: bool, style: str, thing: str) -> None:
    line = own_line(prompt, (0, 1), ["Cartoon", "Cats"], edit(CARTOON, CATS), SUITE)
    assert (line.gone, line.pairs[0].style, line.pairs[0].object) == (gone, style, thing)
    assert [pair.shot.seed for pair in line.pairs] == [0, 1]


def test_a_success_is_no_alarm_and_an_unnamed_prompt_has_no_verdict() -> None:
    pair = Pair(Shot(0, "A Dogs image in Cartoon style."), "Cartoon", "")
    was, now = ("Cartoon", "Dogs"), ("Photo", "Dogs")
    assert gallery._fine(was, now, pair, {"Cartoon"}, SUITE) is True
    assert gallery._fine(was, was, pair, {"Cartoon"}, SUITE) is False
    assert gallery._fine(was, now, Pair(Shot(0, "anything"), "", ""), None, SUITE) is None


def test_a_stacked_edit_names_each_target_once() -> None:
    parents = [{"hash": str(number), "about": {"concepts": [each]}} for number, each in enumerate((CARTOON, CATS))]
    stacked = Edit({"a.weight": torch.ones(1)}, {"concepts": [CARTOON, CATS], "parents": parents})
    assert erased(stacked) == ["Cartoon", "Cats"]
    assert erased(None) == []
