"""Erase one concept, then another from that run, then take the first off again: what the pictures show."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path

import pytest
import torch

from benchmarks.probes.open_probe import open_probe
from erase.edit import Edit
from erase.model import Shot
from erase.work import drain
from generators.loading import load
from tests.e2e.test_pocket import studio

THINGS = ("Dogs", "Towers", "Trees", "Fishes", "Butterfly")
STYLES = ("Cartoon", "Winter", "Sketch", "Watercolor", "Crayon")


def uce(source: str, concept: str, kind: str, name: str, cwd: Path) -> Path:
    studio("erase", source, "--concept", concept, "--kind", kind, "--method", "uce", "--out", name, cwd=cwd)
    return cwd / name


@pytest.mark.slow
def test_the_first_concept_returns_and_the_second_stays_gone(tmp_path: Path) -> None:
    first = uce("pocket-sd", "Van Gogh", "style", "first", tmp_path)
    both = uce("first", "Cats", "object", "both", tmp_path)
    studio("ledger", "both", "--without", "1", "--out", "second", cwd=tmp_path)
    model, probe = load("pocket-sd"), open_probe("pocket-judge")
    gogh = [Shot(seed, f"A {thing} image in Van Gogh style.") for seed in range(4) for thing in THINGS]
    cats = [Shot(seed, f"A Cats image in {style} style.") for seed in range(4) for style in STYLES]

    def seen(run: Path | None) -> tuple[float, float]:
        edit = Edit.load(run / "edit.safetensors") if run else None
        with torch.no_grad(), edit.applied(model.network) if edit else nullcontext():
            pictures = probe(drain(model.sample([*gogh, *cats])))
        style = pictures.style_prob[: len(gogh)].argmax(1) == probe.styles.index("Van_Gogh")
        thing = pictures.object_prob[len(gogh) :].argmax(1) == probe.objects.index("Cats")
        return float(style.float().mean()), float(thing.float().mean())

    rates = {run: seen(run) for run in (None, first, both, tmp_path / "second")}
    assert min(rates[None]) >= 0.9
    assert rates[first][0] <= 0.2 and rates[first][1] >= 0.8
    assert max(rates[both]) <= 0.2
    assert rates[tmp_path / "second"][0] >= 0.8 and rates[tmp_path / "second"][1] <= 0.2
