"""The table of tasks: names, defaults, options, and how each builds its operator. No torch until one is built.

To add a task: a row of TASKS (and a class in `operators/`). Options that are new get a field of `OperatorOptions`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from dmps_cli.checks import flag
from dmps_cli.errors import InputError, UsageError, unknown_name
from dmps_cli.tasks import kernels
from dmps_cli.tasks.options import CHECKS, PATTERNS, OperatorOptions
from dmps_cli.tasks.purposes import Purpose, meant_by

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dmps_cli.operators.base import LinearOperator
    from dmps_cli.operators.kernels import Kernel

    Build = Callable[["Site"], LinearOperator]


Shape3 = tuple[int, int, int]
Params = Mapping[str, Any]
ALPHA_MASK = "alpha"
"""What `--mask` says where the transparent parts of the picture itself are missing; a file of that name is ./alpha."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where an operator is built: image shape (C, H, W), complete parameters, the mask or the kernel that it has."""

    in_shape: Shape3
    params: Params
    dtype: torch.dtype
    device: torch.device | str
    mask: Tensor | None = None
    kernel: Kernel | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """A row of TASKS. params: its options with their defaults; fixed: those that its name already says.

    told: options of which one must be given for a picture that was not degraded here: a default would be an invention.
    kernel: of a blur, the value of its kernel (`kernels.read`) by its parameters.
    """

    help: str
    sigma_y: float
    params: Params
    build: Build
    fixed: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    kernel: Callable[[Params], Any] | None = None
    is_picture: bool = True  # whether a picture file can hold the measurement
    needs_colour: bool = False  # whether x cannot be grey


def _bicubic(site: Site) -> LinearOperator:
    from dmps_cli.operators.separable import bicubic_decimation

    return bicubic_decimation(
        site.in_shape, site.params["scale"], svd_cutoff=site.params["svd_cutoff"], dtype=site.dtype, device=site.device
    )


def _average(site: Site) -> LinearOperator:
    from dmps_cli.operators.separable import average_pooling

    return average_pooling(site.in_shape, site.params["scale"], dtype=site.dtype, device=site.device)


def _blurred(site: Site) -> LinearOperator:
    from dmps_cli.operators.convolution import convolution

    assert site.kernel is not None
    return convolution(
        site.in_shape,
        site.kernel,
        site.params["boundary"],
        svd_cutoff=site.params.get("svd_cutoff", 0.0),
        dtype=site.dtype,
        device=site.device,
    )


def _blur(help: str, kernel: Callable[[Params], Any], params: Params, told: tuple[str, ...] = ()) -> Task:
    """Returns a row for a blur: the convolution with its kernel."""
    return Task(help=help, sigma_y=0.05, params=params, build=_blurred, told=told, kernel=kernel)


def _identity(site: Site) -> LinearOperator:
    from dmps_cli.operators.pointwise import Identity

    return Identity(site.in_shape, dtype=site.dtype, device=site.device)


def _channel_mean(site: Site) -> LinearOperator:
    from dmps_cli.operators.pointwise import ChannelMean

    return ChannelMean(site.in_shape, site.params["weights"], dtype=site.dtype, device=site.device)


def _mask(site: Site) -> LinearOperator:
    from dmps_cli.operators.pointwise import Mask, outside_box, random_keep

    size, params = site.in_shape[1:], site.params
    if site.mask is not None:
        keep = site.mask
    elif params["box"] is not None:
        keep = outside_box(size, params["box"])
    else:
        keep = random_keep(size, params["fraction"], params["operator_seed"])
        if bool(keep.all()):
            raise InputError(f"--fraction {params['fraction']:g} of {size[1]} x {size[0]} px removes nothing")
    return Mask(site.in_shape, keep, dtype=site.dtype, device=site.device)


