"""Which operator an input asks for: the command line, its sidecar, the task's defaults, in this order."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli import kernels
from dmps_cli.cli.guide import NoTaskError
from dmps_cli.errors import InputError, UsageError, memory_errors
from dmps_cli.measurements import Sidecar, decode_mask, pattern_hash
from dmps_cli.metrics import both_scales
from dmps_cli.tasks import (
    PATTERNS,
    TASKS,
    OperatorOptions,
    Shape3,
    build,
    check_told,
    flag,
    of_found_picture,
    resolve,
    source_shape,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dmps_cli.operators.base import LinearOperator


@dataclass(frozen=True, kw_only=True)
class OperatorPlan:
    """A task with complete parameters and noise.

    image_shape: (C, H, W) of x where the sidecar fixes it; mask_png: the sidecar's mask in base64, where no file is
    named instead; pattern_sha256: what the operator's pattern must hash to.
    """

    task: str
    params: Mapping[str, Any]
    sigma_y: float
    image_shape: Shape3 | None = None
    mask_png: str | None = None
    pattern_sha256: str | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for plans that build the same operator for the same shape."""
        return self.task, repr(self.params), self.mask_png, self.pattern_sha256

    @cached_property
    def mask(self) -> Tensor | None:
        """The mask that the parameters name: (H, W) of bool, True = kept; read once. Raises InputError."""
        if self.params.get("mask") is None:
            return None
        if self.mask_png is not None:
            return decode_mask(self.mask_png, self.image_shape and self.image_shape[1:])
        from dmps_cli.images import load_mask

        return load_mask(Path(self.params["mask"]))

    def build(self, in_shape: Shape3, device: torch.device) -> LinearOperator:
        """The operator in float32 for images of that shape. Raises InputError where it is not the one recorded."""
        import torch

        with memory_errors():
            op = build(self.task, self.params, in_shape, dtype=torch.float32, device=device, mask=self.mask)
        if self.pattern_sha256 not in (None, pattern_hash(op.pattern)):
            raise InputError(
                f"the parameters of this '{self.task}' measurement do not give the pixels that it was made of: its "
                "sidecar was edited, or another NumPy draws another pattern from its seed"
            )
        return op

    def describe(self) -> str:
        """For notes: the task, its parameters but those that change nothing, sigma_y on both scales."""
        params = ", ".join(f"{name} {_short(value)}" for name, value in self.params.items() if value not in (None, 0.0))
        return f"{self.task}{f' ({params})' if params else ''}, sigma_y {both_scales(self.sigma_y)}"


def _short(value: object) -> str:
    """A parameter's value for a note: 1/3 as 0.3333."""
    if isinstance(value, list | tuple):
        return ",".join(map(_short, value))
    if isinstance(value, Mapping):
        return kernels.described(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, kw_only=True)
class InputPlan:
    """What an input is to be restored as; what its sidecar says it was measured as, where that is another operator."""

    plan: OperatorPlan
    sidecar: Sidecar | None = None
    measured: OperatorPlan | None = None
    notes: tuple[str, ...] = ()


def plan_operator(
    path: Path, sidecar: Sidecar | None, task: str | None, options: OperatorOptions, sigma: float | None
) -> InputPlan:
    """The plan for an input, with notes where a flag contradicts the sidecar. Raises UsageError if it stays open."""
    if sidecar is not None:
        return _plan_from_sidecar(path, sidecar, task or sidecar.task, options, sigma)
    if task is None:
        raise NoTaskError(path)
    if not TASKS[task].is_picture and path.suffix.lower() != ".npy":
        raise InputError(f"{path}: a picture cannot hold a '{task}' measurement; name the .npy that degrade wrote")
    check_told(task, options)
    params = resolve(task, of_found_picture(task, options))
    check_mask(params)
    sigma_y = TASKS[task].sigma_y if sigma is None else sigma
    guess = (f"{path}: its noise is taken to be {both_scales(sigma_y)}; give --sigma if it is not",)
    plan = OperatorPlan(task=task, params=params, sigma_y=sigma_y)
    return InputPlan(plan=plan, notes=guess if sigma is None else ())


