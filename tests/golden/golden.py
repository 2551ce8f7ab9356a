"""Compares values with those written down: `check(name, value)`, and `python -m tests.golden --renew` writes them anew.

Where torch and its arithmetic are the ones of the recording (a fingerprint of reference operations says so) every bit
has to agree; elsewhere numbers may differ by a rounding that grew, and what hangs on it (`Brittle`) is not compared.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from torch import Tensor
from torch.nn import functional as F

EXPECTED = Path(__file__).parent / "expected"
RENEW = "GOLDEN"  # environment variable; "renew" writes instead of comparing
WIDTH = 118  # characters a line of a file of expected values may have
LEADING = 4  # values of a tensor that are written out
RELATIVE, ABSOLUTE = 0.02, 5e-6  # what another machine's arithmetic may change


@dataclass(frozen=True)
class Brittle:
    """A value that another rounding may change altogether, such as a token found by a search."""

    value: Any


def check(name: str, value: Any) -> None:
    """Compares a value with the one under this name, or writes it there; all differences are told at once."""
    path = EXPECTED / f"{name}.json"
    found = {"arithmetic": arithmetic(), "value": plain(value)}
    if os.environ.get(RENEW) == "renew":
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_written(found) + "\n", encoding="utf-8")
        return
    assert path.is_file(), f"{path} is missing; `python -m tests.golden --renew` writes it"
    expected = json.loads(path.read_text(encoding="utf-8"))
    exact = expected["arithmetic"] == found["arithmetic"]
    differences = list(_differences(name, expected["value"], json.loads(json.dumps(found["value"])), exact))
    how = "bit by bit" if exact else "with the tolerance of other arithmetic"
    assert not differences, "\n".join([f"{len(differences)} differences from {path.name}, {how}:", *differences[:40]])


@cache
def arithmetic() -> dict[str, str]:
    """Digests of reference operations on this machine, and torch's version: equal ones promise equal bits elsewhere."""

    def normal(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape))).to(dtype)

    square = normal(24, 24, dtype=torch.float64)
    operations: dict[str, Callable[[], Tensor]] = {
        "matmul": lambda: normal(32, 96) @ normal(96, 48),
        "conv": lambda: F.conv2d(normal(2, 8, 16, 16), normal(12, 8, 3, 3), padding=1),
        "exp": lambda: normal(64, 64).exp(),
        "svd": lambda: torch.linalg.svd(square).S,
        "qr": lambda: torch.linalg.qr(square).Q,
        "solve": lambda: torch.linalg.solve(square, square[:, :3] * 2 + 1),
        "layer norm": lambda: F.layer_norm(normal(16, 64), (64,)),
        "attention": lambda: F.scaled_dot_product_attention(*(normal(1, 2, 24, 16) for _ in range(3))),
        "bf16": lambda: normal(16, 64, dtype=torch.bfloat16) @ normal(64, 8, dtype=torch.bfloat16),
        "sum": lambda: normal(1000, 33).sum(0),
    }
    return {"torch": torch.__version__} | {name: digest(make()) for name, make in operations.items()}


def digest(value: Tensor | bytes | str) -> str:
    """The first 16 hex digits of the sha256 of a tensor's bits, of bytes or of a text."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(value.encode() if isinstance(value, str) else value).hexdigest()[:16]


def plain(value: Any) -> Any:
    """A value as JSON: tensors as their summary, floats with every digit, frozen values as their fields."""
    if isinstance(value, Brittle):
        return {"brittle": plain(value.value)}
    if isinstance(value, Tensor):
        return _summary(value)
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(plain(part) for part in value)
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, (Enum, Path)):
        return str(value)
    return value


def _summary(tensor: Tensor) -> dict[str, Any]:
    wide = tensor.detach().cpu().double().flatten()
    head = [_finite(float(f"{number:.6g}")) for number in wide[:LEADING].tolist()]
    kind = f"{str(tensor.dtype).removeprefix('torch.')} {'x'.join(map(str, tensor.shape)) or 'scalar'}"
    size = _finite(float(f"{float(wide.norm()):.9g}"))
    return {"tensor": kind, "norm": size, "head": head, "bits": digest(tensor)}


def _finite(number: float) -> Any:
    return number if math.isfinite(number) else {"float": str(number)}


def _differences(at: str, expected: Any, found: Any, exact: bool) -> Iterator[str]:
    if isinstance(expected, dict) and isinstance(found, dict):
        if expected.keys() == found.keys() and not exact and "brittle" in expected:
            return
        if expected.keys() == found.keys() and not exact and "tensor" in expected:
            yield from _unlike(at, expected, found)
            return
        for key in dict.fromkeys([*expected, *found]):
            if key not in found:
                yield f"{at}/{key}: gone, it was {_short(expected[key])}"
            elif key not in expected:
                yield f"{at}/{key}: new, {_short(found[key])}"
            else:
                yield from _differences(f"{at}/{key}", expected[key], found[key], exact)
    elif isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            yield f"{at}: {len(found)} entries, expected {len(expected)}: {_short(found)}, expected {_short(expected)}"
            return
        for place, (one, other) in enumerate(zip(expected, found, strict=True)):
            yield from _differences(f"{at}/{place}", one, other, exact)
    elif type(expected) is type(found) is float and not exact:
        if not math.isclose(expected, found, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
            yield f"{at}: {found}, expected about {expected}"
    elif type(expected) is not type(found) or expected != found:
        yield f"{at}: {_short(found)}, expected {_short(expected)}"


def _unlike(at: str, expected: dict[str, Any], found: dict[str, Any]) -> Iterator[str]:
    """Tensors on another machine: kind and norm, and the leading values up to a share of the usual size of a value."""
    if expected["tensor"] != found["tensor"]:
        yield f"{at}: {found['tensor']}, expected {expected['tensor']}"
        return
    yield from _differences(f"{at}/norm", expected["norm"], found["norm"], False)
    count = math.prod(int(side) for side in expected["tensor"].split()[1].split("x") if side.isdigit())
    usual = 0.0 if isinstance(expected["norm"], dict) else expected["norm"] / math.sqrt(max(1, count))
    for one, other in zip(expected["head"], found["head"], strict=True):
        numbers = isinstance(one, (int, float)) and isinstance(other, (int, float))
        if (numbers and abs(one - other) > ABSOLUTE + 0.1 * usual) or (not numbers and one != other):
            yield f"{at}: leading values {found['head']}, expected about {expected['head']}"
            return


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= WIDTH else text[:WIDTH] + " …"


def _written(value: Any, indent: str = "") -> str:
    """JSON in which whatever fits stands on one line, so that a difference is easy to read."""
    short = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(short) <= WIDTH or not isinstance(value, (dict, list)) or not value:
        return short
    deeper = indent + " "
    if isinstance(value, dict):
        parts = [f"{deeper}{json.dumps(key, ensure_ascii=False)}: {_written(value[key], deeper)}" for key in value]
        return "{\n" + ",\n".join(parts) + f"\n{indent}}}"
    return "[\n" + ",\n".join(deeper + _written(part, deeper) for part in value) + f"\n{indent}]"
