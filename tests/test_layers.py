"""app → benchmarks → generators → erase → torch: each layer imports only what is below it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = ("app", "benchmarks", "generators", "erase")
# What a layer may not touch beside the layers above it. Gradio belongs to the studio's pages alone.
FOREIGN = {
    "erase": {"diffusers", "transformers", "accelerate", "open_clip", "torchmetrics", "torchvision", "gradio", "PIL"},
    "generators": {"torchmetrics", "gradio"},
    "benchmarks": {"gradio"},
    "app": set(),
}


def imported(source: str) -> Iterator[str]:
    """The top-level names of everything a module imports, inside functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.split(".")[0]


def trespasses(layer: str, source: str) -> set[str]:
    above = set(LAYERS[: LAYERS.index(layer)])
    return set(imported(source)) & (above | FOREIGN[layer])


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_what_is_below_it(layer: str) -> None:
    files = sorted((ROOT / layer).rglob("*.py"))
    assert files
    found = {str(file.relative_to(ROOT)): trespasses(layer, file.read_text(encoding="utf-8")) for file in files}
    assert not {file: names for file, names in found.items() if names}


def test_a_trespass_would_be_seen() -> None:
    assert trespasses("erase", "def f():\n    from diffusers import UNet2DModel") == {"diffusers"}
    assert trespasses("generators", "import benchmarks.judging.judge as j\nimport erase.edit") == {"benchmarks"}
    assert trespasses("app", "from benchmarks.judging.judge import judge") == set()


def test_all_of_erase_runs_without_the_libraries_above_it() -> None:
    names = [file.relative_to(ROOT).with_suffix("") for file in sorted((ROOT / "erase").rglob("*.py"))]
    modules = [".".join(name.parts).removesuffix(".__init__") for name in names]
    script = (
        "import sys, importlib\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(sorted(set({sorted(FOREIGN['erase'])!r}) & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
