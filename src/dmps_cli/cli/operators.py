"""Which operator an input asks for: the command line, its sidecar, the task's defaults, in this order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli.errors import InputError, UsageError
from dmps_cli.measurements import Sidecar, decode_mask
from dmps_cli.metrics import both_scales
from dmps_cli.tasks import TASKS, OperatorOptions, Shape3, build, flag, resolve, source_shape

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dmps_cli.operators.base import LinearOperator


@dataclass(frozen=True, kw_only=True)
class OperatorPlan:
    """A task with complete parameters and noise.

    sidecar: that of the input; image_shape: (C, H, W) of x if the sidecar fixes it; mask_png: the sidecar's mask in
    base64, where no file is named instead.
    """

    task: str
    params: Mapping[str, Any]
    sigma_y: float
    sidecar: Sidecar | None = None
    image_shape: Shape3 | None = None
    mask_png: str | None = None

    @property
    def key(self) -> tuple[str, str, str | None]:
        """Equal for plans that build the same operator for the same shape."""
        return self.task, repr(self.params), self.mask_png

    @cached_property
    def mask(self) -> Tensor | None:
        """The mask that the parameters name: (H, W) of bool, True = kept; read once. Raises InputError."""
        if self.params.get("mask") is None:
            return None
        if self.mask_png is not None:
            return decode_mask(self.mask_png)
        from dmps_cli.images import load_mask

        return load_mask(Path(self.params["mask"]))

    def build(self, in_shape: Shape3, device: torch.device) -> LinearOperator:
        """The operator in float32 for images of that shape."""
        import torch

        return build(self.task, self.params, in_shape, dtype=torch.float32, device=device, mask=self.mask)

    def describe(self) -> str:
        """For notes: the task, its parameters, sigma_y on both scales."""
        params = ", ".join(f"{name} {value}" for name, value in self.params.items() if value is not None)
        return f"{self.task}{f' ({params})' if params else ''}, sigma_y {both_scales(self.sigma_y)}"


def plan_operator(
    path: Path, sidecar: Sidecar | None, task: str | None, options: OperatorOptions, sigma: float | None
) -> tuple[OperatorPlan, list[str]]:
    """(the plan for an input, notes where a flag contradicts the sidecar). Raises UsageError if the task stays open."""
    if sidecar is None:
        if task is None:
            raise UsageError(f"{path} has no sidecar that says how it was degraded; name a --task: {', '.join(TASKS)}")
        if not TASKS[task].is_picture and path.suffix != ".npy":
            raise InputError(f"{path}: a picture cannot hold a '{task}' measurement; name the .npy that degrade wrote")
        sigma_y = TASKS[task].sigma_y if sigma is None else sigma
        return OperatorPlan(task=task, params=resolve(task, options), sigma_y=sigma_y), []
    return _plan_from_sidecar(path, sidecar, task or sidecar.task, options, sigma)


def _plan_from_sidecar(
    path: Path, sidecar: Sidecar, task: str, options: OperatorOptions, sigma: float | None
) -> tuple[OperatorPlan, list[str]]:
    notes = []
    recorded = dict(sidecar.operator) if task == sidecar.task else {}
    if task != sidecar.task:
        notes.append(f"{path}: --task {task} overrides the sidecar's {sidecar.task}")
    given = options.given()
    params = resolve(task, OperatorOptions(**{**_open_patterns(recorded, given), **given}))
    for name in given:
        if name in recorded and params[name] != recorded[name]:
            notes.append(f"{path}: {flag(name)} {params[name]} overrides the sidecar's {recorded[name]}")
    if sigma is not None and sigma != sidecar.sigma_y:
        notes.append(f"{path}: --sigma {sigma:g} overrides the sidecar's {sidecar.sigma_y:g}")
    is_as_recorded = task == sidecar.task and params == dict(sidecar.operator)
    plan = OperatorPlan(
        task=task,
        params=params,
        sigma_y=sidecar.sigma_y if sigma is None else sigma,
        sidecar=sidecar,
        image_shape=sidecar.image_shape if is_as_recorded else None,
        mask_png=None if "mask" in given else sidecar.mask,
    )
    return plan, notes


def _open_patterns(recorded: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The recorded parameters, without the recorded pattern of missing pixels if another kind is given."""
    patterns = {"mask", "box", "fraction", "operator_seed"}
    dropped = patterns if {"mask", "box", "fraction"} & given.keys() else set()
    return {name: value for name, value in recorded.items() if value is not None and name not in dropped}


def planned_shape(plan: OperatorPlan, picture_size: tuple[int, int]) -> Shape3:
    """(C, H, W) of x: the sidecar's, or what the degraded picture of (h, w) implies."""
    return plan.image_shape or source_shape(plan.params, picture_size)
