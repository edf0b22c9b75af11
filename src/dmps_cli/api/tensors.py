"""Pictures as tensors: read, measured, restored, written."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dmps_cli import pipeline, sampling
from dmps_cli.api.arguments import (
    OPERATOR_OPTIONS,
    Denoise,
    OnStep,
    PathLike,
    Shape,
    as_prior,
    check_fits,
    check_mask,
    check_names,
    counted,
    operator_options,
    sampling_options,
)
from dmps_cli.checks import SAMPLES, SEED, SIGMA
from dmps_cli.files.atomic import atomic_write
from dmps_cli.files.encoding import Written, encode
from dmps_cli.files.images import load, load_channels
from dmps_cli.files.options import WHITE, WritingOptions
from dmps_cli.levels import Level
from dmps_cli.listener import SILENT, Listener
from dmps_cli.methods.posterior import Posterior
from dmps_cli.operators.base import LinearOperator
from dmps_cli.operators.measurement import Measurement
from dmps_cli.priors import Prior
from dmps_cli.sampling import Denoiser, Noise
from dmps_cli.tasks.plan import make_plan
from dmps_cli.tasks.table import build, resolve
from dmps_cli.weights.cards import DEFAULT_MODEL
from dmps_cli.weights.loading import LoadedPrior
from dmps_cli.weights.options import ComputeOptions


def load_image(
    path: PathLike,
    *,
    channels: Literal[1, 3] | None = 3,
    white: float | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Reads the picture file at a path: (1, C, H, W), float32 on [-1, 1], on the device.

    channels: 3, a grey picture three times; 1, the grey value of one in colour; None, as the file has it. white: the
    value that is white, 4095 of 12 bits in a file of 16; None: the largest of the file's type. Orientation by EXIF is
    applied, transparency is laid over white, a colour profile becomes sRGB. Raises InputError for a file that is
    missing, damaged, or no picture.
    """
    if channels not in (1, 3, None):
        raise ValueError(f"channels is {channels}; expected 1, 3 or None")
    if white is not None:
        WHITE("white", white, ValueError)
    picture = load(Path(path), white=white) if channels is None else load_channels(Path(path), channels, white=white)
    return picture.pixels[None].to(device)


def save_image(
    x: Tensor,
    path: PathLike,
    *,
    overwrite: bool = True,
    bit_depth: Literal[8, 16] = 8,
    quality: int | None = None,
    alpha: Tensor | None = None,
) -> Path:
    """Writes one picture, clipped to [-1, 1] and rounded to 8 or 16 bits; returns its path.

    x: (1, C, H, W) or (C, H, W), C = 1 or 3. path: its suffix names the format: PNG, TIFF, BMP and WebP keep the
    picture, JPEG does not. bit_depth: 16 for PNG and TIFF alone. quality: 1 to 100, of JPEG (95) and WebP (None:
    nothing is lost).

    alpha: (H, W), 0 (transparent) to 1. The file is written whole or not at all. overwrite: whether over what is there.
    Raises ValueError for another shape, UsageError for what the format does not have, OutputError where it cannot be
    written, NumericsError for NaN.
    """
    picture = x[0] if x.ndim == 4 and len(x) == 1 else x
    if picture.ndim != 3 or picture.shape[0] not in (1, 3):
        raise ValueError(f"x is {tuple(x.shape)}; expected one picture, (1, C, H, W) or (C, H, W) with C = 1 or 3")
    if alpha is not None and tuple(alpha.shape) != tuple(picture.shape[1:]):
        raise ValueError(f"alpha is {tuple(alpha.shape)}; expected {tuple(picture.shape[1:])}")
    target = Path(path)
    WritingOptions(bit_depth=bit_depth, quality=quality).check_target(target)
    how = Written(alpha=alpha, bits=bit_depth, quality=quality)
    atomic_write(target, encode(picture, target, how), overwrite=overwrite)
    return target


