"""Numbers in configs, checked before anything is built by them: a few bytes can ask for more than a machine has."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from erase.errors import BadInput

# The keys by which networks repeat their layers.
REPEATS = (
    "layers_per_block",
    "transformer_layers_per_block",
    "num_hidden_layers",
    "reverse_transformer_layers_per_block",
)
# Largest values of what is made at once rather than stored in a file.
MOST: dict[str, int] = {"num_train_timesteps": 100_000, "sample_size": 4096}
MAY_BE_INFINITE = ("lambda_min_clipped",)  # as DPM-Solver's scheduler is saved
LARGEST = 10_000_000  # of any other whole number: words, channels, positions
LONGEST, DEEPEST = 10_000, 8


def check(config: Mapping[str, Any], where: str, tensors: int = 1000) -> None:
    """BadInput for numbers that are not finite or too large, and for more layers than a file has `tensors`."""
    for key, value in _numbers(config, where):
        most = MOST.get(key, LARGEST)
        if isinstance(value, int) and not -most <= value <= most:
            raise BadInput(f"The config that belongs to {where} has {key} {_short(value)}; at most {most} is possible.")
        if not isinstance(value, int) and not math.isfinite(value) and key not in MAY_BE_INFINITE:
            raise BadInput(f"The config that belongs to {where} has {key} {value}, which is not a number.")
    layers = math.prod(_largest(config.get(key)) for key in REPEATS)
    if layers > tensors:
        raise BadInput(
            f"The config that belongs to {where} asks for {_short(layers)} layers, more than there can be with "
            f"{tensors} tensors. Get the config that was published with the file."
        )


def _numbers(value: Any, where: str, key: str = "", depth: int = 0) -> Iterator[tuple[str, int | float]]:
    """Every number in a config with the key that it stands under."""
    if depth > DEEPEST or (isinstance(value, (list, tuple, Mapping)) and len(value) > LONGEST):
        raise BadInput(f"The config that belongs to {where} is nested too deeply or too long at {key or 'its top'}.")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _numbers(inner, where, str(name), depth + 1)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _numbers(inner, where, key, depth + 1)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield key, value


def _largest(value: Any) -> int:
    """The largest whole number in what a config says of repeated layers, lists in lists included; at least 1."""
    if isinstance(value, (list, tuple)):
        return max((_largest(inner) for inner in value), default=1)
    return max(value, 1) if isinstance(value, int) else 1


def _short(value: int) -> str:
    return str(value) if abs(value) < 10**12 else f"about 10^{len(str(abs(value))) - 1}"
