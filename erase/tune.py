"""Tuning a slice: fp32 master deltas over frozen weights, one Adam step at a time, with an exact state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from erase.errors import BadInput


def span(rows: Tensor) -> Tensor:
    """An orthonormal basis [code k] of what the rows [n code] span, in float64 on the CPU."""
    _, sizes, basis = torch.linalg.svd(rows.detach().to("cpu", torch.float64), full_matrices=False)
    return basis[sizes > 1e-6 * sizes[0]].T


class Masters:
    """The trained deltas D of some parameters of a network, kept in fp32 whatever the network computes in.

    Adam in bf16 would lose every step smaller than a weight's last bit; the deltas start at zero, so none is lost.
    `held` gives orthonormal inputs [in k] of some layers by weight name: what these layers make of them never changes.
    """

    def __init__(
        self, network: nn.Module, names: Sequence[str], lr: float, held: Mapping[str, Tensor] | None = None
    ) -> None:
        known = dict(network.named_parameters())
        self.frozen = {name: known[name] for name in names}
        self.deltas = {
            name: torch.zeros(weight.shape, dtype=torch.float32, device=weight.device, requires_grad=True)
            for name, weight in self.frozen.items()
        }
        self.held = {name: basis.to(self.deltas[name]) for name, basis in (held or {}).items() if name in self.deltas}
        self.adam = torch.optim.Adam(list(self.deltas.values()), lr=lr)

    def weights(self) -> dict[str, Tensor]:
        """W0 + D in the network's dtype, carrying the graph back to D."""
        return {name: (self.frozen[name].detach().float() + delta).to(self.frozen[name].dtype)
                for name, delta in self.deltas.items()}  # fmt: skip

    def step(self, loss: Tensor) -> float:
        """One Adam step down the loss, whose value is returned; raises FloatingPointError if it is not finite."""
        value = float(loss.detach())
        if value != value or value in (float("inf"), float("-inf")):
            raise FloatingPointError(f"The loss became {value}; a smaller learning rate or fp32 usually helps.")
        self.adam.zero_grad(set_to_none=True)
        loss.backward()
        self.adam.step()
        # After the step, not on the gradient: Adam's rescaling would turn a projected gradient back towards `held`.
        with torch.no_grad():
            for name, basis in self.held.items():
                self.deltas[name].sub_(self.deltas[name] @ basis @ basis.T)
        return value

    def state(self) -> dict[str, Tensor]:
        """Deltas and Adam moments by name: the tensors themselves, good until the next step."""
        flat: dict[str, Tensor] = {}
        for name, delta in self.deltas.items():
            flat[f"delta.{name}"] = delta.detach()
            for key, value in self.adam.state.get(delta, {}).items():
                flat[f"{key}.{name}"] = value
        return flat

    def load(self, flat: Mapping[str, Tensor]) -> None:
        """Goes on from `state()`; raises BadInput if it is the state of other parameters."""
        for name, delta in self.deltas.items():
            if f"delta.{name}" not in flat or flat[f"delta.{name}"].shape != delta.shape:
                raise BadInput(f"The saved state does not fit this job: it has no delta for {name}.")
            with torch.no_grad():
                delta.copy_(flat[f"delta.{name}"])
            for key in ("step", "exp_avg", "exp_avg_sq"):
                saved = flat.get(f"{key}.{name}")
                if saved is not None:  # Adam has no moments before its first step
                    self.adam.state[delta][key] = saved.clone() if key == "step" else saved.to(delta.device, copy=True)
