"""The table of checkpoints, `weights.toml`, and how a name becomes a prior."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli.errors import InputError, WeightsError, unknown_name
from dmps_cli.files import sha256_file

if TYPE_CHECKING:
    import torch

    from dmps_cli.priors import Prior

DEFAULT_MODEL = "natural"
_DATA = Path(str(files("dmps_cli"))) / "data"
_SOURCE_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, kw_only=True)
class Card:
    """One table of weights.toml: what a checkpoint is and where its file lies."""

    name: str
    about: str
    architecture: str
    prior: str
    bundled: str
    channels: int
    licence: str


def weights_file(override: Path | None = None) -> Path:
    """The table in force: `override`, DMPS_WEIGHTS, the package's copy, the source tree's. Raises WeightsError."""
    named = override or (Path(value) if (value := os.environ.get("DMPS_WEIGHTS")) else None)
    candidates = [named] if named else [_DATA / "weights.toml", _SOURCE_ROOT / "weights.toml"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise WeightsError(f"no table of checkpoints at {' or '.join(map(str, candidates))}")


def cards(override: Path | None = None) -> dict[str, Card]:
    """Every checkpoint of the table in force, by name. Raises InputError if it cannot be read."""
    path = weights_file(override)
    try:
        tables: Mapping[str, Mapping[str, Any]] = tomllib.loads(path.read_text(encoding="utf-8"))
        return {name: Card(name=name, **table) for name, table in tables.items()}
    except (OSError, tomllib.TOMLDecodeError, TypeError) as exc:
        raise InputError(f"cannot read the checkpoints of {path}: {exc}") from exc


def card(name: str) -> Card:
    """The checkpoint of that name. Raises UsageError with the nearest name otherwise."""
    table = cards()
    if name not in table:
        raise unknown_name("model", name, table)
    return table[name]


@dataclass(frozen=True, kw_only=True)
class LoadedPrior:
    """A prior ready to run, with what its outputs must record."""

    name: str
    prior: Prior
    sha256: str
    dtype: str


def load_prior(name: str, device: torch.device, dtype: str = "float32") -> LoadedPrior:
    """Reads the checkpoint, checks it against its architecture, puts it on the device in that floating-point type.

    Raises WeightsError for a file that is missing, damaged or of another architecture.
    """
    from safetensors import SafetensorError, safe_open

    from dmps_cli.device import DTYPES
    from dmps_cli.nets.natural import PEAK_BYTES_PER_PIXEL, natural_from_state
    from dmps_cli.priors import DenoiserPrior

    entry = card(name)
    path = _DATA / entry.bundled
    try:
        with safe_open(path, "pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as exc:
        raise WeightsError(f"cannot read the weights of '{name}' at {path}: {exc}; reinstall the package") from exc
    network = natural_from_state(state, str(path), metadata).to(device=device, dtype=DTYPES[dtype])
    return LoadedPrior(
        name=name,
        prior=DenoiserPrior(network.denoise, entry.channels, PEAK_BYTES_PER_PIXEL[dtype]),
        sha256=sha256_file(path),
        dtype=dtype,
    )