def _plan_from_sidecar(
    path: Path, sidecar: Sidecar, task: str, options: OperatorOptions, sigma: float | None
) -> InputPlan:
    measured = recorded_plan(path, sidecar)
    notes, given = [], options.given()
    recorded = measured.params if task == measured.task else {}
    if task != measured.task:
        notes.append(f"{path}: --task {task} overrides the sidecar's {measured.task}")
        check_told(task, options)
    params = resolve(task, OperatorOptions(**{**_open_patterns(recorded, given), **given}))
    if "mask" in given:
        check_mask(params)
    plan = OperatorPlan(
        task=task,
        params=params,
        sigma_y=measured.sigma_y if sigma is None else sigma,
        mask_png=None if "mask" in given else measured.mask_png,
    )
    if sigma is not None and sigma != measured.sigma_y:
        notes.append(f"{path}: --sigma {both_scales(sigma)} overrides the sidecar's {both_scales(measured.sigma_y)}")
    if task == measured.task and _is_same(plan, measured):
        plan = replace(measured, sigma_y=plan.sigma_y)
        return InputPlan(plan=plan, sidecar=sidecar, notes=tuple(notes))
    notes += [
        f"{path}: {flag(name)} {_short(params[name])} overrides the sidecar's {_short(recorded[name])}"
        for name in given
        if name in recorded and (params[name] != recorded[name] or name == "mask")
    ]
    return InputPlan(plan=plan, sidecar=sidecar, measured=measured, notes=tuple(notes))


def check_mask(params: Mapping[str, Any]) -> None:
    """Raises InputError if the mask that the parameters name does not exist."""
    if params.get("mask") is not None and not os.path.isfile(params["mask"]):  # noqa: PTH113 - False for any odd name
        raise InputError(f"the mask {params['mask']} does not exist")


def recorded_plan(path: Path, sidecar: Sidecar) -> OperatorPlan:
    """The operator exactly as the sidecar has it. Raises InputError if it holds what no operator has."""
    recorded = {name: value for name, value in sidecar.operator.items() if value is not None}
    try:
        params = resolve(sidecar.task, OperatorOptions(**recorded))
    except (UsageError, InputError, TypeError) as exc:
        raise InputError(f"the sidecar of {path} is damaged ({exc}); restore with it moved away") from exc
    return OperatorPlan(
        task=sidecar.task,
        params=params,
        sigma_y=sidecar.sigma_y,
        image_shape=sidecar.image_shape,
        mask_png=sidecar.mask,
        pattern_sha256=sidecar.pattern_sha256,
    )


def _is_same(plan: OperatorPlan, measured: OperatorPlan) -> bool:
    """Whether both are one operator; a mask counts by its pixels, whatever its file is called."""
    if plan.mask_png == measured.mask_png:
        return plan.params == measured.params
    import torch

    if plan.mask is None or measured.mask is None:
        return False
    return torch.equal(plan.mask, measured.mask)


def _open_patterns(recorded: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded parameters, without the recorded pattern of missing pixels if another kind is given."""
    kinds = set(PATTERNS) & given.keys()
    dropped = set(PATTERNS) - kinds if kinds else set()
    if kinds and "fraction" not in kinds:
        dropped.add("operator_seed")
    return {name: value for name, value in recorded.items() if value is not None and name not in dropped}


def planned_shape(plan: OperatorPlan, picture_size: tuple[int, int], channels: int) -> Shape3:
    """(C, H, W) of x: the sidecar's, or what the degraded picture of (h, w) implies.

    channels: of the prior; one of grey pictures takes the grey value of a measurement in colour. Raises InputError for
    a sidecar of another number of channels.
    """
    if plan.image_shape is None:
        return source_shape(plan.task, plan.params, picture_size, channels)
    measured, height, width = plan.image_shape
    if measured != channels and (measured, channels) != (3, 1):
        raise InputError(f"the sidecar says {measured} channels, and the prior has {channels}; choose another --model")
    return channels, height, width