def _hadamard(site: Site) -> LinearOperator:
    from dmps_cli.operators.hadamard import hadamard_rows

    return hadamard_rows(
        site.in_shape, site.params["ratio"], seed=site.params["operator_seed"], dtype=site.dtype, device=site.device
    )


def _super_resolution(scale: int, fixed: tuple[str, ...] = ("scale",)) -> Task:
    return Task(
        help=f"{scale}x super-resolution: bicubic anti-aliased decimation"
        if fixed
        else "super-resolution by --scale: bicubic anti-aliased decimation",
        sigma_y=0.05,
        params={"scale": scale, "svd_cutoff": 0.0},
        build=_bicubic,
        fixed=fixed,
    )


TASKS: dict[str, Task] = {
    "sr2": _super_resolution(2),
    "sr4": _super_resolution(4),
    "sr8": _super_resolution(8),
    "sr": _super_resolution(4, fixed=()),
    "sr4-avg": Task(
        help="4x super-resolution: average pooling of 4 x 4 pixels",
        sigma_y=0.05,
        params={"scale": 4},
        build=_average,
        fixed=("scale",),
    ),
    "deblur": _blur(
        "uniform blur, 9 x 9 (the paper's DDPM rows)",
        lambda params: f"uniform:{params['width']}",
        {"width": 9, "boundary": "zero", "svd_cutoff": 0.0},
    ),
    "deblur-gauss": _blur(
        "Gaussian blur, std 3 px (the paper's flow rows)",
        lambda params: f"gauss:{params['blur_std']},{params['taps']}",
        {"blur_std": 3.0, "taps": None, "boundary": "zero", "svd_cutoff": 0.0},
    ),
    "deblur-aniso": _blur(
        "anisotropic Gaussian blur, std 20 px horizontally and 1 px vertically, 9 taps",
        lambda params: f"aniso:{params['blur_std_x']},{params['blur_std_y']},{params['taps']}",
        {"blur_std_x": 20.0, "blur_std_y": 1.0, "taps": 9, "boundary": "zero", "svd_cutoff": 0.0},
    ),
    "motion": _blur(
        "motion blur along a line",
        lambda params: f"motion:{params['length']},{params['angle']}",
        {"length": 15.0, "angle": 45.0, "boundary": "circular"},
    ),
    "blur": _blur(
        "blur by any kernel: a file, or gauss:3, uniform:9, aniso:20,1, motion:15,30, defocus:4.5",
        lambda params: params["kernel"],
        {"kernel": "defocus:4.5", "kernel_as_is": False, "boundary": "circular"},
        told=("kernel",),
    ),
    "denoise": Task(help="noise alone", sigma_y=0.5, params={}, build=_identity),
    "colorize": Task(
        help="colour from grey, the mean of red, green and blue",
        sigma_y=0.05,
        params={"weights": [1 / 3, 1 / 3, 1 / 3]},
        build=_channel_mean,
        needs_colour=True,
    ),
    "inpaint": Task(
        help="missing pixels: a mask, a box, or a random half",
        sigma_y=0.05,
        params={"mask": None, "invert_mask": False, "box": None, "fraction": 0.5, "operator_seed": 0},
        build=_mask,
        told=PATTERNS,
    ),
    "cs": Task(
        help="compressed sensing: random Walsh-Hadamard rows",
        sigma_y=0.05,
        params={"ratio": 2, "operator_seed": 0},
        build=_hadamard,
        is_picture=False,
    ),
}


def task(name: str, command: str | None = None) -> Task:
    """Returns the row of that name. Raises UsageError otherwise, with what such a name stands for.

    command: as it was typed, without the task; then the error says what to type.
    """
    if name in TASKS:
        return TASKS[name]
    purposes = meant_by(name, TASKS)
    if not purposes:
        raise unknown_name("task", name, TASKS)
    likely = " or ".join(
        f"'{one}'{_explained([each for each in purposes if each.task == one], command)}"
        for one in dict.fromkeys(each.task for each in purposes)
    )
    raise UsageError(f"unknown task '{name}'; did you mean {likely}?")


