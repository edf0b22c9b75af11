"""Strict loading of published weights into our networks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from dmps_cli.errors import WeightsError

NAMES_SHOWN = 3


def load_state(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Puts `state` into `module`, every tensor or none, and freezes the module for inference.

    state: parameter and buffer names as published -> tensors; converted to the module's dtypes where they
    differ, else shared. The module may live on the meta device: then nothing is initialised in vain.
    where: what the state was read from, for the message. Raises WeightsError with the names of missing,
    unexpected and wrong-shape tensors.
    """
    check_state(module, state, where)
    own = module.state_dict()
    module.load_state_dict({name: state[name].to(own[name].dtype) for name in own}, assign=True)
    module.eval().requires_grad_(False)


def check_state(module: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    """Raises WeightsError, as `load_state` does, if `state` is not the module's."""
    problems = differences({name: tuple(v.shape) for name, v in module.state_dict().items()}, state)
    if problems:
        raise WeightsError(
            f"{where}: not the weights of this architecture: {'; '.join(problems)}; "
            "check that the model's configuration and the file belong together"
        )


def differences(shapes: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor]) -> list[str]:
    """Returns one phrase per kind of difference between the expected `shapes` and `state`."""
    wrong = [
        f"{name} {tuple(state[name].shape)} instead of {shape}"
        for name, shape in shapes.items()
        if name in state and tuple(state[name].shape) != shape
    ]
    kinds = {
        "missing": [name for name in shapes if name not in state],
        "unexpected": [name for name in state if name not in shapes],
        "of another shape": wrong,
    }
    return [f"{len(names)} {kind} ({_some(names)})" for kind, names in kinds.items() if names]


def _some(names: Iterable[str]) -> str:
    """Returns the first few names, with dots if there are more."""
    first = list(names)
    return ", ".join(first[:NAMES_SHOWN] + ["..."] * (len(first) > NAMES_SHOWN))
