"""Every mistake ends in exit 2 and one sentence that says what was given, what is possible, and the nearest guess."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.cli.main import explain
from erase import files
from erase.errors import BadInput, DiskFull
from tests.app.conftest import Outcome, Studio
from tests.app.runs.conftest import METHODS

ERASE = ("--concept", "Cats", "--method", "uce")


def refused(outcome: Outcome, *phrases: str) -> None:
    """Exit 2, nothing on stdout, no traceback, and one short paragraph that holds the phrases."""
    assert outcome.code == 2, outcome.err
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    said = [line for line in outcome.err.splitlines() if not line.startswith("Opening ")]
    assert len(said) == 1, outcome.err
    for phrase in phrases:
        assert phrase in outcome.err


@pytest.mark.parametrize(
    ("words", "phrases"),
    [
        (["erasse"], ["'erasse'", "Did you mean 'erase'?"]),
        (["erase"], ["--concept", "`studio erase --help`"]),
        (["judge", "pocket-sd", "--siute", "x"], ["'siute'", "Did you mean 'suite'?"]),
        (
            ["sample", "pocket-sd", "--prompt", "x", "--out", "x.png", "--guidance", "nan"],
            ["nan is not valid"],
        ),
        (
            ["sample", "pocket-sd", "--prompt", "x", "--out", "x.png", "--steps", "1001"],
            ["from 1 to 1,000"],
        ),
        (["judge", "pocket-sd", "--until", "0"], ["0 is not valid", "above 0 to 1"]),
        (["erase", "pocket-sd", *ERASE, "--out", "x", "--save-every", "nan"], ["--save-every", "nan is not valid"]),
        (["erase", "pocket-sd", *ERASE, "--out", "x", "--previews", "-1"], ["-1 is not valid"]),
        (["erase", "pocket-sd", *ERASE, "--out", "x", "--seed", str(2**63)], ["is not valid"]),
        (["neighbours", "pocket-sd", "--concept", "Cats", "--count", "-3"], ["-3 is not valid"]),
        (["sample", "pocket-sd", "--prompt", "x\udcff", "--out", "x.png"], ["is not UTF-8 text"]),
        (["sample", "pocket-sd", "--prompt", "x", "--seeds", "0:1000000000000", "--out", "x.png"], ["too many"]),
        (["sample", "pocket-sd", "--prompt", "x", "--seeds", str(2**63), "--out", "x.png"], ["too large"]),
        (["sample", "pocket-sd", "--prompt", "x", "--out", "y" * 300 + "/x.png"], ["File name too long"]),
        (["erase", "pocket-sd", "--concept", "-x", "--method", "uce", "--out", "x"], ["written --concept=VALUE"]),
        (["erase", "pocket-sd", "--concept", "a\x1b[2J", "--method", "uce", "--out", "x"], ["\\x1b"]),
        (["judge", "pocket-sd", "more"], ["'more' is one argument too many"]),
        (["methods", "ecd"], ["method 'ecd'", "Did you mean 'esd'?"]),
        (["judge", "pocket-sd", "--suite", "pocket-canvass"], ["Did you mean 'pocket-canvas'?"]),
        (["sample", "pocket-sd", "--prompt", "x", "--seeds", "4:1", "--out", "x.png"], ["'4:1' names no seeds"]),
        (["sample", "pocket-sd", "--prompt", "x", "--out", "x.jpg"], ["should end in .png"]),
        (["sample", "pocket-sd", "--prompt", "x", "--strength", "1", "--out", "x.png"], ["no --strength"]),
        (["sample", "pocket-sd", "--out", "x.png"], ["Add --prompt"]),
        (["judge", ""], ["no name"]),
        (["export", "nowhere", "--as", "list"], ["no folder nowhere"]),
        (["resume", "nowhere"], ["no folder nowhere"]),
        (["runs", "nowhere"], ["no folder nowhere"]),
    ],
)
def test_a_command_that_cannot_be_meant(studio: Studio, words: list[str], phrases: list[str]) -> None:
    refused(studio(*words), *phrases)


@pytest.mark.parametrize(
    ("words", "phrases"),
    [
        (["--concept", "Cats", "--method", "ucee"], ["method 'ucee'", "Did you mean 'uce'?"]),
        (["--concept", "", "--method", "uce"], ["A concept needs a name"]),
        (["--concept", "Cats", "--keep", "kitten", "--method", "uce"], ["'kitten' is another word for 'Cats'"]),
        (["--concept", "Cats", "--anchor", "cats", "--method", "uce"], ["anchor are the same words"]),
        (["--concept", "Cats", "--concept", "cats", "--method", "uce"], ["erased twice"]),
        (["--concept", "Cats", "--keep", "Cats", "--method", "uce"], ["erased and kept"]),
        (["--concept", "Cats", "--kind", "stile", "--method", "uce"], ["kind 'stile'", "Did you mean 'style'?"]),
        ([*ERASE, "--push", "-1"], ["push = '-1'", "between 0 and 10000", "default is 1.0"]),
        ([*ERASE, "--push", "much"], ["push = 'much'", "number"]),
        ([*ERASE, "--rows", "lst"], ["'lst'", "Did you mean 'last'?"]),
        ([*ERASE, "--pusch", "1"], ["knob of uce 'pusch'", "Did you mean 'push'?"]),
        ([*ERASE, "--preset", "stile"], ["preset of uce 'stile'", "Did you mean 'style'?"]),
    ],
)
def test_an_erasure_that_cannot_be_meant(studio: Studio, tmp_path: Path, words: list[str], phrases: list[str]) -> None:
    refused(studio("erase", "pocket-sd", "--out", tmp_path / "run", *words), *phrases)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("concept", "guess"), [("Van Goch", "Van Gogh"), ("kitens", "kitten"), ("Watercolr", "Watercolor")]
)
def test_pocket_sd_is_asked_only_for_words_it_was_taught(
    studio: Studio, tmp_path: Path, concept: str, guess: str
) -> None:
    outcome = studio("erase", "pocket-sd", "--concept", concept, "--method", "uce", "--out", tmp_path / "run")
    refused(outcome, f"concept of pocket-sd {concept!r}", f"Did you mean {guess!r}?")


def test_models_that_are_none(studio: Studio, tmp_path: Path, folder: Path) -> None:
    out = ("--out", tmp_path / "run", *ERASE)
    refused(studio("erase", "pocket-sdd", *out), "'pocket-sdd'", "Did you mean 'pocket-sd'?")
    (tmp_path / "letters").mkdir()
    refused(studio("erase", tmp_path / "letters", *out), "letters")
    refused(studio("erase", "someone/something", *out), "--online")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refused(studio("erase", folder, *out), "diffusion_pytorch_model.safetensors")
    assert not (tmp_path / "run").exists()


def test_a_run_folder_is_not_written_over(studio: Studio, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to-you.txt").touch()
    refused(studio("erase", folder, *ERASE, "--out", tmp_path / "letters"), "Choose another --out")
    assert studio("erase", folder, *ERASE, "--out", tmp_path / "run").code == 0
    again = studio("erase", folder, *ERASE, "--out", tmp_path / "run")
    assert again.code == 0
    assert "already holds this very job" in again.out
    other = studio("erase", folder, *ERASE, "--push", "2", "--out", tmp_path / "run", "--resume")
    refused(other, "already holds another run (Cats by uce)", "push is 1.0 there and 2.0 here")


def test_places_where_nothing_can_be_made(studio: Studio, tmp_path: Path, folder: Path) -> None:
    (tmp_path / "file").touch()
    refused(
        studio("erase", folder, *ERASE, "--out", tmp_path / "file" / "run"), "cannot be made", "Choose another --out"
    )
    picture = ("--prompt", "x", "--steps", "1", "--seeds", "0", "--out", tmp_path / "file" / "x.png")
    refused(studio("sample", folder, *picture), "cannot be made")


SWEEP = 'targets = "Cats"\n[model]\npath = "{}"\n[[method]]\nname = "uce"\n'


def test_a_place_that_cannot_be_written_is_refused_before_a_model_is_loaded(
    studio: Studio, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, sweep = tmp_path / "run", tmp_path / "sweep.toml"
    assert studio("erase", folder, *ERASE, "--out", run).code == 0
    sweep.write_text(SWEEP.format(folder))

    def read_only(**given: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", read_only)
    monkeypatch.setattr("app.models.load", lambda *given: pytest.fail("a model was loaded"))
    for words in (
        ["erase", folder, *ERASE, "--out", tmp_path / "other"],
        ["sample", folder, "--prompt", "x", "--out", tmp_path / "x.png"],
        ["judge", run],
        ["attack", run, "--concept", "Cats", "--attack", "random"],
        ["look", run],
        ["strength", run],
        ["report", run, "--out", tmp_path / "x.html"],
        ["latents", "pocket-gan", "--out", tmp_path],
        ["sweep", sweep, "--out", tmp_path / "swept"],
    ):
        refused(studio(*words), "Nothing can be written in", "Read-only file system")


def test_a_write_that_is_forbidden_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(*given: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(files.os, "replace", read_only)
    with pytest.raises(BadInput, match="Nothing can be written"):
        files.write_text(tmp_path / "report.json", "{}")


def test_what_can_be_checked_is_checked_before_a_model_is_loaded(
    studio: Studio, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, sweep = tmp_path / "run", tmp_path / "sweep.toml"
    assert studio("erase", folder, *ERASE, "--out", run).code == 0
    monkeypatch.setattr("app.models.load", lambda *given: pytest.fail("a model was loaded"))
    refused(studio("judge", run, "--data", tmp_path / "typo"), "There is no data folder", "typo")
    refused(studio("judge", folder, "--until", "0.1"), "--until has no effect")
    for line, said in (
        (f'data = "{tmp_path / "typo"}"\n', "There is no data folder"),
        ('probe = "pocket-jugde"\n', "Did you mean 'pocket-judge'?"),
        ('keep = ["Cats"]\n', "erased and kept"),
    ):
        sweep.write_text(line + SWEEP.format(folder))
        refused(studio("sweep", sweep, "--out", tmp_path / "swept"), said)
        assert not (tmp_path / "swept").exists()


@pytest.mark.parametrize(
    ("words", "phrases"),
    [
        (
            ["erase", "pocket-sd", "--concept", "Cats", "Dogs", "--method", "uce", "--out", "x"],
            ["'Dogs'", "Repeat --concept"],
        ),
        (
            ["erase", "--concept", "Cats", "--method", "uce", "--out", "x", "--keep", "Dogs", "Birds", "pocket-sd"],
            ["--keep has taken 'pocket-sd'", "before the options"],
        ),
    ],
)
def test_what_an_option_takes_is_said(studio: Studio, words: list[str], phrases: list[str]) -> None:
    refused(studio(*words), *phrases)


def test_a_run_of_a_plug_in_names_the_variable(
    studio: Studio, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERASE_METHODS", str(METHODS))
    assert studio("erase", folder, "--concept", "Cats", "--method", "walk", "--out", tmp_path / "run").code == 0
    monkeypatch.delenv("ERASE_METHODS")
    refused(studio("reproduce", tmp_path / "run", "--out", tmp_path / "again"), "'walk'", "ERASE_METHODS")


def test_an_anchor_that_was_never_taught(studio: Studio, tmp_path: Path) -> None:
    words = ("erase", "pocket-sd", *ERASE, "--out", tmp_path / "run", "--anchor")
    refused(studio(*words, "zebra"), "anchor of pocket-sd 'zebra'")
    gan = ("erase", "pocket-gan", "--concept", "beard", "--method", "text-unlearn", "--out", tmp_path / "run")
    refused(studio(*gan, "--anchor", "hat"), "--anchor has no effect")


def test_options_that_nothing_reads(studio: Studio, tmp_path: Path) -> None:
    draw = ("sample", "pocket-gan", "--seeds", "0", "--out", tmp_path / "x.png")
    refused(studio(*draw, "--steps", "5"), "--steps has no effect")
    refused(studio(*draw, "--guidance", "3"), "--guidance has no effect")
    attack = ("attack", "pocket-gan", "--concept", "hat", "--attack", "latent-search")
    refused(studio(*attack, "--batch", "3"), "--batch has no effect")
    person = ("--concept", "seed 17", "--method", "text-unlearn", "--out", tmp_path / "run")
    refused(studio("erase", "pocket-gan", *person), "names a person", "Use guide")


def test_what_was_erased_before_is_said(studio: Studio, tmp_path: Path, folder: Path) -> None:
    assert studio("erase", folder, *ERASE, "--out", tmp_path / "run").code == 0
    again = studio("erase", tmp_path / "run", *ERASE, "--out", tmp_path / "again")
    assert again.code == 0
    assert "'Cats' has been erased from this run before" in again.err


def test_damaged_and_foreign_edits(studio: Studio, tmp_path: Path, folder: Path) -> None:
    run = tmp_path / "run"
    assert studio("erase", folder, *ERASE, "--out", run).code == 0
    edit = run / "edit.safetensors"
    whole = edit.read_bytes()
    edit.write_bytes(whole[:-10])
    sample = ("sample", run, "--prompt", "x", "--steps", "1", "--out", tmp_path / "x.png")
    refused(studio(*sample), "cut short")
    edit.unlink()
    refused(studio(*sample), "holds no edit yet", "studio resume")


def test_no_disk_space(studio: Studio, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    refused(studio("erase", folder, *ERASE, "--out", tmp_path / "run"), "has 1 kB free", "Free some space")
    assert not (tmp_path / "run").exists()
    refused(studio("sample", folder, "--prompt", "x", "--out", tmp_path / "x.png"), "has 1 kB free")


def test_mistakes_are_one_json_document_too(studio: Studio) -> None:
    outcome = studio("methods", "ecd", "--json")
    assert outcome.code == 2
    assert outcome.document["status"] == "failed"
    assert outcome.document["error"]["kind"] == "bad-input"
    assert "esd" in outcome.document["error"]["message"]


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (MemoryError(), "memory", 1),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "memory", 1),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "memory", 1),
        (OSError(errno.ENOSPC, "No space left on device"), "disk", 1),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "disk", 1),
        (DiskFull("full"), "disk", 1),
        (FloatingPointError("The loss became nan"), "collapsed", 1),
        (KeyboardInterrupt(), "cancelled", 130),
        (KeyError("x"), "unexpected", 1),
    ],
)
def test_what_happens_to_people_is_told_in_sentences(error: BaseException, kind: str, code: int) -> None:
    told = explain(error)
    assert told[:2] == (kind, code)
    assert told[2][-1] in ".'n" or kind == "unexpected" or str(error) in told[2]


def test_strict_json_has_no_nan() -> None:
    assert json.loads(files.dumps({"a": [float("nan"), 1.5, float("inf")], "b": Path("x")})) == {
        "a": [None, 1.5, None],
        "b": "x",
    }


@pytest.mark.parametrize(
    ("error", "helps", "not_there"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "--dtype bf16", "Close other"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "closed form", "--attention-slicing"),
        (MemoryError(), "closed form", "--dtype"),
    ],
)
def test_the_advice_about_memory_helps_on_that_device(error: Exception, helps: str, not_there: str) -> None:
    kind, code, message = explain(error)
    assert (kind, code) == ("memory", 1)
    assert helps in message and not_there not in message