def operator(
    name: str,
    shape: Shape,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    **options: Any,
) -> LinearOperator:
    """Builds the operator A of a task for images of one shape, (C, H, W), which computes in a dtype on a device.

    name: a task of `dmps tasks`, sr4 for one, or several with bars between, "blur(gauss:1.6) | sr2". options: as the
    command line calls them, with underscores (`blur_std=2.0`, `boundary="reflect"`, `fraction=0.7`); a mask may be a
    file or a tensor (H, W) of bool, True = kept, a kernel a formula ("gauss:3"), a file or an array (kh, kw). Raises
    UsageError for an unknown task or an option that it does not take, InputError for a size that it cannot have or a
    file that cannot be read, TypeError for no option at all, ValueError for a shape of no image.
    """
    check_names("operator", options, OPERATOR_OPTIONS)
    size = tuple(shape)
    if len(size) != 3 or not all(isinstance(side, int) and side >= 1 for side in size):
        raise ValueError(f"shape is {size}; expected (C, H, W), as x.shape[1:] gives it")
    keep, own = options.get("mask"), None
    if isinstance(keep, Tensor):
        params = resolve(name, operator_options(options | {"mask": "a tensor"}))
        check_mask(keep, size)
        keep = ~keep if params["invert_mask"] else keep
    else:
        plan = make_plan(name, operator_options(options), None, 0)
        name, params, keep, own = plan.task, dict(plan.params), plan.mask, plan.own
    return build(name, params, size, dtype=dtype, device=device, mask=keep, own=own)


def degrade(x: Tensor, op: LinearOperator, sigma_y: float | Tensor, seed: int = 0) -> Measurement:
    """Measures images: y = A x + n, n ~ N(0, sigma_y^2 I).

    op: A. x: (B, *op.in_shape) on [-1, 1]; sigma_y: on that scale, 0.05 is 6.4 grey levels of 255; or a tensor
    of them, one for each number of y. An image's noise
    follows from seed and pixels alone, as in `dmps degrade`; of equal images in one batch each has its own. Raises
    ValueError for what does not fit.
    """
    check_fits("x", x, op.in_shape, op)
    SEED("seed", seed, ValueError)
    if not isinstance(sigma_y, Tensor):
        SIGMA("sigma_y", sigma_y, ValueError)
    Measurement(x.new_zeros((len(x), *op.out_shape)), op, sigma_y)  # refuses sigmas that do not fit
    seen: Counter[int] = Counter()
    keys = []
    for image in x.detach().to(torch.float32):
        key, _ = pipeline.picture_key(image)
        keys.append((key, seen[key]))
        seen[key] += 1
    return Measurement(pipeline.degrade(x, op, sigma_y, seed=seed, keys=keys), op, sigma_y)


def load_prior(
    name: PathLike = DEFAULT_MODEL,
    *,
    device: torch.device | str = "cpu",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    tile: int | None = None,
    weights_file: PathLike | None = None,
    offline: bool = False,
    listener: Listener = SILENT,
) -> LoadedPrior:
    """Loads a pre-trained prior onto a device; it is downloaded first where it is not there.

    name: of `dmps models list`, or a path of a checkpoint of one's own. device: cpu, cuda, cuda:1, mps, or auto,
    the first that is there. dtype: of the network alone. tile: side, px, of the windows that it sees of a large
    picture, for less memory. weights_file: a table of checkpoints. offline: whether nothing is downloaded. listener:
    is told notes, and the bytes of a download. Raises UsageError for an unknown name, WeightsError for a file that is
    damaged or of another network.
    """
    compute = ComputeOptions(
        model=os.fspath(name),
        weights_file=None if weights_file is None else Path(weights_file),
        offline=offline,
        device=str(device),
        dtype=dtype,
        tile=tile,
    )
    compute.check()
    return compute.load(compute.start(), listener)


