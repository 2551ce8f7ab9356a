"""Names that people and programs type: verbs, options, knobs, suites, models, formats, endpoints of the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.queue import paths, queue
from app.sweeps.cells import chain
from app.verbs.listings import METRICS
from app.web import actions
from app.web.page import page
from benchmarks.attacks.registry import attack_kind, every_attack
from benchmarks.suites.gan_suite import gan_suite, gan_suite_names
from benchmarks.suites.suite import load_suite, suite_names
from benchmarks.sweeps.sweep import cells, read_sweep
from erase.methods.registry import method, method_names
from generators.assets import BUNDLED
from generators.export.format import FORMS, OF_GANS, form
from generators.loading import DCGAN, DTYPES
from tests.app.conftest import Studio, studio
from tests.golden.golden import check
from tests.golden.golden import digest as bits
from tests.golden.surface import endpoint, of_class, options, shape, verbs

__all__ = ["studio"]  # a fixture
SWEEP = """
name = "golden"
suite = ["pocket-canvas-small", "pocket-canvas-quick"]
targets = "Van_Gogh, Cats"
keep = "others"
seeds = [0, 1]
attacks = ["random:3", "paraphrase"]

[model]
path = "pocket-sd"
dtype = "fp32"

[[method]]
name = "uce"
preset = "kind"

[[method]]
name = "esd"
preset = "quick"
iterations = 3
grid = { eta = [1.0, 2.0] }
"""


def test_every_verb() -> None:
    check("surface/verbs", {name: options(parser) for name, parser in sorted(verbs([]).items())})


def test_what_a_method_or_an_attack_adds_to_its_verb() -> None:
    plain = verbs([])
    adding = [("erase", "--method", name) for name in method_names()]
    adding += [("attack", "--attack", name) for name in every_attack()]
    found = {}
    for argv in adding:
        known = options(plain[argv[0]])
        grown = options(verbs(argv)[argv[0]])
        found[argv[2]] = {name: facts for name, facts in grown.items() if name not in known}
    check("surface/knobs-as-options", found)


@pytest.mark.parametrize("name", method_names())
def test_knobs_of_methods(name: str) -> None:
    check(f"surface/method-{name}", {"paper": bool(method(name).paper), **of_class(method(name))})


def test_knobs_of_attacks() -> None:
    check("surface/attacks", {name: of_class(attack_kind(name)) for name in every_attack()})


def test_suites() -> None:
    found = {}
    for name in suite_names():
        one = load_suite(name)
        counts = {
            "all": len(one.shots()),
            "style": len(one.shots(one.styles[:1])),
            "object": len(one.shots(one.objects[:1])),
        }
        shots = [[cell.style, cell.object, cell.seed, cell.shot.seed, cell.shot.prompt] for cell in one.shots()]
        facts = one.model_dump(mode="json", exclude={"about", "deviations"})
        found[name] = {"digest": one.digest, "shots": counts, "cells": bits(str(shots)), "first": shots[:2], **facts}
    gans = {name: gan_suite(name).model_dump(mode="json", exclude={"about"}) for name in gan_suite_names()}
    check("surface/suites", {"diffusion": found, "gans": gans})


def test_models_formats_and_metrics() -> None:
    forms = {
        name: {
            "file": form(name).file,
            "files": form(name).files,
            "adds": form(name).adds,
            "options": form(name).options,
        }
        for name in FORMS
    }
    check("surface/lists", {
        "methods": method_names(), "attacks": every_attack(), "models": sorted(BUNDLED), "dcgan": DCGAN,
        "dtypes": DTYPES, "formats": forms, "formats of gans": OF_GANS,
        "metrics": [[name, better] for name, better, _ in METRICS],
    })  # fmt: skip


def test_documents_of_the_listings(studio: Studio, tmp_path: Path) -> None:
    asked = [("models",), ("methods",), ("methods", "esd"), ("attacks",), ("attacks", "random"), ("metrics",),
             ("suites",), ("runs", str(tmp_path))]  # fmt: skip
    found = {}
    for words in asked:
        outcome = studio(*words, "--json")
        assert outcome.code == 0, outcome.err
        said = " ".join(words).replace(str(tmp_path), "DIR")
        found[said] = shape(outcome.document)
    check("surface/documents", found)


def test_endpoints_of_the_page() -> None:
    described = page().get_api_info()
    named = {name: endpoint(facts) for name, facts in sorted(described["named_endpoints"].items())}
    check("surface/endpoints", {"named": named, "unnamed": sorted(described["unnamed_endpoints"])})


def test_what_the_pages_buttons_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "start", lambda device=None: None)  # nobody works on the queue here

    def told(task: Any) -> Any:
        where = str(paths.home())
        words = [[word.replace(where, "HOME") for word in command] for command in task.commands]
        run, files = str(task.run).replace(where, "HOME"), sorted(path.name for path in task.folder.iterdir())
        return {"kind": task.kind, "run": run, "commands": words, "device": task.device, "files": files}

    tasks = {
        "plain": actions.erase(actions.Erasure("pocket-sd", "Cats")),
        "whole": actions.erase(actions.Erasure("pocket-sd", "Van Gogh\nCats", "style", "painting", ["Dogs"], "esd",
                               {"iterations": 30, "variant": "u"}, 3, False)),
        "gan": actions.erase(actions.Erasure("pocket-gan", "hat", method="text-unlearn", knobs={"steps": 5})),
        "latents": actions.draw_latents("pocket-gan", 48),
    }  # fmt: skip
    check("surface/buttons", {name: told(task) for name, task in tasks.items()})


def test_cells_of_a_sweep(tmp_path: Path) -> None:
    (tmp_path / "sweep.toml").write_text(SWEEP, encoding="utf-8")
    plan = read_sweep(tmp_path / "sweep.toml")
    found = []
    for cell in cells(plan):
        task = chain(plan, cell, Path("OUT"))
        words = [list(task.erase), *([str(place), list(command)] for place, command in task.then)]
        found.append([cell.name, cell.kind, cell.seed, cell.variant.label, cell.variant.knobs, words])
    check("surface/sweep", found)
