"""A task with complete parameters and noise, and the operator that it builds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli.checks import flag
from dmps_cli.errors import InputError, UsageError, memory_errors
from dmps_cli.files.measurements import decode_mask, pattern_hash
from dmps_cli.listener import SILENT, Listener
from dmps_cli.tasks import kernels
from dmps_cli.tasks.geometry import source_shape
from dmps_cli.tasks.options import VALID, OperatorOptions
from dmps_cli.tasks.rows import ALPHA_MASK, Shape3
from dmps_cli.tasks.table import LINKS, build, given_parts, named, resolve
from dmps_cli.tasks.table import task as task_row
from dmps_cli.units import both_scales

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dmps_cli.operators.base import LinearOperator


def make_plan(
    task: str, options: OperatorOptions, sigma: float | Path | None, seed: int, *, own_alpha: bool = False
) -> OperatorPlan:
    """Returns the complete parameters; a random pattern follows the seed unless it has its own.

    own_alpha: whether each picture may bring its mask. Raises UsageError for a wrong option, InputError for a missing
    mask.
    """
    task = named(task, options) or task
    if task_row(task).reads_file:
        raise UsageError(
            f"task '{task}' is of files as they are; restore takes them, and `dmps score` compares results"
        )
    params = resolve(task, options)
    for link, (_, given) in zip(params.get(LINKS, [params]), given_parts(task, options), strict=True):
        if link.get("operator_seed") is not None and given.operator_seed is None:
            link["operator_seed"] = seed
    check_mask(params)
    if params.get("mask") == ALPHA_MASK and not own_alpha:
        raise UsageError(f"--mask {ALPHA_MASK} is each picture's own; name a mask's file here")
    shape = params.get("image_shape")
    return OperatorPlan(
        task=task,
        params=params,
        own=options.own,
        image_shape=shape and tuple(shape),
        each_sigma=sigma if isinstance(sigma, Path) else None,
        sigma_y=sigma if isinstance(sigma, float | int) else task_row(task).sigma_y,
    )


@dataclass(frozen=True, kw_only=True)
class OperatorPlan:
    """A task with complete parameters and noise.

    image_shape: (C, H, W) of x where the sidecar fixes it; mask_png: the sidecar's mask in base64, where no file is
    named instead; mask_of: the picture whose transparent parts are the mask; pattern_sha256: what the operator's
    pattern must hash to; is_estimated: whether the noise is asked of each picture, in place of sigma_y; own:
    the file or the code of an operator of one's own, as the command line, and nothing else, has named it.
    each_sigma: where the noise of each number of y is, in place of sigma_y (`jobs.noise_values`).
    """

    task: str
    params: Mapping[str, Any]
    sigma_y: float
    image_shape: Shape3 | None = None
    mask_png: str | None = None
    mask_of: Path | None = None
    pattern_sha256: str | None = None
    is_estimated: bool = False
    own: str | None = None
    each_sigma: Path | Mapping[str, Any] | None = None

    @property
    def key(self) -> tuple[object, ...]:
        """Equal for plans that build the same operator for the same shape."""
        return self.task, repr(self.params), self.mask_png, self.mask_of, self.pattern_sha256, self.own

    def of_picture(self, path: Path) -> OperatorPlan:
        """Returns the plan for one picture, whose own transparent parts may be the mask."""
        return replace(self, mask_of=path) if self.params.get("mask") == ALPHA_MASK else self

    @property
    def beyond_the_frame(self) -> OperatorPlan | None:
        """The same blur in a scene that goes on beyond the frame; None where it is that, no blur, or its x recorded."""
        if task_row(self.task).kernel is None or self.image_shape is not None or self.params["boundary"] == VALID:
            return None
        return replace(self, params={**self.params, "boundary": VALID})

    @property
    def mask(self) -> Tensor | None:
        """The mask that the parameters name: (H, W) of bool, True = kept; read once. Raises InputError."""
        return self._mask_and_notes[0]

    def mask_notes(self, op: LinearOperator) -> tuple[str, ...]:
        """Returns how the mask was read, and the share of the pixels that op removes; nothing where it removes none."""
        from dmps_cli.operators.pointwise import Mask

        if not isinstance(op, Mask):
            return ()
        mask, notes = self._mask_and_notes
        removed = 1.0 - float(op.keep.double().mean())
        if mask is None:
            kind = "box" if self.params["box"] else "fraction"
            return (f"{flag(kind)} {short(self.params[kind])} removes {removed:.1%} of the pixels",)
        name = f"what is transparent in {self.mask_of}" if self.mask_of else self.params["mask"]
        other = " (with --invert-mask the rest instead)" if removed > 0.5 and self.mask_png is None else ""
        return (*notes, f"{name} removes {removed:.1%} of the pixels{other}")

    @cached_property
    def _mask_and_notes(self) -> tuple[Tensor | None, tuple[str, ...]]:
        if self.params.get("mask") is None:
            return None, ()
        if self.mask_png is not None:
            return decode_mask(self.mask_png, self.image_shape and self.image_shape[1:]), ()
        from dmps_cli.files.masks import load_mask, load_opaque

        invert = self.params["invert_mask"]
        if self.mask_of is not None:
            return load_opaque(self.mask_of, invert=invert), ()
        return load_mask(Path(self.params["mask"]), invert=invert)

    def build(self, in_shape: Shape3, device: torch.device, listener: Listener = SILENT) -> LinearOperator:
        """Returns the operator in float32 for images of that shape; what was found of one's own is told.

        Raises InputError where it is not the one recorded.
        """
        import torch

        with memory_errors():
            op = build(
                self.task, self.params, in_shape, dtype=torch.float32, device=device, mask=self.mask, own=self.own
            )
        if self.pattern_sha256 not in (None, pattern_hash(op.pattern)):
            raise InputError(
                f"the parameters of this '{self.task}' measurement do not give the pixels that it was made of: its "
                "sidecar was edited, or another NumPy draws another pattern from its seed"
            )
        if op.verdict:
            listener.note(op.verdict)
        return op

    def describe(self) -> str:
        """Says for notes the task, its parameters but those that change nothing, sigma_y on both scales."""
        told = {name: value for name, value in self.params.items() if name != LINKS}  # a chain says it all itself
        params = ", ".join(f"{name} {short(value)}" for name, value in told.items() if value not in (None, 0.0))
        noise = "estimated" if self.is_estimated else both_scales(self.sigma_y)
        if self.each_sigma is not None:
            noise = f"of each value, {self.each_sigma if isinstance(self.each_sigma, Path) else 'in the sidecar'}"
        return f"{self.task}{f' ({params})' if params else ''}, sigma_y {noise}"


def short(value: object) -> str:
    """Returns a parameter's value for a note: 1/3 as 0.3333."""
    if isinstance(value, list | tuple):
        return ",".join(map(short, value))
    if isinstance(value, Mapping):
        return value["name"] if "name" in value else kernels.described(value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def check_mask(params: Mapping[str, Any]) -> None:
    """Raises InputError if the mask that the parameters name does not exist."""
    if params.get("mask") not in (None, ALPHA_MASK) and not os.path.isfile(params["mask"]):  # noqa: PTH113 - False for any odd name
        raise InputError(f"the mask {params['mask']} does not exist, or is no regular file")


def planned_shape(plan: OperatorPlan, picture_size: tuple[int, int], channels: int) -> Shape3:
    """Returns (C, H, W) of x: the sidecar's, or what the degraded picture of (h, w) implies.

    channels: of the restoration, without a sidecar; with one it is the sidecar's, but that a prior of grey pictures
    takes the grey value of a measurement in colour. Raises InputError where a sidecar has another number.
    """
    if plan.image_shape is None:
        return source_shape(plan.task, plan.params, picture_size, channels)
    measured, height, width = plan.image_shape
    if measured not in (1, channels, 3):
        raise InputError(f"the sidecar says {measured} channels, and the prior has {channels}; choose another --model")
    return min(measured, channels), height, width