def restore(
    measurement: Measurement,
    prior: Prior | Denoise,
    *,
    method: str | None = None,
    preset: str | None = None,
    favour: str | None = None,
    nfe: int | None = None,
    sampler: str | None = None,
    samples: int = 1,
    seed: int = 0,
    on_step: OnStep | None = None,
    **knobs: Any,
) -> Tensor:
    """Draws from the posterior of x given the measurement, by DMPS (Meng & Kabashima 2024) unless a method is named.

    prior: one loaded, one made of a network, or a bare denoiser D(z, s) = E[x0 | x0 + s eps = z]. method, preset,
    sampler (ddpm or flow levels), nfe (network evaluations for each sample) and knobs (of the method, by the names of
    its class, and `spacing`; cap=None is no cap) are chosen as by `dmps restore` where they are open: dmps at x0,
    unless a knob that it lacks (weight, cap) asks for another form. favour: psnr, balance or perception, what dmps at
    x0 is to be good at. seed: of all noise. on_step(done, total) is told of each evaluation.

    Result: (B K, *op.in_shape), K = samples, not clipped: the K samples of a measurement lie side by side, so that
    `x.unflatten(0, (-1, K))` is (B, K, C, H, W). Sample k is the same in any batch and for any K. Raises ValueError
    where measurement and prior do not fit or `At` of an operator of one's own is not the transpose of `A`,
    TypeError for a knob that there is not, UsageError for a choice that cannot be, and what `pipeline.restore`
    raises.
    """
    if not isinstance(measurement, Measurement):
        raise TypeError(f"measurement is a {type(measurement).__name__}; expected a Measurement(y, op, sigma_y)")
    op, prior = measurement.op, as_prior(prior, measurement.op.in_shape[0])
    check_fits("y", measurement.y, op.out_shape, op)
    SEED("seed", seed, ValueError)
    SAMPLES("samples", samples, ValueError)
    if op.in_shape[0] not in (1, prior.channels):
        raise ValueError(f"the prior is of {prior.channels} channels; the operator's images have {op.in_shape[0]}")
    if op.task is None:
        op.check_transpose()
    chosen = sampling_options(method, preset, favour, nfe, sampler, knobs).resolve(prior, op.task)
    chosen.check_samples(samples)
    batch = len(measurement.y)
    return pipeline.restore(
        Measurement(measurement.y.repeat_interleave(samples, 0), op, measurement.sigma_y),
        prior,
        chosen,
        seed=seed,
        keys=[(pipeline.FILE_KEY[0], k) for _ in range(batch) for k in range(samples)],
        on_step=counted(on_step, batch * samples * chosen.nfe),
    )


@torch.no_grad()
def sample(
    posterior: Denoiser,
    levels: Sequence[Level],
    z: Tensor,
    *,
    eta: float = 1.0,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> Tensor:
    """Runs the sampling loop: standard normal noise z, step by step, down the levels to an image.

    posterior: a method (`dmps.methods`), or a prior alone, of which it is an unconditional sample. levels: those of
    `prior.levels(sampler, nfe, spacing)`. z: (B, *op.in_shape), sides that the prior takes (`prior.fitting`). eta:
    stochasticity of the steps, 1 for DDPM levels and 0 for flow levels. seed: of the noise of the steps, each item's
    its own. on_step(done, total) is told of each evaluation. Result: like z, not clipped.

    Raises ValueError for eta outside 0 to 1, NumericsError if a state is no longer finite.
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta is {eta}; expected 0 (flow levels) to 1 (DDPM levels)")
    SEED("seed", seed, ValueError)
    start = posterior.start(z, levels[0]) if isinstance(posterior, Posterior) else z
    keys = [(pipeline.FILE_KEY[0], k) for k in range(len(z))]
    noise, told = Noise(seed, Noise.STEP, keys), counted(on_step, len(levels) - 1)
    return sampling.sample(posterior, levels, start, eta=eta, noise=noise, on_step=told)
