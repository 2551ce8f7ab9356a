"""A run's folder and the documents in it, from erasing to the report, on a tiny Stable Diffusion."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from app.runs.job import Job
from app.runs.run import open_run
from benchmarks.report import Report
from erase.concept import Concept
from tests.app.conftest import Studio, folder, studio
from tests.golden.golden import Brittle, check
from tests.golden.golden import digest as bits
from tests.golden.surface import shape
from tests.golden.test_attacks import QUICK

__all__ = ["folder", "studio"]  # fixtures
SUITE = """
name = "golden"
version = 1
probe = "pocket-judge"
styles = ["Bricks", "Cartoon", "Crayon", "Cubism", "Ink_Art", "Neon_Lines", "On_Fire", "Pop_Art", "Red_Blue_Ink",
          "Rust", "Seed_Images", "Sketch", "Van_Gogh", "Watercolor", "Winter"]
objects = ["Architectures", "Bears", "Birds", "Butterfly", "Cats", "Dogs", "Fishes", "Flame", "Flowers", "Frogs",
           "Horses", "Human", "Jellyfish", "Rabbits", "Sandwiches", "Sea", "Statues", "Towers", "Trees", "Waterfalls"]
photo = "Seed_Images"
seeds = [1, 2]
grid_seeds = [1]
steps = 2
grid_styles = 2
grid_objects = 2
"""
ERASE = ("--concept", "Van_Gogh", "--kind", "style", "--keep", "object:Cats", "object:Dogs")
ESD = ("--method", "esd", "--iterations", "3", "--steps", "2", "--seeds", "2", "--lr", "1e-3")


def files(where: Path) -> list[str]:
    """The names of all files below a folder, hidden ones left out."""
    found = (path.relative_to(where).as_posix() for path in where.rglob("*") if path.is_file())
    return sorted(name for name in found if not re.search(r"(^|/)\.", name))


def listing(where: Path) -> dict[str, Any]:
    """The files of a run with the shape of each JSON document and each safetensors file's names and metadata keys."""
    found: dict[str, Any] = {}
    for name in files(where):
        path = where / name
        if path.suffix == ".json":
            found[name] = shape(json.loads(path.read_text(encoding="utf-8")))
        elif path.suffix == ".jsonl":
            found[name] = shape([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])
        elif path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                about = {key: shape(json.loads(value)) for key, value in sorted((file.metadata() or {}).items())}
                short = {"tensors": len(list(file.keys())), "metadata": about}
            named = re.sub("[0-9a-f]{16}", "HASH", name)  # of an edit, which other arithmetic changes
            found.setdefault(named, []).append(short)
            found[named].sort(key=lambda each: each["tensors"])
        else:
            found[name] = "a file"
    return found


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))


def test_a_run_from_erasing_to_its_report(studio: Studio, folder: Path, tmp_path: Path) -> None:
    run, suite = tmp_path / "runs" / "one", tmp_path / "golden.toml"
    suite.write_text(SUITE, encoding="utf-8")
    typed = {
        "erase": ("erase", folder, *ERASE, *ESD, "--out", run),
        "stack": ("erase", run, "--concept", "Cats", "--method", "uce", "--out", tmp_path / "runs" / "two"),
        "ledger": ("ledger", tmp_path / "runs" / "two"),
        "without": ("ledger", tmp_path / "runs" / "two", "--without", "1", "--out", tmp_path / "runs" / "three"),
        "sample": ("sample", run, "--prompt", "a cat", "--seeds", "3:5", "--steps", "2", "--out", tmp_path / "s.png"),
        "judge": ("judge", run, "--suite", suite),
        "attack": ("attack", folder, "--concept", "Van Gogh", "--attack", "random", "--budget", "2", "--rows", "2",
                   "--suite", suite, "--out", tmp_path / "attack"),
        "report": ("report", run, "--out", tmp_path / "page.html"),
        "runs": ("runs", tmp_path / "runs"),
    }  # fmt: skip
    documents: dict[str, Any] = {}
    for name, words in typed.items():
        outcome = studio(*words, "--json")
        documents[name] = [outcome.code, shape(json.loads(outcome.out)) if outcome.out else None]
    report = Report.read(run / "report.json")
    scores = {name: [score.value, score.low, score.high, score.n, score.baseline, score.better, score.interval]
              for name, score in report.scores.items() if name not in ("seconds", "peak_memory_bytes")}  # fmt: skip
    edits = {name: open_run(tmp_path / "runs" / name).edit().hash for name in ("one", "two", "three")}
    check("runs/journey", {
        "documents": documents, "one": listing(run), "two": listing(tmp_path / "runs" / "two"),
        "three": listing(tmp_path / "runs" / "three"), "attack": files(tmp_path / "attack"),
        "edits": Brittle(edits), "scores": Brittle(scores), "names of scores": list(report.scores),
        "seen": Brittle(bits(json.dumps(list(map(dict, report.rows))))), "knobs": open_run(run).job.knobs,
    })  # fmt: skip


def test_hashes_of_jobs() -> None:
    whole = {
        "model": "pocket-sd", "concepts": (Concept(name="Van_Gogh", kind="style"), Concept(name="Cats", anchor="dogs")),
        "keep": (Concept(name="Dogs", prompts=("a dog",)),), "method": "esd", "knobs": {"eta": 1.5, "templates": True},
        "seed": 3, "parents": ("abc",), "dtype": "fp32", "config": "folder",
    }  # fmt: skip
    jobs = [Job(**whole), Job(model="pocket-gan", concepts=(Concept(name="hat", kind="attribute"),), method="guide")]
    check("runs/jobs", [[job.hash, job.title, job.model_dump(mode="json")] for job in jobs])


def test_words_of_concepts() -> None:
    kinds = ("style", "object", "nudity", "identity", "attribute")
    made = [Concept(name="Van_Gogh", kind=kind) for kind in kinds]  # type: ignore[arg-type]
    made += [Concept(name=" Golden  Retriever ", prompts=("a dog", "a puppy")), Concept(name="Cats", anchor="")]
    check("runs/concepts", [[one.model_dump(mode="json"), one.phrases, one.instead] for one in made])


def test_attacks_tried_here_are_all() -> None:
    check("runs/attacks", {name: sorted(knobs) for name, knobs in QUICK.items()})
