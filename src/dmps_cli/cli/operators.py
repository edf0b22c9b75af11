"""Which operator an input asks for: the command line, its sidecar, the task's defaults, in this order."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from dmps_cli import kernels
from dmps_cli.cli.guide import NoTaskError
from dmps_cli.errors import InputError, UsageError, memory_errors
from dmps_cli.measurements import Sidecar, decode_mask, pattern_hash
from dmps_cli.metrics import both_scales
from dmps_cli.tasks import (
    ALPHA_MASK,
    PATTERNS,
    TASKS,
    OperatorOptions,
    Shape3,
    build,
    check_told,
    factor,
    flag,
    of_found_picture,
    resolve,
    source_shape,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dmps_cli.operators.base import LinearOperator


Noise = float | Literal["auto"] | None
"""What --sigma says: a standard deviation, that it is to be estimated, or nothing."""


@dataclass(frozen=True, kw_only=True)
class OperatorPlan:
    """A task with complete parameters and noise.

    image_shape: (C, H, W) of x where the sidecar fixes it; mask_png: the sidecar's mask in base64, where no file is
    named instead; mask_of: the picture whose transparent parts are the mask; pattern_sha256: what the operator's
    pattern must hash to; is_estimated: whether the noise is asked of each picture, in place of sigma_y.
    """

    task: str
    params: Mapping[str, Any]
    sigma_y: float
    image_shape: Shape3 | None = None
    mask_png: str | None = None
    mask_of: Path | None = None
    pattern_sha256: str | None = None
    is_estimated: bool = False

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for plans that build the same operator for the same shape."""
        return self.task, repr(self.params), self.mask_png, self.mask_of, self.pattern_sha256

    def of_picture(self, path: Path) -> OperatorPlan:
        """The plan for one picture, whose own transparent parts may be the mask."""
        return replace(self, mask_of=path) if self.params.get("mask") == ALPHA_MASK else self

    @property
    def mask(self) -> Tensor | None:
        """The mask that the parameters name: (H, W) of bool, True = kept; read once. Raises InputError."""
        return self._mask_and_notes[0]

    @property
    def mask_notes(self) -> tuple[str, ...]:
        """How the mask was read, and the share that it removes."""
        mask, notes = self._mask_and_notes
        if mask is None:
            return ()
        name = self.mask_of or self.params["mask"]
        return (*notes, f"{name} removes {1.0 - float(mask.double().mean()):.1%} of the pixels")

    @cached_property
    def _mask_and_notes(self) -> tuple[Tensor | None, tuple[str, ...]]:
        if self.params.get("mask") is None:
            return None, ()
        if self.mask_png is not None:
            return decode_mask(self.mask_png, self.image_shape and self.image_shape[1:]), ()
        from dmps_cli.masks import load_mask, load_opaque

        invert = self.params["invert_mask"]
        if self.mask_of is not None:
            return load_opaque(self.mask_of, invert=invert), ()
        return load_mask(Path(self.params["mask"]), invert=invert)

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
        noise = "estimated" if self.is_estimated else both_scales(self.sigma_y)
        return f"{self.task}{f' ({params})' if params else ''}, sigma_y {noise}"


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
    path: Path, sidecar: Sidecar | None, task: str | None, options: OperatorOptions, sigma: Noise
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
    plan = OperatorPlan(task=task, params=params, **_noise("auto" if sigma is None else sigma))
    return InputPlan(plan=plan.of_picture(path))


def _noise(sigma: float | Literal["auto"]) -> dict[str, Any]:
    """The fields of a plan that say what its noise is."""
    return {"sigma_y": 0.0, "is_estimated": True} if sigma == "auto" else {"sigma_y": sigma}


def _plan_from_sidecar(path: Path, sidecar: Sidecar, task: str, options: OperatorOptions, sigma: Noise) -> InputPlan:
    measured = recorded_plan(path, sidecar)
    notes, given = [], options.given()
    recorded = measured.params if task == measured.task else {}
    if task != measured.task:
        notes.append(f"{path}: --task {task} overrides the sidecar's {measured.task}")
        check_told(task, options)
    params = resolve(task, OperatorOptions(**{**_open_patterns(recorded, given), **given}))
    if "mask" in given:
        check_mask(params)
    elif "invert_mask" in given:
        raise UsageError("--invert-mask belongs to a --mask; the sidecar holds the mask as it was used")
    noise = _noise(measured.sigma_y if sigma is None else sigma)
    plan = OperatorPlan(
        task=task, params=params, mask_png=None if "mask" in given else measured.mask_png, **noise
    ).of_picture(path)
    if sigma is not None and sigma != measured.sigma_y:
        told = sigma if sigma == "auto" else both_scales(sigma)
        notes.append(f"{path}: --sigma {told} overrides the sidecar's {both_scales(measured.sigma_y)}")
    if task == measured.task and _is_same(plan, measured):
        plan = replace(measured, **noise)
        return InputPlan(plan=plan, sidecar=sidecar, notes=tuple(notes))
    notes += [
        f"{path}: {flag(name)} {_short(params[name])} overrides the sidecar's {_short(recorded[name])}"
        for name in given
        if name in recorded and (params[name] != recorded[name] or name == "mask")
    ]
    return InputPlan(plan=plan, sidecar=sidecar, measured=measured, notes=tuple(notes))


def check_mask(params: Mapping[str, Any]) -> None:
    """Raises InputError if the mask that the parameters name does not exist."""
    if params.get("mask") not in (None, ALPHA_MASK) and not os.path.isfile(params["mask"]):  # noqa: PTH113 - False for any odd name
        raise InputError(f"the mask {params['mask']} does not exist, or is no regular file")


def check_claimed(plan: OperatorPlan, numbers: int, path: Path) -> None:
    """Raises InputError for a recorded picture far larger than a measurement of so many numbers can be of."""
    if plan.image_shape is None:
        return
    _, height, width = plan.image_shape
    share = (1.0 - (plan.params.get("fraction") or 0.0)) / plan.params.get("ratio", 1) / factor(plan.params) ** 2
    if height * width * share > 16 * numbers + 2**22:  # a canvas at a valid boundary is larger than what it shows
        raise InputError(
            f"the sidecar of {path} claims a picture of {width} x {height} px, {path} has {numbers} numbers"
        )


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

    channels: of the restoration, without a sidecar; with one it is the sidecar's, but that a prior of grey pictures
    takes the grey value of a measurement in colour. Raises InputError where a sidecar has another number.
    """
    if plan.image_shape is None:
        return source_shape(plan.task, plan.params, picture_size, channels)
    measured, height, width = plan.image_shape
    if measured not in (1, channels, 3):
        raise InputError(f"the sidecar says {measured} channels, and the prior has {channels}; choose another --model")
    return min(measured, channels), height, width
