"""Several processes at one judging, one for each GPU, started by `accelerate launch`: each draws every k-th batch.

Batches are cut before they are dealt out, so that nobody's pictures depend on how many there are.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Team:
    """This process's number among `size`."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether it is the one that writes and speaks."""
        return self.rank == 0

    def mine(self, number: int) -> bool:
        """Whether a batch falls to this process."""
        return number % self.size == self.rank

    def gathered(self, own: Sequence[tuple[int, T]]) -> list[T]:
        """Everybody's results in the order of their batches, in every process."""
        everybody = list(own)
        if self.size > 1:
            from accelerate.utils import gather_object

            everybody = gather_object(everybody)
        return [result for _, result in sorted(everybody, key=lambda numbered: numbered[0])]


def team() -> Team:
    """The team a launcher has put this process into; alone without one."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return Team()
    from accelerate import PartialState

    state = PartialState(cpu=not torch.cuda.is_available())
    return Team(state.process_index, state.num_processes)
