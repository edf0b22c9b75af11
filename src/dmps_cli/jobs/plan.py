"""Which operator an input asks for: the command line, its sidecar, the task's defaults, in this order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from dmps_cli.checks import flag
from dmps_cli.errors import InputError, UsageError
from dmps_cli.files.measurements import Sidecar
from dmps_cli.listener import Listener
from dmps_cli.tasks.chain import is_chain
from dmps_cli.tasks.geometry import share_measured
from dmps_cli.tasks.options import PATTERNS, OperatorOptions
from dmps_cli.tasks.plan import OperatorPlan, check_mask, short
from dmps_cli.tasks.table import check_told, of_found_picture, resolve, resolve_recorded
from dmps_cli.tasks.table import task as task_row
from dmps_cli.units import both_scales

GivenSigma = float | Literal["auto"] | Path | None
"""What --sigma says: a standard deviation, a file of them, that it is to be estimated, or nothing."""


class NoTaskError(UsageError):
    """Nothing says how a picture was degraded."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: nothing says how it was degraded; name a --task")
        self.path = path


def plan_operator(
    path: Path,
    sidecar: Sidecar | None,
    task: str | None,
    options: OperatorOptions,
    sigma: GivenSigma,
    listener: Listener,
) -> OperatorPlan:
    """Returns what an input is to be restored as; where the command line contradicts the sidecar, that is said.

    Raises UsageError if it stays open.
    """
    if task is not None and task_row(task).reads_file:
        if sigma not in (None, "auto"):
            raise UsageError(f"task '{task}' has the noise of the file's own rounding; --sigma does not apply")
        return OperatorPlan(task=task, params=resolve(task, options), **_noise("auto"))
    if sidecar is not None:
        return _plan_from_sidecar(path, sidecar, task or sidecar.task, options, sigma, listener)
    if task is None:
        raise NoTaskError(path)
    if not task_row(task).is_picture and path.suffix.lower() != ".npy":
        raise InputError(f"{path}: a picture cannot hold a '{task}' measurement; name the .npy that degrade wrote")
    check_told(task, options)
    params = resolve(task, of_found_picture(task, options))
    check_mask(params)
    noise, shape = _noise("auto" if sigma is None else sigma), params.get("image_shape")
    return OperatorPlan(
        task=task, params=params, own=options.own, image_shape=shape and tuple(shape), **noise
    ).of_picture(path)


def _noise(sigma: float | Literal["auto"] | Path) -> dict[str, Any]:
    """Returns the fields of a plan that say what its noise is."""
    if isinstance(sigma, Path):
        return {"sigma_y": 0.0, "each_sigma": sigma}
    return {"sigma_y": 0.0, "is_estimated": True} if sigma == "auto" else {"sigma_y": sigma}


def _plan_from_sidecar(
    path: Path, sidecar: Sidecar, task: str, options: OperatorOptions, sigma: GivenSigma, listener: Listener
) -> OperatorPlan:
    measured = recorded_plan(path, sidecar)
    if task_row(task).is_own and options.own is None:
        raise UsageError(
            f"{path} was measured by {short(measured.params[task])}, which a sidecar may name and not choose; give "
            f"{flag(task)}"
        )
    recorded, given = measured.params if task == measured.task else {}, options.given()
    if task != measured.task:
        listener.note(f"{path}: --task {task} overrides the sidecar's {measured.task}")
        check_told(task, options)
    params = _params(task, measured, options)
    if "mask" in given:
        check_mask(params)
    elif "invert_mask" in given:
        raise UsageError("--invert-mask belongs to a --mask; the sidecar holds the mask as it was used")
    recorded_noise = {"sigma_y": measured.sigma_y, "each_sigma": measured.each_sigma}
    noise = recorded_noise if sigma is None else {"each_sigma": None} | _noise(sigma)
    if sigma is not None and (sigma != measured.sigma_y or measured.each_sigma is not None):
        told = both_scales(sigma) if isinstance(sigma, float) else sigma
        listener.note(f"{path}: --sigma {told} overrides the sidecar's {both_scales(measured.sigma_y)}")
    if task_row(task).is_own:
        return _with_own(
            path, replace(measured, task=task, params=params, own=options.own, **noise), measured, listener
        )
    mask_png = None if "mask" in given else measured.mask_png
    plan = OperatorPlan(task=task, params=params, mask_png=mask_png, **noise).of_picture(path)
    if task == measured.task and _is_same(plan, measured):
        return replace(measured, **noise)
    for name in given:
        if name in recorded and (params[name] != recorded[name] or name == "mask"):
            listener.note(f"{path}: {flag(name)} {short(params[name])} overrides the sidecar's {_told(recorded, name)}")
    return plan


