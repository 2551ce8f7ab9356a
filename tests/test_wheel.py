"""An installed copy is one package: whatever lies beside it or in the current folder, it runs its own code."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# What the `studio` script of an installed copy does, with the site folder it is installed in.
STUDIO = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from concept_erasure_studio import main
raise SystemExit(main())
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [made] = folder.glob("*.whl")
    return made


def studio(site: Path, where: Path, *words: str) -> str:
    """The answer of an installed copy, asked in a folder; -I leaves the checkout's variables and folders out."""
    done = subprocess.run(
        [sys.executable, "-I", "-c", STUDIO, str(site), *words], cwd=where, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_puts_one_package_into_site_packages(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert tops == {"concept_erasure_studio", "concept_erasure_studio.pth"}
    assert not [name for name in names if "studies/results" in name]
    for held in ("app/web/page.css", "benchmarks/suites/pocket-canvas.toml", "assets/pocket-sd/model_index.json"):
        assert f"concept_erasure_studio/{held}" in names


@pytest.mark.slow
def test_the_demo_runs_among_foreign_folders_of_our_names(wheel: Path, tmp_path: Path) -> None:
    site, where = tmp_path / "site", tmp_path / "where"
    zipfile.ZipFile(wheel).extractall(site)
    for place in (site, where):
        for name in ("app", "benchmarks", "erase", "generators"):
            (place / name).mkdir(parents=True)
            (place / name / "__init__.py").write_text("raise ImportError('this is another program')")
        (place / "assets").mkdir()
    for model in json.loads(studio(site, where, "models", "--json"))["models"]:
        assert model["present"] and Path(model["path"]).is_relative_to(site / "concept_erasure_studio")
    studio(site, where, "demo", "--out", "demo")
    assert (where / "demo" / "run" / "edit.safetensors").is_file()
    assert (where / "demo" / "pipeline" / "model_index.json").is_file()
