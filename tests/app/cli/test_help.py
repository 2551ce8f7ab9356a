"""Help answers at once, names only what exists, and shows a method's knobs as its class has them."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from app.cli.parser import parsers
from erase.methods.registry import knobs, method, method_names
from tests.app.conftest import Studio

ROOT = Path(__file__).parents[3]
PROMISED = {
    "demo", "models", "methods", "metrics", "attacks", "suites", "sample", "erase", "judge", "attack", "export",
    "sweep", "report", "reproduce", "runs", "cancel", "resume", "serve", "ledger", "strength",
}  # fmt: skip


def test_help_answers_within_a_second_and_a_half() -> None:
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        done = subprocess.run([sys.executable, "-m", "app", "--help"], cwd=ROOT, capture_output=True, text=True)
        seconds.append(time.perf_counter() - began)
        assert done.returncode == 0
        assert "erase" in done.stdout
    assert min(seconds) < 1.5


@pytest.mark.parametrize("words", [["--help"], ["erase", "--help"], ["judge", "--help"], ["--version"], ["ersae"]])
def test_help_and_simple_mistakes_import_nothing_heavy(words: list[str]) -> None:
    script = (
        "import sys\nfrom app.cli.main import main\n"
        f"code = main({words!r})\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'numpy', 'pydantic'} & sys.modules.keys()\n"
        "assert not heavy, heavy\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == (2 if words == ["ersae"] else 0), done.stderr


def test_every_verb_that_is_advertised_exists() -> None:
    _, verbs = parsers([], every=True)
    assert verbs.keys() >= PROMISED
    for parser in verbs.values():
        module, function = parser.get_default("run").split(":")
        assert callable(getattr(import_module(module), function))


def test_erase_help_lists_every_method(studio: Studio) -> None:
    shown = studio("erase", "--help")
    assert shown.code == 0
    text = re.sub(r"-\n\s*", "-", shown.out)  # lines end after hyphens too
    assert ", ".join(method_names()) in " ".join(text.split())


@pytest.mark.parametrize("name", method_names())
def test_a_methods_knobs_are_shown_with_default_bounds_and_help(studio: Studio, name: str) -> None:
    for shown in (studio("erase", "--method", name, "--help"), studio("methods", name.upper())):
        assert shown.code == 0
        text = " ".join(shown.out.split())
        for knob in knobs(method(name)):
            assert f"--{knob.name.replace('_', '-')}" in text
            assert f"default: {knob.default}" in text
            assert knob.help.split()[0] in text
            if knob.bounds[1] is not None:
                assert f"{knob.bounds[1]:g}" in text


@pytest.mark.parametrize("name", method_names())
def test_no_method_calls_a_knob_like_an_option_of_erase(name: str) -> None:
    _, verbs = parsers([], every=True)
    taken = {option for action in verbs["erase"]._actions for option in action.option_strings}
    assert not {f"--{knob.name.replace('_', '-')}" for knob in knobs(method(name))} & taken


def test_the_listings_agree_with_what_they_list(studio: Studio) -> None:
    assert [entry["name"] for entry in studio("methods", "--json").document["methods"]] == method_names()
    assert {"pocket-sd"} <= {entry["name"] for entry in studio("models", "--json").document["models"]}
    assert {"pocket-canvas", "pocket-canvas-small"} <= {
        e["name"] for e in studio("suites", "--json").document["suites"]
    }
    metrics = studio("metrics", "--json").document["metrics"]
    assert {"UA", "IRA", "CRA", "FID", "KID", "CLIP", "style_accuracy"} <= {entry["name"] for entry in metrics}
    for verb in ("methods", "models", "suites", "metrics"):
        assert studio(verb).out.count("\n") > 2


@pytest.mark.parametrize("content", ["def (", "raise SystemExit(3)", "import no_such_module", "x = 1"])
def test_a_broken_method_file_hides_no_other(studio: Studio, tmp_path: Path, monkeypatch, content: str) -> None:
    (tmp_path / "broken.py").write_text(content)
    monkeypatch.setenv("ERASE_METHODS", str(tmp_path))
    outcome = studio("methods", "--json")
    assert outcome.code == 0
    assert {"uce", "esd"} <= {entry["name"] for entry in outcome.document["methods"]}
    assert str(tmp_path / "broken.py") in outcome.err