def _explained(purposes: Sequence[Purpose], command: str | None) -> str:
    """Says for a name that was not known what its task is for, and what to type, of each purpose."""
    typed = [None if command is None else f"{command} {purpose.arguments}" for purpose in purposes]
    texts = [": ".join(filter(None, (purpose.fault, text))) for purpose, text in zip(purposes, typed, strict=True)]
    return f" ({'; '.join(texts)})" if any(texts) else ""


def resolve(name: str, options: OperatorOptions) -> dict[str, Any]:
    """Returns the complete parameters of a task, JSON-able: its defaults, with the options given.

    A kernel's file is read. Raises UsageError for an unknown task, an option that it does not take or that its name
    contradicts, and a value out of range; InputError for a kernel that cannot be one.
    """
    row, given = task(name), options.given()
    params = dict(row.params)
    for option, value in given.items():
        if option not in params:
            takers = [other for other, candidate in TASKS.items() if option in candidate.params]
            raise UsageError(f"task '{name}' takes no {flag(option)}; it belongs to {', '.join(takers)}")
        checked = CHECKS[option](option, value)
        if option in row.fixed and checked != params[option]:
            others = [other for other, candidate in TASKS.items() if option in {*candidate.params} - {*candidate.fixed}]
            raise UsageError(
                f"task '{name}' has {flag(option)} {params[option]}, not {checked}; {' or '.join(others)} takes any"
            )
        params[option] = checked
    if "taps" in params and params["taps"] is None:
        params["taps"] = 2 * math.ceil(5 * params["blur_std"]) + 1  # 31 at std 3, as in the authors' code
    if "kernel" in params:
        kernels.check_sum(params["kernel"], as_is=params["kernel_as_is"])
    return _one_pattern(params, given) if name == "inpaint" else params


