"""The rows of tasks: names, defaults, options, and how each builds its operator. No torch until one is built.

To add a task: a row of TASKS (and a class in `operators/`). Options that are new get a field of `OperatorOptions`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dmps_cli.errors import InputError
from dmps_cli.tasks.options import PATTERNS
from dmps_cli.units import LARGE_PIXELS

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
    """Where an operator is built: image shape (C, H, W), complete parameters, the mask or the kernel that it has.

    own: the file or the code of an operator of one's own, as the command line names it.
    """

    in_shape: Shape3
    params: Params
    dtype: torch.dtype
    device: torch.device | str
    mask: Tensor | None = None
    kernel: Kernel | None = None
    own: str | None = None


@dataclass(frozen=True, kw_only=True)
class Task:
    """A row of TASKS. params: its options with their defaults; fixed: those that its name already says.

    told: options of which one must be given for a picture that was not degraded here: a default would be an invention.
    kernel: of a blur, the value of its kernel (`kernels.read`) by its parameters. main: the option that a value without
    a name sets in a chain, blur(gauss:2).
    """

    help: str
    sigma_y: float
    params: Params
    build: Build
    fixed: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    kernel: Callable[[Params], Any] | None = None
    main: str | None = None
    is_picture: bool = True  # whether a picture file can hold the measurement
    needs_colour: bool = False  # whether x cannot be grey
    reads_file: bool = False  # whether a file is its own measurement: operator, y and noise
    is_own: bool = False  # whether what it is comes with the command line, and y may have any shape


def _is_large(site: Site) -> bool:
    return site.in_shape[1] * site.in_shape[2] > LARGE_PIXELS and not site.params.get("svd_cutoff")


def _bicubic(site: Site) -> LinearOperator:
    from dmps_cli.operators import banded
    from dmps_cli.operators.separable import bicubic_decimation

    if _is_large(site):
        return banded.bicubic(site.in_shape, site.params["scale"], dtype=site.dtype, device=site.device)
    return bicubic_decimation(
        site.in_shape, site.params["scale"], svd_cutoff=site.params["svd_cutoff"], dtype=site.dtype, device=site.device
    )


def _average(site: Site) -> LinearOperator:
    from dmps_cli.operators import banded
    from dmps_cli.operators.separable import average_pooling

    if _is_large(site):
        return banded.average(site.in_shape, site.params["scale"], dtype=site.dtype, device=site.device)
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


def _blur(
    help: str, kernel: Callable[[Params], Any], params: Params, told: tuple[str, ...] = (), main: str | None = None
) -> Task:
    """Returns a row for a blur: the convolution with its kernel."""
    return Task(help=help, sigma_y=0.05, params=params, build=_blurred, told=told, kernel=kernel, main=main)


def _decimation(site: Site) -> LinearOperator:
    from dmps_cli.operators.decimation import Decimation

    return Decimation(site.in_shape, site.params["scale"], dtype=site.dtype, device=site.device)


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
        main=None if fixed else "scale",
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
        main="width",
    ),
    "deblur-gauss": _blur(
        "Gaussian blur, std 3 px (the paper's flow rows)",
        lambda params: f"gauss:{params['blur_std']},{params['taps']}",
        {"blur_std": 3.0, "taps": None, "boundary": "zero", "svd_cutoff": 0.0},
        main="blur_std",
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
        main="length",
    ),
    "blur": _blur(
        "blur by any kernel: a file, or gauss:3, uniform:9, aniso:20,1, motion:15,30, defocus:4.5",
        lambda params: params["kernel"],
        {"kernel": "defocus:4.5", "kernel_as_is": False, "boundary": "circular"},
        told=("kernel",),
        main="kernel",
    ),
    "decimate": Task(
        help="plain subsampling: one pixel of --scale along each axis, nothing averaged before",
        sigma_y=0.05,
        params={"scale": 2},
        build=_decimation,
        main="scale",
    ),
    "denoise": Task(help="noise alone", sigma_y=0.5, params={}, build=_identity),
    "colorize": Task(
        help="colour from grey, the mean of red, green and blue",
        sigma_y=0.05,
        params={"weights": [1 / 3, 1 / 3, 1 / 3]},
        build=_channel_mean,
        main="weights",
        needs_colour=True,
    ),
    "inpaint": Task(
        help="missing pixels: a mask, a box, or a random half",
        sigma_y=0.05,
        params={"mask": None, "invert_mask": False, "box": None, "fraction": 0.5, "operator_seed": 0},
        build=_mask,
        told=PATTERNS,
        main="mask",
    ),
    "cs": Task(
        help="compressed sensing: random Walsh-Hadamard rows",
        sigma_y=0.05,
        params={"ratio": 2, "operator_seed": 0},
        build=_hadamard,
        main="ratio",
        is_picture=False,
    ),
}


def _own_matrix(site: Site) -> LinearOperator:
    from dmps_cli.tasks.own import matrix_operator

    return matrix_operator(site)


def _own_code(site: Site) -> LinearOperator:
    from dmps_cli.tasks.own import code_operator

    return code_operator(site)


OWN: dict[str, Task] = {
    "matrix": Task(
        help="any matrix, --matrix FILE",
        sigma_y=0.05,
        params={"matrix": None, "image_shape": None},
        build=_own_matrix,
        is_own=True,
    ),
    "operator": Task(
        help="any linear operator, --operator FILE.py:NAME",
        sigma_y=0.05,
        params={"operator": None, "image_shape": None},
        build=_own_code,
        is_own=True,
    ),
}
"""Tasks that an option of their name stands for, in place of --task."""


def _no_site(site: Site) -> LinearOperator:
    raise InputError("a JPEG file is a measurement as it is: `restore` takes it, and whatever saves a .jpg makes one")


OF_FILES: dict[str, Task] = {
    "jpeg": Task(
        help="JPEG compression, of a .jpg file: its own coefficients",
        sigma_y=0.0,
        params={},
        build=_no_site,
        reads_file=True,
    ),
}
"""Tasks of files that say themselves how they measure, and how exactly."""
