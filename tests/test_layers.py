"""The floors of the house, and the rules that hold them: who may import whom, and how large a thing may become.

app → benchmarks → generators → erase → torch: each floor imports only what is below it. Inside benchmarks the rooms
have an order too, nothing imports a study, and there is no import circle anywhere, imports inside functions counted.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
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


# Each room of benchmarks imports from itself and from rooms before it.
ROOMS = (
    "metrics",
    "report",
    "suites",
    "probes",
    "pictures",
    "judging",
    "attacks",
    "sweeps",
    "pages",
    "speed",
    "studies",
)
PLUG_INS = {
    "erase/methods", "benchmarks/attacks/diffusion", "benchmarks/studies", "benchmarks/metrics", "benchmarks/probes",
    "generators/export/formats", "app/verbs",
}  # fmt: skip
MOST_MODULES = 12


def modules() -> dict[str, Path]:
    """Every module of the product by its dotted name."""
    found = {}
    for layer in LAYERS:
        for file in sorted((ROOT / layer).rglob("*.py")):
            parts = file.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = file
    return found


def arrows(source: str, known: set[str]) -> set[str]:
    """The modules among `known` that a module imports, inside functions too; imports for type checkers do not count."""
    tree, found = ast.parse(source), set()
    checked = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in checked:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names} & known
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = {f"{node.module}.{alias.name}" for alias in node.names} & known
            found |= names or {node.module} & known
    return found


def graph() -> dict[str, set[str]]:
    """Who imports whom, by module."""
    every = modules()
    return {name: arrows(file.read_text(encoding="utf-8"), set(every)) - {name} for name, file in every.items()}


def circle(links: dict[str, set[str]]) -> list[str]:
    """The modules of one import circle; none is []."""
    try:
        list(TopologicalSorter(links).static_order())
    except CycleError as error:
        return list(error.args[1])
    return []


def room(module: str) -> str:
    """The room of a module of benchmarks, "" outside of it."""
    parts = module.split(".")
    return parts[1] if parts[0] == "benchmarks" and len(parts) > 1 and parts[1] in ROOMS else ""


def against_the_order(links: dict[str, set[str]]) -> set[tuple[str, str]]:
    """The arrows of benchmarks that lead to a room further on."""
    return {
        (name, other)
        for name, others in links.items()
        for other in others
        if room(name) and room(other) and ROOMS.index(room(name)) < ROOMS.index(room(other))
    }


def studied(links: dict[str, set[str]]) -> set[tuple[str, str]]:
    """The arrows that lead to a study or a speed comparison from elsewhere than its own folder and the dispatcher."""
    apart = ("studies", "speed")
    return {
        (name, other)
        for name, others in links.items()
        for other in others
        if room(other) in apart and room(name) not in apart and name != "benchmarks.__main__"
    }


def crowded(files: list[Path]) -> dict[str, int]:
    """The folders that hold too many modules and are no folder of plug-ins."""
    counts: dict[str, int] = {}
    for file in files:
        if file.name != "__init__.py":
            counts[file.parent.as_posix()] = counts.get(file.parent.as_posix(), 0) + 1
    return {name: count for name, count in counts.items() if count > MOST_MODULES and name not in PLUG_INS}


def test_there_is_no_import_circle() -> None:
    assert circle(graph()) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})


def test_late_imports_count_and_imports_for_types_do_not() -> None:
    late = "def f():\n    from a.b import c\n    import d"
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from a.b import c"
    assert arrows(late, {"a.b", "a.b.c", "d"}) == {"a.b.c", "d"}
    assert arrows(typed, {"a.b"}) == set()


def test_the_rooms_of_benchmarks_import_in_one_direction() -> None:
    assert against_the_order(graph()) == set()
    assert against_the_order({"benchmarks.metrics.cost": {"benchmarks.judging.judge"}})


def test_nothing_imports_a_study() -> None:
    assert studied(graph()) == set()
    assert studied({"app.verbs.judge": {"benchmarks.studies.common"}})


def test_no_folder_is_crowded() -> None:
    assert crowded([file.relative_to(ROOT) for file in modules().values()]) == {}
    assert crowded([Path(f"app/web/m{number}.py") for number in range(MOST_MODULES + 1)]) == {"app/web": 13}
