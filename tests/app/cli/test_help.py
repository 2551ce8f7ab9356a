"""Help answers at once, names only what exists, and shows a method's knobs as its class has them."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import pytest

import erase
from app.cli.answer import fitted
from app.cli.parser import parsers
from benchmarks.attacks.declare import every_declaration
from benchmarks.attacks.registry import every_attack
from erase.methods._declared import declared, write
from erase.methods.registry import knobs, method, method_names
from tests.app.conftest import Studio

ROOT = Path(__file__).parents[3]
PROMISED = {
    "demo", "models", "methods", "metrics", "attacks", "suites", "sample", "erase", "judge", "attack", "export",
    "sweep", "report", "reproduce", "runs", "cancel", "resume", "serve", "ledger", "strength",
}  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["erase", "--help"],
        ["judge", "--help"],
        ["erase", "--method", "esd", "--help"],
        ["attack", "--attack", "latent-search", "--help"],
        ["methods"],
        ["methods", "esd"],
        ["attacks"],
        ["suites"],
        ["metrics"],
        ["--version"],
        ["ersae"],
    ],
    ids=" ".join,
)
def test_help_listings_and_simple_mistakes_import_nothing_heavy(words: list[str]) -> None:
    heavy = {"torch", "diffusers", "transformers", "numpy", "pydantic"}
    assert not imported(words, 2 if words == ["ersae"] else 0) & heavy


def test_listing_runs_and_their_edits_does_not_wait_for_torch(tmp_path: Path, studio: Studio) -> None:
    from tests.toys.pipelines import toy_folder

    run = tmp_path / "run"
    assert studio("erase", toy_folder(tmp_path / "toy"), "--concept", "Cats", "--method", "uce", "--out", run).code == 0
    for words in (["runs", str(tmp_path)], ["ledger", str(run)]):
        assert not imported(words, 0) & {"torch", "numpy", "safetensors"}


def imported(words: list[str], code: int) -> set[str]:
    """The packages in memory after a command, run in a process of its own."""
    script = (
        "import sys\nfrom app.cli.main import main\n"
        f"code = main({words!r})\n"
        "print('imported', *sorted({name.partition('.')[0] for name in sys.modules}))\nsys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return set(done.stdout.splitlines()[-1].split())


def test_the_index_says_what_the_classes_declare() -> None:
    every = every_declaration()
    assert len(every) == len(method_names()) + len(every_attack())
    for file, said in every.items():
        assert declared(file) == said, (
            f"{file.name} has changed: `python -m benchmarks.attacks.declare` renews the index"
        )


def test_a_file_that_has_changed_is_asked_itself(tmp_path: Path) -> None:
    file, said = next(iter(every_declaration().items()))
    copied = tmp_path / file.name
    copied.write_bytes(file.read_bytes())
    write({copied: said})
    assert declared(copied) == said
    copied.write_text(copied.read_text() + "# changed")
    assert declared(copied) is None


def test_the_usual_ways_to_ask(studio: Studio) -> None:
    assert studio("-V").out == studio("--version").out != ""
    assert studio("help").out == studio("--help").out != ""
    assert studio("help", "judge").out == studio("judge", "--help").out != ""


@pytest.mark.parametrize("columns", [80, 120])
def test_a_table_fits_the_terminal(columns: int) -> None:
    rows = [
        ("esd", "a diffusion model", "Trains part of the U-Net to steer away. " * 3, "A paper of a long title " * 3)
    ]
    lines = fitted(("method", "needs", "what it does", "paper"), rows, columns).splitlines()
    assert max(map(len, lines)) <= columns
    whole = " ".join(lines)
    assert all(word in whole for cell in rows[0] for word in cell.split())
    assert len(fitted(("method",), [("x" * 300,)]).splitlines()) == 3  # a file gets whole lines


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_a_shell_completes_commands_and_options(studio: Studio, shell: str) -> None:
    script = studio("completion", shell).out
    assert all(word in script for word in ("erase", "judge", "concept", "strength"))


def test_a_copy_says_its_version_and_that_it_has_types() -> None:
    assert erase.__version__ == metadata.version("concept-erasure-studio")
    assert all((ROOT / package / "py.typed").is_file() for package in ("app", "benchmarks", "erase", "generators"))


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
