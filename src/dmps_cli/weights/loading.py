"""Checkpoints made priors on a device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dmps_cli.errors import UsageError, WeightsError
from dmps_cli.files.hashes import known_sha256
from dmps_cli.levels import Level
from dmps_cli.listener import SILENT, Listener
from dmps_cli.priors import Prior
from dmps_cli.weights.cards import DIFFUSERS, Card, card
from dmps_cli.weights.reading import read_metadata
from dmps_cli.weights.store import fetch_card, roots


# Loading
@dataclass(frozen=True, kw_only=True)
class LoadedPrior(Prior):
    """A prior ready to run on its device, with what its outputs must record. sha256: of the published file.

    It is the prior inside in all that a prior does. aligned_faces: whether it knows nothing else.
    """

    name: str
    prior: Prior
    sha256: str
    dtype: str
    device: torch.device
    aligned_faces: bool = False
    sampler: str | None = None

    def __post_init__(self) -> None:
        for name in ("channels", "bytes_per_pixel", "least_size", "multiple", "clips_x0", "has_windows"):
            object.__setattr__(self, name, getattr(self.prior, name))

    def fitting(self, height: int, width: int) -> tuple[int, int]:
        """Returns that of the prior inside."""
        return self.prior.fitting(height, width)

    def peak_bytes(self, height: int, width: int) -> float | None:
        """Returns that of the prior inside."""
        return self.prior.peak_bytes(height, width)

    def levels(self, sampler: str, nfe: int, spacing: str = "uniform", start: float | None = None) -> list[Level]:
        """Returns those of the prior inside."""
        return self.prior.levels(sampler, nfe, spacing, start)

    def time(self, sampler: str, level: Level) -> float:
        """Returns that of the prior inside."""
        return self.prior.time(sampler, level)

    def predict(self, x_t: Tensor, cur: Level, nxt: Level) -> tuple[Tensor, Tensor | None]:
        """Returns that of the prior inside."""
        return self.prior.predict(x_t, cur, nxt)


def load_prior(
    name: str,
    device: torch.device,
    dtype: str = "float32",
    *,
    override: Path | None = None,
    offline: bool = False,
    batch: int = 1,
    listener: Listener = SILENT,
) -> LoadedPrior:
    """Returns the checkpoint of a name or path, fetched if need be, checked against its architecture, on the device.

    dtype: of the network. override: the user's table. batch: windows per call of a network that knows one size. Raises
    UsageError for an unknown name, WeightsError for a file that is missing, damaged or of another architecture.
    """
    from dmps_cli.device import DTYPES
    from dmps_cli.nets.natural import peak_bytes_per_pixel
    from dmps_cli.weights import building
    from dmps_cli.windows import WindowedPrior

    entry = card(name, override)
    if entry.architecture == DIFFUSERS:
        folder, sha256 = _folder(entry, offline=offline, listener=listener)
        prior, found = building.load_diffusers(
            folder, device=device, dtype=DTYPES[dtype], entry=entry.entry, prefix=entry.prefix
        )
    else:
        file, sha256 = _file(entry, offline=offline, listener=listener)
        found = building.read_weights(file, entry.architecture, entry.config, entry=entry.entry, prefix=entry.prefix)
        prior = building.build_prior(
            entry.architecture,
            entry.config,
            found.tensors,
            where=str(file),
            device=device,
            dtype=DTYPES[dtype],
            clip_denoised=entry.clip_denoised,
            schedule=entry.schedule,
            metadata=read_metadata(file),
        )
        if entry.architecture == "natural":
            prior.bytes_per_pixel = peak_bytes_per_pixel(found.tensors, dtype)
    if found.said and entry.entry is entry.prefix is None:
        listener.note(f"{name}: {found.said}")
    if entry.image_size is not None and entry.image_size % prior.multiple:
        raise WeightsError(f"'{name}': image_size {entry.image_size} is no multiple of its network's {prior.multiple}")
    if entry.image_size is not None:
        prior = WindowedPrior(prior, entry.image_size, batch=batch)
    return _loaded(name, entry, prior, sha256, dtype, device)


def random_prior(
    name: str, device: torch.device, dtype: str = "float32", *, override: Path | None = None, batch: int = 1
) -> LoadedPrior:
    """Returns the network of a name or path with random weights and no file, for timing; sha256 ''.

    Raises UsageError for an unknown name, or one whose network's sizes only its file gives.
    """
    from dmps_cli.device import DTYPES
    from dmps_cli.weights import building
    from dmps_cli.windows import WindowedPrior

    entry = card(name, override)
    if entry.architecture not in building.ARCHITECTURES:
        raise UsageError(
            f"--random-weights: only its file gives the sizes of the network of '{name}'; leave the option out, or "
            "name a checkpoint of another architecture, --model ffhq for one"
        )
    prior = building.build_prior(
        entry.architecture,
        entry.config,
        building.random_state(entry.architecture, entry.config, name),
        where=name,
        device=device,
        dtype=DTYPES[dtype],
        clip_denoised=entry.clip_denoised,
        schedule=entry.schedule,
    )
    if entry.image_size is not None:
        prior = WindowedPrior(prior, entry.image_size, batch=batch)
    return _loaded(name, entry, prior, "", dtype, device)


def _loaded(name: str, entry: Card, prior: Prior, sha256: str, dtype: str, device: torch.device) -> LoadedPrior:
    return LoadedPrior(
        name=name,
        prior=prior,
        sha256=sha256,
        dtype=dtype,
        device=device,
        aligned_faces=entry.aligned_faces,
        sampler=entry.sampler,
    )


def _folder(entry: Card, **fetching: Any) -> tuple[Path, str]:
    """Returns (a diffusers folder, the sha256 of its weights)."""
    from dmps_cli.nets.diffusers_unet import weights_path

    fetched = fetch_card(entry, **fetching)
    folder = roots(entry, fetched).pop() if fetched else entry.location
    return folder, known_sha256(weights_path(folder), fetching["listener"])


def _file(entry: Card, **fetching: Any) -> tuple[Path, str]:
    """Returns (the file, its sha256). Raises WeightsError if a file of the user's is another than its table says."""
    fetched = fetch_card(entry, **fetching)
    if fetched:
        return fetched[0].path, fetched[0].sha256
    sha256 = known_sha256(entry.location, fetching["listener"])
    if entry.sha256 not in (None, sha256):
        raise WeightsError(f"{entry.location}: the file's sha256 is {sha256}, {entry.sha256} is due by its table")
    return entry.location, sha256
