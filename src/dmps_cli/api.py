"""The library: pictures in, measured, restored, and out again. `dmps_cli` gives each of these by name.

Images are (B, C, H, W) on [-1, 1]; sigma_y is a standard deviation on that scale. Everything computes on the CPU
unless a device is named. A DmpsError says what a person can mend (a file, a name, a size); a ValueError or
TypeError what the caller's code has wrong.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields
from itertools import count
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dmps_cli import pipeline, sampling
from dmps_cli.checks import MAX_SEED
from dmps_cli.errors import InputError
from dmps_cli.files.atomic import atomic_write
from dmps_cli.files.encoding import Written, encode
from dmps_cli.files.images import load, load_channels
from dmps_cli.files.options import ReadingOptions, WritingOptions, check_white
from dmps_cli.jobs.batch import Batch, OutputOptions
from dmps_cli.jobs.degrade import Degraded, Degrader
from dmps_cli.jobs.request import Request
from dmps_cli.jobs.restore import Restored, Restorer, Scores
from dmps_cli.levels import Level
from dmps_cli.listener import SILENT, Listener
from dmps_cli.methods.knobs import KNOBS
from dmps_cli.methods.options import SamplingOptions
from dmps_cli.methods.posterior import Posterior
from dmps_cli.operators.base import LinearOperator
from dmps_cli.operators.measurement import Measurement
from dmps_cli.priors import DenoiserPrior, Prior
from dmps_cli.sampling import Denoiser, Noise
from dmps_cli.tasks import kernels
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.plan import make_plan
from dmps_cli.tasks.table import build, files_of, resolve
from dmps_cli.units import MAX_SIGMA, MIN_SIGMA
from dmps_cli.weights.cards import DEFAULT_MODEL
from dmps_cli.weights.loading import LoadedPrior
from dmps_cli.weights.options import ComputeOptions

PathLike = str | os.PathLike[str]
Denoise = Callable[[Tensor, float], Tensor]
"""D(z, s) = E[x0 | x0 + s eps = z]: a denoiser as a prior is made of it."""

OnStep = Callable[[int, int], object]
"""(network evaluations done, in all): what is told after each."""

Shape = Sequence[int]
_OPERATOR_OPTIONS = tuple(field.name for field in fields(OperatorOptions))
_KNOBS = (*KNOBS, "spacing")
_READING = tuple(field.name for field in fields(ReadingOptions))
_WRITING = tuple(field.name for field in fields(WritingOptions))
_SIGMAS = f"0, or a number from {MIN_SIGMA:g} to {MAX_SIGMA:g} on [-1, 1]"


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
    check_white(white)
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
    _check_names("operator", options, _OPERATOR_OPTIONS)
    size = tuple(shape)
    if len(size) != 3 or not all(isinstance(side, int) and side >= 1 for side in size):
        raise ValueError(f"shape is {size}; expected (C, H, W), as x.shape[1:] gives it")
    keep = options.get("mask")
    if isinstance(keep, Tensor):
        params = resolve(name, _operator_options(options | {"mask": "a tensor"}))
        _check_mask(keep, size)
        keep = ~keep if params["invert_mask"] else keep
    else:
        plan = make_plan(name, _operator_options(options), None, 0)
        name, params, keep = plan.task, dict(plan.params), plan.mask
    return build(name, params, size, dtype=dtype, device=device, mask=keep)


def _operator_options(options: Mapping[str, Any]) -> OperatorOptions:
    """Returns those of an operator among options, paths and arrays as the command line would give them."""
    found = {name: value for name, value in options.items() if name in _OPERATOR_OPTIONS}
    found = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in found.items()}
    if not isinstance(found.get("kernel"), str | None):
        found["kernel"] = kernels.of_array(torch.as_tensor(found["kernel"]).cpu().numpy())
    return OperatorOptions(**found)


def _check_mask(keep: Tensor, shape: tuple[int, int, int]) -> None:
    """Raises ValueError for a mask that is none of that picture, or removes nothing or everything."""
    if keep.dtype != torch.bool or tuple(keep.shape) != shape[1:] or keep.all() or not keep.any():
        raise ValueError(
            f"mask is {keep.dtype} of {tuple(keep.shape)}, {int(keep.sum())} of it true; expected torch.bool of "
            f"{shape[1:]}, true where a pixel is kept, and false elsewhere"
        )


def degrade(x: Tensor, op: LinearOperator, sigma_y: float, seed: int = 0) -> Measurement:
    """Measures images: y = A x + n, n ~ N(0, sigma_y^2 I).

    op: A. x: (B, *op.in_shape) on [-1, 1]; sigma_y: on that scale, 0.05 is 6.4 grey levels of 255. An image's noise
    follows from seed and pixels alone, as in `dmps degrade`; of equal images in one batch each has its own. Raises
    ValueError for what does not fit.
    """
    _check_fits("x", x, op.in_shape, op)
    _check_seed(seed)
    if not _is_sigma(sigma_y):
        raise ValueError(f"sigma_y is {sigma_y!r}; expected {_SIGMAS}")
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
    its class, and `spacing`; cap=None is no cap) are chosen as by `dmps restore` where they are open. seed: of all
    noise. on_step(done, total) is told of each evaluation.

    Result: (B K, *op.in_shape), K = samples, not clipped: the K samples of a measurement lie side by side, so that
    `x.unflatten(0, (-1, K))` is (B, K, C, H, W). Sample k is the same in any batch and for any K. Raises ValueError
    where measurement and prior do not fit or `At` of an operator of one's own is not the transpose of `A`,
    TypeError for a knob that there is not, UsageError for a choice that cannot be, and what `pipeline.restore`
    raises.
    """
    if not isinstance(measurement, Measurement):
        raise TypeError(f"measurement is a {type(measurement).__name__}; expected a Measurement(y, op, sigma_y)")
    op, prior = measurement.op, _as_prior(prior, measurement.op.in_shape[0])
    _check_fits("y", measurement.y, op.out_shape, op)
    _check_seed(seed)
    if samples < 1:
        raise ValueError(f"samples is {samples}; expected 1 or more")
    if op.in_shape[0] not in (1, prior.channels):
        raise ValueError(f"the prior is of {prior.channels} channels; the operator's images have {op.in_shape[0]}")
    if op.task is None:
        op.check_transpose()
    options = _sampling_options(method, preset, nfe, sampler, knobs)
    chosen = (options.resolve if op.in_shape[0] == prior.channels else options.resolve_grey)(prior, op.task)
    batch = len(measurement.y)
    return pipeline.restore(
        Measurement(measurement.y.repeat_interleave(samples, 0), op, measurement.sigma_y),
        prior,
        chosen,
        seed=seed,
        keys=[(pipeline.FILE_KEY[0], k) for _ in range(batch) for k in range(samples)],
        on_step=_counted(on_step, batch * samples * chosen.nfe),
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
    _check_seed(seed)
    start = posterior.start(z, levels[0]) if isinstance(posterior, Posterior) else z
    keys = [(pipeline.FILE_KEY[0], k) for k in range(len(z))]
    noise, told = Noise(seed, Noise.STEP, keys), _counted(on_step, len(levels) - 1)
    return sampling.sample(posterior, levels, start, eta=eta, noise=noise, on_step=told)


def degrade_file(
    path: PathLike,
    *,
    task: str,
    sigma_y: float | None = None,
    seed: int = 0,
    output: PathLike | None = None,
    overwrite: bool = False,
    listener: Listener = SILENT,
    **options: Any,
) -> Degraded:
    """Degrades a photograph's file, as `dmps degrade` does, to the same bits; returns what was written.

    path: a photograph. task: of `dmps tasks`. sigma_y: on [-1, 1]; None: the task's. seed: of the noise, and of a
    random pattern without an `operator_seed`. output: the picture's file, or a folder; None: beside the photograph.
    overwrite: whether over what is there. listener: is told notes. options: those of the operator, as in `operator` but
    for masks that are tensors; `mask="alpha"` is what is transparent in the photograph.

    The result has the `path` of the picture, beside which its exact floats (.npy) and its sidecar (.json) lie, and
    `facts`, what the sidecar says. Raises the DmpsError of what failed, TypeError for an option that there is not,
    ValueError for a sigma_y or a seed that cannot be.
    """
    _check_names("degrade_file", options, _OPERATOR_OPTIONS)
    _check_seed(seed)
    if sigma_y is not None and not _is_sigma(sigma_y):
        raise ValueError(f"sigma_y is {sigma_y!r}; expected {_SIGMAS}, or None")
    given, source = _operator_options(options), _existing(path)
    plan = make_plan(task, given, sigma_y, seed, own_alpha=True)
    batch = Batch(listener=listener)
    degrader = Degrader(plan=plan, seed=seed, output=_output_options(output, overwrite=overwrite), batch=batch)
    for photograph, target in degrader.planned([source], files_of(plan.task, given)):
        with batch.item(photograph):
            if degraded := degrader.degrade(photograph, target):
                return degraded
    raise batch.failures[0][1]


def restore_file(
    path: PathLike,
    *,
    task: str | None = None,
    sigma_y: float | Literal["auto"] | None = None,
    prior: PathLike | Prior | Denoise = DEFAULT_MODEL,
    output: PathLike | None = None,
    reference: PathLike | None = None,
    method: str | None = None,
    preset: str | None = None,
    nfe: int | None = None,
    sampler: str | None = None,
    samples: int = 1,
    seed: int = 0,
    device: torch.device | str | None = None,
    overwrite: bool = False,
    on_step: OnStep | None = None,
    listener: Listener = SILENT,
    **options: Any,
) -> list[Restored]:
    """Restores a picture file, as `dmps restore` does, to the same bits; returns what was written, sample by sample.

    path: a measurement of `dmps degrade`, whose sidecar says the rest, or any degraded picture; then `task` says how.
    sigma_y: on [-1, 1]; "auto": estimated; None: the sidecar's, estimated without one. prior: a name or a path, or one
    at hand. device: None: that of a loaded prior, cpu for a prior of one's own, else the best one that is there.
    output: a file, or a folder; None: beside the input. overwrite: whether over what is there. reference: the true
    picture, by which it is scored. method, preset, nfe, sampler, samples, seed, on_step: as in `restore`. options:
    those of the operator, as in `operator` but for masks that are tensors, and the method's knobs. listener: is told
    notes.

    Each result has its `path` and `facts`, what the sidecar beside it says: sigma_y, method, fit, scores, versions.
    Raises the DmpsError of what failed, TypeError for an option that there is not, ValueError for a sigma_y or a seed
    that cannot be.
    """
    _check_names("restore_file", options, (*_OPERATOR_OPTIONS, *_KNOBS, *_READING, *_WRITING))
    _check_seed(seed)
    if sigma_y not in (None, "auto") and not _is_sigma(sigma_y):
        raise ValueError(f"sigma_y is {sigma_y!r}; expected {_SIGMAS}, 'auto' or None")
    source = _existing(path)
    loaded = _loaded(prior, device, listener)
    request = Request(
        own=loaded,
        task=task,
        operator=_operator_options(options),
        noise=sigma_y,
        sampling=_sampling_options(method, preset, nfe, sampler, {k: v for k, v in options.items() if k in _KNOBS}),
        samples=samples,
        reference=None if reference is None else Path(reference),
        output=_output_options(output, overwrite=overwrite),
        reading=ReadingOptions(**{name: options[name] for name in options if name in _READING}),
        writing=WritingOptions(**{name: options[name] for name in options if name in _WRITING}),
    )
    batch = Batch(listener=listener)
    jobs = request.jobs(batch, [source])
    compute = ComputeOptions(device=str(loaded.device), seed=seed)
    restorer = Restorer(prior=loaded, compute=compute, batch=batch)
    told = _counted(on_step, sum(len(job.targets) * job.sampling.nfe for job in jobs))
    written = list(restorer.restored(jobs, None if reference is None else Scores("alex", listener), told))
    for _, error in batch.failures:
        raise error
    return written


def _existing(path: PathLike) -> Path:
    """Returns the path of a file that is there. Raises InputError otherwise."""
    source = Path(path)
    if not source.is_file():
        raise InputError(f"{source} does not exist, or is no file")
    return source


def _output_options(output: PathLike | None, *, overwrite: bool) -> OutputOptions:
    return OutputOptions(output=None if output is None else os.fspath(output), overwrite=overwrite)


def _loaded(prior: PathLike | Prior | Denoise, device: torch.device | str | None, listener: Listener) -> LoadedPrior:
    """Returns a prior with the name that sidecars record: 'own' for one that was not loaded."""
    if isinstance(prior, str | os.PathLike):
        return load_prior(prior, device=device or "auto", listener=listener)
    if isinstance(prior, LoadedPrior):
        _check_device(prior, device)
        return prior
    own, where = _as_prior(prior, 3), torch.device(device or "cpu")
    return LoadedPrior(name="own", prior=own, sha256="", dtype="float32", device=where, sampler=own.sampler)


def _check_device(prior: LoadedPrior, device: torch.device | str | None) -> None:
    """Raises ValueError for another device than the one that the prior's network lies on."""
    asked, there = prior.device if device is None else torch.device(device), prior.device
    if (asked.type, asked.index or 0) != (there.type, there.index or 0):
        raise ValueError(f"device is {asked}; the prior is on {there}: load it with load_prior(name, device='{asked}')")


def _as_prior(prior: Prior | Denoise, channels: int) -> Prior:
    """Returns a prior as it is, or one made of a bare denoiser."""
    if isinstance(prior, Prior):
        return prior
    if not callable(prior):
        raise TypeError(f"prior is a {type(prior).__name__}; expected a Prior, or a denoiser D(z, s)")
    return DenoiserPrior(prior, channels)


def _sampling_options(
    method: str | None, preset: str | None, nfe: int | None, sampler: str | None, knobs: dict[str, Any]
) -> SamplingOptions:
    """Returns what is chosen of method, levels and knobs. Raises TypeError for a knob that there is not."""
    _check_names("restore", knobs, _KNOBS)
    if "cap" in knobs and knobs["cap"] is None:
        knobs = knobs | {"cap": "none"}
    return SamplingOptions(method=method, preset=preset, nfe=nfe, sampler=sampler, **knobs)


def _check_names(function: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Raises TypeError for a keyword that there is not, as Python does for a function that has none of that name."""
    for name in given:
        if name not in known:
            raise TypeError(f"{function}() has no option '{name}'; it has {', '.join(known)}")


def _check_fits(name: str, value: Tensor, shape: Shape, op: LinearOperator) -> None:
    """Raises ValueError for a batch that an operator cannot take."""
    if tuple(value.shape[1:]) != tuple(shape) or not len(value):
        raise ValueError(f"{name} is {tuple(value.shape)}; expected (B, {', '.join(map(str, shape))})")
    if value.dtype != op.dtype or value.device.type != op.device.type:
        raise ValueError(
            f"{name} is {value.dtype} on {value.device}; the operator computes in {op.dtype} on {op.device}"
        )
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"{name} holds NaN or infinity; expected finite numbers on [-1, 1]")


def _check_seed(seed: int) -> None:
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed is {seed}; expected a whole number from 0 to 2^63 - 1")


def _is_sigma(value: Any) -> bool:
    """Returns whether float32 can tell that standard deviation from 0 and from infinity."""
    return isinstance(value, float | int) and (value == 0.0 or MIN_SIGMA <= value <= MAX_SIGMA)


def _counted(on_step: OnStep | None, total: int) -> Callable[[], None]:
    """Returns what is called without arguments at each evaluation, and tells how many there were."""
    if on_step is None:
        return lambda: None
    done = count(1)

    def told() -> None:
        on_step(next(done), total)

    return told
