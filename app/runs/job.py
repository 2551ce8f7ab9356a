"""A Job says everything that decides an erasure; equal jobs have equal hashes and end in equal edits."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from erase.concept import Concept, in_short

if TYPE_CHECKING:  # so that listing runs does not wait for torch
    from erase.model import Generator

RECORDED = ("diffusers", "transformers", "safetensors", "numpy", "pydantic")  # beside those every edit records
DTYPES = {"torch.float32": "fp32", "torch.float16": "fp16", "torch.bfloat16": "bf16"}


class Job(BaseModel):
    """One erasure, resolved: every knob is spelled out, so that later defaults cannot change what it means."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    model: str  # a bundled name, a hub id, or the absolute path of a folder or file
    dtype: str = "auto"
    config: str | None = None  # the pipeline folder a single-file checkpoint borrows its shape from
    parents: tuple[str, ...] = ()  # hashes of the edits worn while this one is made, oldest first
    concepts: tuple[Concept, ...]
    keep: tuple[Concept, ...] = ()
    method: str
    knobs: dict[str, Any] = {}
    seed: int = 0

    @property
    def hash(self) -> str:
        """SHA-256 of the job as canonical JSON."""
        return hashlib.sha256(json.dumps(self.model_dump(mode="json"), sort_keys=True).encode()).hexdigest()

    @property
    def title(self) -> str:
        """The job in a few words, for tables and sentences."""
        return f"{in_short([concept.name for concept in self.concepts])} by {self.method}"

    def differences(self, other: Job) -> list[str]:
        """One phrase per thing that differs, knobs one by one: `steps is 100 there and 200 here`."""
        there, here = _flat(self), _flat(other)
        return [f"{name} is {there.get(name)} there and {here.get(name)} here"
                for name in sorted({*there, *here}) if there.get(name) != here.get(name)]  # fmt: skip


def circumstances(model: Generator) -> dict[str, Any]:
    """Where and how a job runs: what may change the last bits of a result although the job is the same."""
    import torch

    from erase.provenance import versions

    device = str(model.device)
    return {
        "versions": versions() | {name: metadata.version(name) for name in RECORDED},
        "device": device,
        "dtype": DTYPES[str(model.dtype)],
        "gpu": torch.cuda.get_device_name() if device.startswith("cuda") else None,
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        **_commit(),
    }


def _commit() -> dict[str, Any]:
    """The checkout's commit and whether files differ from it; nothing for an installed copy."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return {"commit": None, "dirty": None}
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        status = subprocess.run(["git", "status", "--porcelain"], cwd=root, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git here, or no commit yet
        return {"commit": None, "dirty": None}
    return {"commit": head.stdout.strip(), "dirty": bool(status.stdout.strip())}


def _flat(job: Job) -> dict[str, Any]:
    values = job.model_dump(mode="json")
    knobs = values.pop("knobs")
    spoken = {key: ", ".join(_spoken(concept) for concept in getattr(job, key)) or None for key in ("concepts", "keep")}
    return values | spoken | knobs


def _spoken(concept: Concept) -> str:
    instead = "" if concept.anchor is None else f" -> {concept.anchor!r}"
    return f"{concept.name!r} ({concept.kind}{instead})"
