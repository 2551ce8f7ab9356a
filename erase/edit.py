"""An erasure as a value: named weight deltas to wear, scale, add, subtract, save and load."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from erase.errors import DiskFull, reading
from erase.files import replace
from erase.low_rank import expanded
from erase.model import BadInput, nearest

FORMAT = 1
DEEPEST = 16  # levels of edits that are sums of sums
COMPRESSED = 2  # as 1, and some deltas are products NAME.up · NAME.down


def canonical(name: str) -> str:
    """The stored form of a parameter name: text towers always carry `text_model.`, which some versions flatten."""
    tower, _, rest = name.partition(".")
    flattened = tower.startswith("text") and rest.split(".")[0] in ("embeddings", "encoder", "final_layer_norm")
    return f"{tower}.text_model.{rest}" if flattened else name


def live(name: str, parameters: Mapping[str, nn.Parameter]) -> str | None:
    """The name under which a network holds the parameter of a canonical name, or None."""
    short = name.replace(".text_model.", ".", 1)
    return name if name in parameters else short if short in parameters else None


@dataclass(frozen=True)
class Edit:
    """Additive weight deltas by parameter name, and where they come from (`about`, plain JSON values)."""

    deltas: Mapping[str, Tensor]
    about: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "deltas", {canonical(name): delta.detach() for name, delta in self.deltas.items()})

    @contextmanager
    def applied(self, network: nn.Module, strength: float = 1.0) -> Iterator[None]:
        """Inside the block the network's weights are base + strength·delta; afterwards they are the old bits again.

        Raises BadInput, before anything is changed, for a delta whose name or shape the network does not have.
        """
        parameters = self._fitted(network)
        before: list[tuple[nn.Parameter, Tensor]] = []
        try:
            for parameter, delta in parameters if strength else ():
                with torch.no_grad():
                    before.append((parameter, parameter.detach().clone()))
                    wide = torch.promote_types(parameter.dtype, torch.float32)
                    parameter.copy_(parameter.to(wide) + strength * delta.to(parameter.device, wide))
            yield
        finally:
            with torch.no_grad():
                for parameter, weights in reversed(before):
                    parameter.copy_(weights)

    def worn(self, network: nn.Module, strength: float = 1.0) -> AbstractContextManager[None]:
        """The name of `applied` before version 0.2; it goes with version 0.3."""
        warnings.warn("Edit.worn is called Edit.applied now.", DeprecationWarning, stacklevel=2)
        return self.applied(network, strength)

    def _fitted(self, network: nn.Module) -> list[tuple[nn.Parameter, Tensor]]:
        known = dict(network.named_parameters())
        fitted = []
        for name, delta in self.deltas.items():
            held = live(name, known)
            if held is None:
                raise BadInput(f"This edit was made for another kind of model. {nearest(name, known, 'parameter')}")
            if known[held].shape != delta.shape:
                raise BadInput(
                    f"This edit was made for another model: its {name} is {_by(delta)}, here it is {_by(known[held])}."
                )
            fitted.append((known[held], delta))
        return fitted

    def __add__(self, other: Edit) -> Edit:
        return _sum((self, 1.0), (other, 1.0))

    def __sub__(self, other: Edit) -> Edit:
        return _sum((self, 1.0), (other, -1.0))

    def __mul__(self, strength: float) -> Edit:
        return _sum((self, float(strength)))

    __rmul__ = __mul__

    @cached_property
    def hash(self) -> str:
        """sha256 (hex) over names, dtypes, shapes and values, in sorted order."""
        digest = hashlib.sha256()
        for name, delta in sorted(self.deltas.items()):
            digest.update(f"{name} {delta.dtype} {tuple(delta.shape)}\n".encode())
            digest.update(delta.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    @property
    def storage_bytes(self) -> int:
        """What the deltas weigh on disk."""
        return sum(delta.numel() * delta.element_size() for delta in self.deltas.values())

    @property
    def unfinite(self) -> str | None:
        """The name of the first tensor that holds NaN or infinity; None when there is none."""
        return next((name for name, delta in self.deltas.items() if not bool(torch.isfinite(delta).all())), None)

    def save(self, path: str | Path) -> Path:
        """Writes the edit as safetensors with `about` in its header; the file is there whole or not at all."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        room = shutil.disk_usage(path.parent).free
        if room < self.storage_bytes:
            raise DiskFull(f"No disk space: {path} needs {_size(self.storage_bytes)}, {_size(room)} are free.")
        # One key only: safetensors writes several in an order that changes from process to process.
        header = {"edit": json.dumps({"format": FORMAT, "about": dict(self.about)}, sort_keys=True)}
        tensors = {name: delta.cpu().contiguous() for name, delta in self.deltas.items()}
        try:
            with replace(path, durable=False) as part:
                save_file(tensors, part, metadata=header)
        except DiskFull as error:
            raise DiskFull(f"No disk space left while writing {path}; nothing was kept of it.") from error
        return path

    @staticmethod
    def load(path: str | Path) -> Edit:
        """Reads an edit; raises BadInput for a file that is missing, cut short, or something else."""
        path = Path(path)
        if not path.is_file():
            raise BadInput(f"There is no edit file {path}; `studio erase` writes one as RUN/edit.safetensors.")
        with reading(path, "an edit"):
            return Edit._read(path)

    @staticmethod
    def _read(path: Path) -> Edit:
        try:
            with safe_open(path, framework="pt") as file:
                header = file.metadata() or {}
                if "edit" not in header:
                    raise BadInput(f"{path} holds tensors but is not an edit: its header has no provenance.")
                told = json.loads(header["edit"])
                if told["format"] > COMPRESSED:
                    raise BadInput(f"{path} was written by a newer version (format {told['format']}); please update.")
                tensors = {name: file.get_tensor(name) for name in list(file.keys())}
                check_about(told["about"], path)
                edit = Edit(expanded(tensors) if told["format"] == COMPRESSED else tensors, told["about"])
        except BadInput as error:
            raise error if str(path) in str(error) else BadInput(f"{path} is not an edit. {error}") from error
        except (SafetensorError, json.JSONDecodeError, TypeError, KeyError, RecursionError) as error:
            raise BadInput(f"{path} is damaged, cut short or no edit file ({error}); write it again.") from error
        odd = next((name for name, delta in edit.deltas.items() if not delta.is_floating_point()), None)
        if odd is not None:
            raise BadInput(
                f"{path} is not an edit: {odd} holds {edit.deltas[odd].dtype}, and weights are real numbers."
            )
        if edit.unfinite is not None:
            raise BadInput(
                f"{path} holds NaN or infinity in {edit.unfinite}; such an edit draws nothing. Make it again."
            )
        return edit


