"""`judge` and `demo` from end to end on stand-ins for the bundled models: random weights, real files, real folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from generators.pocket.canvas.probe import CanvasProbe
from tests.app.conftest import Studio
from tests.benchmarks.doubles import write_suite
from tests.toys.pipelines import toy_folder

THEMES = ["Crayon", "Seed_Images", "Van_Gogh"]


@pytest.fixture
def pocket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An assets folder with a random pocket-sd and a random judge, and a suite small enough to wait for."""
    assets = tmp_path / "assets"
    toy_folder(assets / "pocket-sd")
    (assets / "pocket-sd" / "studio.json").write_text(json.dumps({"steps": 2, "guidance": 4.0}))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        CanvasProbe("judge").save(assets / "pocket-probes" / "judge.safetensors")
    suite = write_suite(tmp_path / "tiny.toml", styles=THEMES)
    monkeypatch.setenv("STUDIO_ASSETS", str(assets))
    monkeypatch.setenv("STUDIO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("app.verbs.judge.RUN_SUITE", str(suite))
    monkeypatch.chdir(tmp_path)
    return suite


def test_a_model_is_judged_and_a_run_gets_its_report_and_grid(studio: Studio, pocket: Path) -> None:
    plain = studio("judge", "Pocket_SD", "--suite", pocket, "--json")
    assert plain.code == 0, plain.err
    assert set(plain.document["scores"]) == {"style_accuracy", "object_accuracy"}
    assert plain.document["scores"]["style_accuracy"]["n"] == 6
    words = ("--concept", "van gogh", "--keep", "Crayon", "--method", "uce")
    erased = studio("erase", "pocket-sd", *words, "--out", "run", "--json")
    assert erased.code == 0, erased.err
    assert erased.document["job"]["concepts"][0] == {
        "name": "Van Gogh", "kind": "style", "prompts": [], "anchor": None,
    }  # fmt: skip
    outcome = studio("judge", "run", "--suite", pocket, "--json")
    assert outcome.code == 0, outcome.err
    document = outcome.document
    assert json.loads(Path("run/report.json").read_text()) == document
    assert Path("run/grid.png").stat().st_size > 1000
    scores = document["scores"]
    assert {"UA", "IRA", "CRA", "FID", "KID", "CLIP", "LPIPS"} <= set(scores)
    assert scores["seconds"]["value"] == erased.document["seconds"]
    assert scores["peak_memory_bytes"]["value"] == erased.document["peak_memory_bytes"]
    assert scores["storage_bytes"]["value"] == erased.document["edit"]["storage_bytes"]
    assert document["job"]["knobs"]["push"] == 1.0
    assert document["job"]["suite"] == "mine"
    listed = {entry["name"] for entry in studio("metrics", "--json").document["metrics"]}
    assert listed >= set(scores) | set(plain.document["scores"])
    [run] = studio("runs", "--json").document["runs"]
    assert run["scores"]["UA"] == scores["UA"]["value"]


@pytest.mark.slow
def test_the_demo_ends_with_a_table_pictures_and_a_pipeline_and_can_be_repeated(studio: Studio, pocket: Path) -> None:
    outcome = studio("demo", "--out", "shown")
    assert outcome.code == 0, outcome.err
    for part in ("UA", "IRA", "CRA", "grid.png", "Try next", "studio sample shown/run"):
        assert part in outcome.out
    assert [line[:3] for line in outcome.err.splitlines() if line[:3] in ("1/3", "2/3", "3/3")] == ["1/3", "2/3", "3/3"]
    for path in ("run/edit.safetensors", "run/grid.png", "run/report.json", "pipeline/model_index.json"):
        assert (Path("shown") / path).is_file(), path
    assert "UA" in Path("shown/pipeline/README.md").read_text()
    again = studio("demo", "--out", "shown", "--json")
    assert again.code == 0, again.err
    assert "already holds" in again.err
    assert again.document["scores"]["UA"]["n"] > 0
    assert again.document["max_difference"] < 1e-4
