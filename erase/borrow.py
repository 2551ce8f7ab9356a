"""Borrowing from a network: gradients, modes and weights come back whatever happens."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

from erase.model import nearest


def _check(names: Collection[str], network: nn.Module) -> dict[str, nn.Parameter]:
    known = dict(network.named_parameters())
    for name in names:
        if name not in known:
            raise nearest(name, known, "parameter")
    return known


@contextmanager
def borrowed(network: nn.Module, *, train: bool | None = None, grad: Collection[str] = ()) -> Iterator[None]:
    """Gradients only for the parameters named in `grad`, every module in training or evaluation mode as asked.

    `requires_grad`, `.grad` and each module's own mode are restored on the way out. Raises BadInput for a wrong name.
    """
    wanted = set(grad)
    parameters = _check(wanted, network)
    before = [(parameter, parameter.requires_grad, parameter.grad) for parameter in parameters.values()]
    modes = [(module, module.training) for module in network.modules()]
    try:
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in wanted)
        if train is not None:
            network.train(train)
        yield
    finally:
        for parameter, required, gradient in before:
            parameter.requires_grad_(required)
            parameter.grad = gradient
        for module, mode in modes:
            module.training = mode


@contextmanager
def substituted(network: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside the block the named parameters are these tensors, graph and all; the stored weights are not touched.

    So one network is the student inside the block and the teacher outside it. Raises BadInput for an unknown name and
    ValueError for a wrong shape.
    """
    known = _check(tensors.keys(), network)
    before: list[tuple[nn.Module, str, nn.Parameter]] = []
    try:
        for name, tensor in tensors.items():
            if tensor.shape != known[name].shape:
                raise ValueError(f"{name} is {tuple(known[name].shape)}, its substitute {tuple(tensor.shape)}")
            owner, _, leaf = name.rpartition(".")
            module = network.get_submodule(owner)
            before.append((module, leaf, known[name]))
            # Module.__setattr__ accepts only Parameters here, and a Parameter cannot carry the graph back to the delta.
            module._parameters[leaf] = tensor  # type: ignore[assignment]
        yield
    finally:
        for module, leaf, parameter in before:
            module._parameters[leaf] = parameter