def _with_own(path: Path, plan: OperatorPlan, measured: OperatorPlan, listener: Listener) -> OperatorPlan:
    """Returns the plan of an operator of one's own; said where it is not that of the sidecar."""
    shape = plan.params["image_shape"]
    now, then = plan.params[plan.task], measured.params.get(plan.task)
    if then is not None and now["sha256"] != then["sha256"]:
        listener.note(f"{path}: it was measured by another {then['name']} than {now['name']} is now")
    return plan if shape is None else replace(plan, image_shape=tuple(shape))


def _params(task: str, measured: OperatorPlan, options: OperatorOptions) -> dict[str, Any]:
    """Returns the recorded parameters under the options given; of a task that is not the recorded one, its own."""
    given = options.given()
    if task != measured.task:
        return resolve(task, options)
    if not given:
        return dict(measured.params)
    if is_chain(task):  # a file that a sidecar's text names is not opened
        raise UsageError(f"{flag(next(iter(given)))} beside '{task}' of a sidecar: name the whole --task")
    return resolve(task, OperatorOptions(**{**_open_patterns(measured.params, given), **given}))


def _told(recorded: Mapping[str, Any], name: str) -> str:
    """Returns a recorded parameter for a note; the pattern of missing pixels that stands for another kind of it."""
    if recorded[name] is None and name in PATTERNS:
        return ", ".join(f"{flag(kind)} {short(recorded[kind])}" for kind in PATTERNS if recorded[kind] is not None)
    return short(recorded[name])


def check_claimed(plan: OperatorPlan, numbers: int, path: Path) -> None:
    """Raises InputError for a recorded picture far larger than a measurement of so many numbers can be of."""
    if plan.image_shape is None:
        return
    _, height, width = plan.image_shape
    most = 16 * numbers + 2**22  # a canvas at a valid boundary is larger than what it shows
    if height * width * share_measured(plan.params) > most:
        raise InputError(
            f"the sidecar of {path} claims a picture of {width} x {height} px, {path} has {numbers} numbers"
        )


def recorded_plan(path: Path, sidecar: Sidecar) -> OperatorPlan:
    """Returns the operator exactly as the sidecar has it. Raises InputError if it holds what no operator has."""
    try:
        params = resolve_recorded(sidecar.task, sidecar.operator)
        if params.get("mask") is not None and sidecar.mask is None:
            raise InputError("it names a mask and does not hold it")
    except (UsageError, InputError, TypeError) as exc:
        raise InputError(f"the sidecar of {path} is damaged ({exc}); restore with it moved away") from exc
    return OperatorPlan(
        task=sidecar.task,
        params=params,
        sigma_y=sidecar.sigma_y,
        image_shape=sidecar.image_shape,
        mask_png=sidecar.mask,
        pattern_sha256=sidecar.pattern_sha256,
        each_sigma=sidecar.sigma_values,
    )


def _is_same(plan: OperatorPlan, measured: OperatorPlan) -> bool:
    """Returns whether both are one operator; a mask counts by its pixels, whatever its file is called."""
    if plan.mask_png == measured.mask_png:
        return plan.params == measured.params
    import torch

    if plan.mask is None or measured.mask is None:
        return False
    return torch.equal(plan.mask, measured.mask)


def _open_patterns(recorded: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the recorded parameters, without the recorded pattern of missing pixels if another kind is given."""
    kinds = set(PATTERNS) & given.keys()
    dropped = set(PATTERNS) - kinds if kinds else set()
    if kinds and "fraction" not in kinds:
        dropped.add("operator_seed")
    return {name: value for name, value in recorded.items() if value is not None and name not in dropped}