def resolve_recorded(name: str, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the complete parameters of a task as a file has them, None for those not given; opens no file of a name.

    Such files hold the numbers of a kernel, not where they were. Raises as `resolve`, InputError for a kernel's file,
    TypeError for an option that there is not.
    """
    given = {option: value for option, value in recorded.items() if value is not None}
    kernel = given.get("kernel")
    if isinstance(kernel, str) and not kernels.is_formula(kernel):
        raise InputError(f"the kernel '{kernel}' is neither numbers nor one of {kernels.USAGES}")
    return resolve(name, OperatorOptions(**given))


def _one_pattern(params: dict[str, Any], given: Params) -> dict[str, Any]:
    """Returns the one given of the ways to say which pixels are missing; the random half if none is."""
    chosen = [name for name in PATTERNS if name in given]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(map(flag, chosen))} exclude each other")
    if given.get("invert_mask") and "mask" not in given:
        raise UsageError("--invert-mask belongs to a --mask; name it")
    if chosen:
        params.update({name: None for name in PATTERNS if name not in chosen})
    if params["fraction"] is None:
        if "operator_seed" in given:
            raise UsageError(f"--operator-seed draws random pixels; {flag(chosen[0])} leaves nothing to draw")
        params["operator_seed"] = None
    return params


def check_told(name: str, options: OperatorOptions) -> None:
    """Raises UsageError if nothing says what a picture that was not degraded here went through (`Task.told`)."""
    told = task(name).told
    if told and not set(told) & options.given().keys():
        raise UsageError(f"task '{name}': say what was done to the picture with {' or '.join(map(flag, told))}")


def of_found_picture(name: str, options: OperatorOptions) -> OperatorOptions:
    """Returns the options for a picture that was not degraded here.

    Its scene goes on beyond the frame, unless they say not.
    """
    if options.boundary is None and "boundary" in task(name).params:
        return replace(options, boundary="valid")
    return options


def build(
    name: str,
    params: Params,
    in_shape: Shape3,
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    mask: Tensor | None = None,
) -> LinearOperator:
    """Returns the operator of a task for images of shape (C, H, W).

    params: as `resolve` gives them; mask: (H, W) of bool, True = kept, where params name a mask file. Raises InputError
    for a size or a number of channels that the operator cannot have, ValueError if the mask is missing.
    """
    if params.get("mask") is not None and mask is None:
        raise ValueError(f"task '{name}' was resolved with the mask {params['mask']}, which was not given")
    check_channels(name, in_shape[0])
    check_kernel(name, params, in_shape[1:])
    scale = factor(params)
    if in_shape[1] % scale or in_shape[2] % scale:
        raise InputError(
            f"the picture is {in_shape[2]} x {in_shape[1]} px, not a multiple of the scale {scale}; crop it first"
        )
    blur = kernel_of(name, params)
    op = task(name).build(Site(in_shape=in_shape, params=params, dtype=dtype, device=device, mask=mask, kernel=blur))
    op.task = name
    return op


def check_channels(name: str, channels: int) -> None:
    """Raises InputError if pictures of so many channels cannot be restored from that task."""
    if task(name).needs_colour and channels == 1:
        raise InputError(f"task '{name}' restores colour, and the prior is of grey pictures; choose one of colour")


def factor(params: Params) -> int:
    """Returns the pixels of x per pixel of y along each axis: the scale of super-resolution, 1 elsewhere."""
    return int(params.get("scale", 1))


def kernel_of(name: str, params: Params) -> Kernel | None:
    """Returns what a blur convolves with; None for other tasks. Raises InputError for numbers that make no kernel."""
    value = task(name).kernel
    return None if value is None else kernels.build(value(params), as_is=params.get("kernel_as_is", False))


def margin(name: str, params: Params) -> tuple[int, int]:
    """Returns (rows, columns) px by which x, a scene that goes on, is larger than the picture that is restored."""
    kernel = kernel_of(name, params)
    if kernel is None or params["boundary"] != "valid":
        return 0, 0
    kh, kw = kernel.size
    return kh - 1, kw - 1


def check_kernel(name: str, params: Params, size: tuple[int, int]) -> None:
    """Raises InputError if a picture of (h, w) is smaller than the kernel that was given for it."""
    if "kernel" in params and (kernel := kernel_of(name, params)):
        kernel.check_fits(size)


def source_shape(name: str, params: Params, picture_size: tuple[int, int], channels: int = 3) -> Shape3:
    """Returns (channels, H, W) of x that a degraded picture of (h, w) implies.

    Raises InputError if the kernel is larger.
    """
    check_kernel(name, params, picture_size)
    h, w = picture_size
    return scene_shape(name, params, (h * factor(params), w * factor(params)), channels)


def scene_shape(name: str, params: Params, picture_size: tuple[int, int], channels: int = 3) -> Shape3:
    """Returns (channels, H, W) of x of which a restored picture of (h, w) is all, or the part within the frame."""
    (h, w), (rows, cols) = picture_size, margin(name, params)
    return channels, h + rows, w + cols


def crop_box(params: Params, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Returns (left, top, width, height) px: the central part of an image of (H, W) that the task can take.

    The whole image, but for super-resolution, whose H and W are multiples of the scale. Raises InputError if nothing
    is left.
    """
    scale = factor(params)
    height, width = (side - side % scale for side in size)
    if not height or not width:
        raise InputError(f"the picture is {size[1]} x {size[0]} px, smaller than the scale {scale}")
    return (size[1] - width) // 2, (size[0] - height) // 2, width, height


def shown_size(name: str, params: Params, size: tuple[int, int]) -> tuple[int, int]:
    """Returns (H, W) px that are restored of an image of (H, W).

    Less than `crop_box` where x is a scene around them.
    """
    (_, _, width, height), (rows, cols) = crop_box(params, size), margin(name, params)
    return height - rows, width - cols
