"""Pictures as files: the commands, as functions."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

import torch

from dmps_cli.api.arguments import (
    KNOB_NAMES,
    OPERATOR_OPTIONS,
    READING,
    WRITING,
    Denoise,
    OnStep,
    PathLike,
    as_prior,
    check_names,
    counted,
    operator_options,
    sampling_options,
)
from dmps_cli.api.tensors import load_prior
from dmps_cli.checks import SEED, SIGMA
from dmps_cli.errors import InputError
from dmps_cli.files.options import ReadingOptions, WritingOptions
from dmps_cli.jobs.batch import Batch, OutputOptions
from dmps_cli.jobs.degrade import Degraded, Degrader
from dmps_cli.jobs.request import Request
from dmps_cli.jobs.restore import Restored, Restorer, Scores
from dmps_cli.listener import SILENT, Listener
from dmps_cli.priors import Prior
from dmps_cli.tasks.plan import make_plan
from dmps_cli.tasks.table import files_of
from dmps_cli.weights.cards import DEFAULT_MODEL
from dmps_cli.weights.loading import LoadedPrior
from dmps_cli.weights.options import ComputeOptions


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
    check_names("degrade_file", options, OPERATOR_OPTIONS)
    SEED("seed", seed, ValueError)
    if sigma_y is not None:
        SIGMA("sigma_y", sigma_y, ValueError)
    given, source = operator_options(options), _existing(path)
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
    favour: str | None = None,
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
    picture, by which it is scored. method, preset, favour, nfe, sampler, samples, seed, on_step: as in `restore`.
    options: those of the operator, as in `operator` but for masks that are tensors, and the method's knobs. listener:
    is told notes.

    Each result has its `path` and `facts`, what the sidecar beside it says: sigma_y, method, fit, scores, versions.
    Raises the DmpsError of what failed, TypeError for an option that there is not, ValueError for a sigma_y or a seed
    that cannot be.
    """
    check_names("restore_file", options, (*OPERATOR_OPTIONS, *KNOB_NAMES, *READING, *WRITING))
    SEED("seed", seed, ValueError)
    if sigma_y not in (None, "auto"):
        SIGMA("sigma_y", sigma_y, ValueError)
    source = _existing(path)
    loaded = _loaded(prior, device, listener)
    request = Request(
        own=loaded,
        task=task,
        operator=operator_options(options),
        noise=sigma_y,
        sampling=sampling_options(
            method, preset, favour, nfe, sampler, {k: v for k, v in options.items() if k in KNOB_NAMES}
        ),
        samples=samples,
        reference=None if reference is None else Path(reference),
        output=_output_options(output, overwrite=overwrite),
        reading=ReadingOptions(**{name: options[name] for name in options if name in READING}),
        writing=WritingOptions(**{name: options[name] for name in options if name in WRITING}),
    )
    batch = Batch(listener=listener)
    jobs = request.jobs(batch, [source])
    compute = ComputeOptions(device=str(loaded.device), seed=seed)
    restorer = Restorer(prior=loaded, compute=compute, batch=batch)
    told = counted(on_step, sum(len(job.targets) * job.sampling.nfe for job in jobs))
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
    own, where = as_prior(prior, 3), torch.device(device or "cpu")
    return LoadedPrior(name="own", prior=own, sha256="", dtype="float32", device=where, sampler=own.sampler)


def _check_device(prior: LoadedPrior, device: torch.device | str | None) -> None:
    """Raises ValueError for another device than the one that the prior's network lies on."""
    asked, there = prior.device if device is None else torch.device(device), prior.device
    if (asked.type, asked.index or 0) != (there.type, there.index or 0):
        raise ValueError(f"device is {asked}; the prior is on {there}: load it with load_prior(name, device='{asked}')")