def check_about(about: Any, path: Path, depth: int = 0) -> None:
    """BadInput for a provenance that does not have the form every reader of it counts on."""
    parents = about.get("parents", []) if isinstance(about, Mapping) else None
    whole = isinstance(parents, list) and all(
        isinstance(parent, Mapping)
        and isinstance(parent.get("hash"), str)
        and isinstance(parent.get("strength"), (int, float))
        for parent in parents
    )
    named = whole and all(
        isinstance(about.get(key, []), (list, tuple))
        and all(isinstance(each, str) or (isinstance(each, Mapping) and "name" in each) for each in about.get(key, []))
        for key in ("concepts", "keep")
    )
    if not named or depth > DEEPEST:
        raise BadInput(f"{path} is damaged: its provenance is not one of an edit. Make it again.")
    for parent in parents or []:
        check_about(parent.get("about"), path, depth + 1)


def _sum(*terms: tuple[Edit, float]) -> Edit:
    """The weighted sum of edits over the union of their names; `about` lists each original edit and its strength."""
    deltas: dict[str, Tensor] = {}
    parents: dict[str, dict[str, Any]] = {}
    for edit, strength in terms:
        for name, delta in edit.deltas.items():
            if name in deltas and deltas[name].shape != delta.shape:
                raise BadInput(f"These edits are for different models: {name} is {_by(deltas[name])} and {_by(delta)}.")
            scaled = delta * strength
            deltas[name] = deltas[name] + scaled.to(deltas[name].device) if name in deltas else scaled
        for parent in _parents(edit):
            known = parents.setdefault(parent["hash"], {**parent, "strength": 0.0})
            known["strength"] += parent["strength"] * strength
    # An edit that was added and taken away again leaves no trace in the ledger.
    listed = [parent for parent in parents.values() if parent["strength"] != 0.0]
    bases = {parent["about"].get("base") for parent in parents.values()}
    return Edit(deltas, {"method": "sum", "base": bases.pop() if len(bases) == 1 else None, "parents": listed})


def _parents(edit: Edit) -> list[dict[str, Any]]:
    if "parents" in edit.about:
        return list(edit.about["parents"])
    return [{"hash": edit.hash, "strength": 1.0, "about": dict(edit.about)}]


def _by(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a single number"


def _size(count: int) -> str:
    return f"{count / 2**20:.1f} MiB"
