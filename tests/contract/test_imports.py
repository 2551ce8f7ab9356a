"""What importing and listing may pull in, asked of a fresh process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def imported(statement: str) -> set[str]:
    """The top-level packages in memory after a statement."""
    asked = f"import sys; {statement}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    ran = subprocess.run(
        [sys.executable, "-c", asked], cwd=ROOT, capture_output=True, text=True, check=True, timeout=100
    )
    return set(ran.stdout.splitlines()[-1].split())


def test_the_engine_needs_torch_safetensors_and_pydantic_alone() -> None:
    every = ", ".join(
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for file in sorted((ROOT / "erase").rglob("*.py"))
    )
    found = imported(f"import {every}; from erase.methods.registry import methods; methods()")
    assert {"torch", "safetensors", "pydantic", "erase"} <= found
    assert not found & {
        "diffusers",
        "transformers",
        "gradio",
        "generators",
        "benchmarks",
        "app",
        "accelerate",
        "tokenizers",
    }


def test_listing_names_does_not_wait_for_torch() -> None:
    found = imported("import erase; assert 'esd' in erase.method_names(); erase.Step, erase.drain, erase.BadInput")
    assert not found & {"torch", "pydantic", "safetensors"}
    assert "torch" in imported("import erase; erase.Edit")
