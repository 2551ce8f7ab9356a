"""Erasing concepts from image generators: vocabulary, maths and methods, on torch, safetensors and pydantic alone."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from erase.concept import Concept as Concept
    from erase.edit import Edit as Edit
    from erase.errors import BadInput as BadInput
    from erase.methods.registry import build as build
    from erase.methods.registry import method_names as method_names
    from erase.model import Shot as Shot
    from erase.request import Request as Request
    from erase.request import run_method as run_method
    from erase.work import Step as Step
    from erase.work import drain as drain

# Resolved on first use, so that a command line that only prints help does not wait for torch.
_HOME = {
    "BadInput": "errors",
    "Concept": "concept",
    "Edit": "edit",
    "Request": "request",
    "Shot": "model",
    "Step": "work",
    "build": "methods.registry",
    "drain": "work",
    "method_names": "methods.registry",
    "run_method": "request",
}
__all__ = ["BadInput", "Concept", "Edit", "Request", "Shot", "Step", "build", "drain", "method_names", "run_method"]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("concept-erasure-studio")
    if name not in _HOME:
        raise AttributeError(f"module 'erase' has no attribute {name!r}")
    return getattr(import_module(f"erase.{_HOME[name]}"), name)
