"""What the functions of the library are given: types, and checks that name a mistake with its value."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from itertools import count
from typing import Any

import torch
from torch import Tensor

from dmps_cli.files.options import ReadingOptions, WritingOptions
from dmps_cli.methods.knobs import KNOBS
from dmps_cli.methods.options import SamplingOptions
from dmps_cli.operators.base import LinearOperator
from dmps_cli.priors import DenoiserPrior, Prior
from dmps_cli.tasks import kernels
from dmps_cli.tasks.options import OperatorOptions

PathLike = str | os.PathLike[str]
Denoise = Callable[[Tensor, float], Tensor]
"""D(z, s) = E[x0 | x0 + s eps = z]: a denoiser as a prior is made of it."""

OnStep = Callable[[int, int], object]
"""(network evaluations done, in all): what is told after each."""

Shape = Sequence[int]
OPERATOR_OPTIONS = tuple(field.name for field in fields(OperatorOptions))
KNOB_NAMES = (*KNOBS, "spacing")
READING = tuple(field.name for field in fields(ReadingOptions))
WRITING = tuple(field.name for field in fields(WritingOptions))


def operator_options(options: Mapping[str, Any]) -> OperatorOptions:
    """Returns those of an operator among options, paths and arrays as the command line would give them."""
    found = {name: value for name, value in options.items() if name in OPERATOR_OPTIONS}
    found = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in found.items()}
    if not isinstance(found.get("kernel"), str | None):
        found["kernel"] = kernels.of_array(torch.as_tensor(found["kernel"]).cpu().numpy())
    return OperatorOptions(**found)


def check_mask(keep: Tensor, shape: tuple[int, int, int]) -> None:
    """Raises ValueError for a mask that is none of that picture, or removes nothing or everything."""
    if keep.dtype != torch.bool or tuple(keep.shape) != shape[1:] or keep.all() or not keep.any():
        raise ValueError(
            f"mask is {keep.dtype} of {tuple(keep.shape)}, {int(keep.sum())} of it true; expected torch.bool of "
            f"{shape[1:]}, true where a pixel is kept, and false elsewhere"
        )


def as_prior(prior: Prior | Denoise, channels: int) -> Prior:
    """Returns a prior as it is, or one made of a bare denoiser."""
    if isinstance(prior, Prior):
        return prior
    if not callable(prior):
        raise TypeError(f"prior is a {type(prior).__name__}; expected a Prior, or a denoiser D(z, s)")
    return DenoiserPrior(prior, channels)


def sampling_options(
    method: str | None,
    preset: str | None,
    favour: str | None,
    nfe: int | None,
    sampler: str | None,
    knobs: dict[str, Any],
) -> SamplingOptions:
    """Returns what is chosen of method, levels and knobs. Raises TypeError for a knob that there is not."""
    check_names("restore", knobs, KNOB_NAMES)
    if "cap" in knobs and knobs["cap"] is None:
        knobs = knobs | {"cap": "none"}
    return SamplingOptions(method=method, preset=preset, favour=favour, nfe=nfe, sampler=sampler, **knobs)


def check_names(function: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Raises TypeError for a keyword that there is not, as Python does for a function that has none of that name."""
    for name in given:
        if name not in known:
            raise TypeError(f"{function}() has no option '{name}'; it has {', '.join(known)}")


def check_fits(name: str, value: Tensor, shape: Shape, op: LinearOperator) -> None:
    """Raises ValueError for a batch that an operator cannot take."""
    if tuple(value.shape[1:]) != tuple(shape) or not len(value):
        raise ValueError(f"{name} is {tuple(value.shape)}; expected (B, {', '.join(map(str, shape))})")
    if value.dtype != op.dtype or value.device.type != op.device.type:
        raise ValueError(
            f"{name} is {value.dtype} on {value.device}; the operator computes in {op.dtype} on {op.device}"
        )
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"{name} holds NaN or infinity; expected finite numbers on [-1, 1]")


def counted(on_step: OnStep | None, total: int) -> Callable[[], None]:
    """Returns what is called without arguments at each evaluation, and tells how many there were."""
    if on_step is None:
        return lambda: None
    done = count(1)

    def told() -> None:
        on_step(next(done), total)

    return told
