"""What can be said about the prior and the machine."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli.checks import SEED, check_fields, checked, choice, option, whole
from dmps_cli.errors import UsageError
from dmps_cli.listener import Listener
from dmps_cli.weights.cards import DEFAULT_MODEL, Card, card

if TYPE_CHECKING:
    import torch

    from dmps_cli.weights.loading import LoadedPrior

DTYPE_NAMES = ("float32", "bfloat16", "float16")
DEVICE_NAMES = ("auto", "cpu", "cuda", "mps")
MIN_TILE = 64
MODEL_HELP = "Prior: a name of `dmps models list`, or a checkpoint of yours."
WEIGHTS_FILE_HELP = "Table of checkpoints of your own (docs/checkpoints.md); DMPS_WEIGHTS names one too."
OFFLINE_HELP = "Download nothing (so does HF_HUB_OFFLINE=1)."
DEVICE_HELP = "Where to compute."
SEED_HELP = "Seed of the noise, a whole number >= 0."


@dataclass(frozen=True, kw_only=True)
class ComputeOptions:
    """Prior and machine."""

    model: str = option(MODEL_HELP, "NAME|PATH", names=("--model", "-m"), default=DEFAULT_MODEL, complete="models")
    weights_file: Path | None = option(WEIGHTS_FILE_HELP, "FILE")
    offline: bool = option(OFFLINE_HELP, names=("--offline",), default=False)
    device: str = option(DEVICE_HELP, "|".join(DEVICE_NAMES), default="auto")
    dtype: str = option(
        "Floating-point type of the network; operators and images stay float32.",
        "|".join(DTYPE_NAMES),
        default="float32",
        rule=choice(DTYPE_NAMES),
    )
    batch_size: int = option(
        "Images per network call on a GPU. On a CPU images go one at a time, so that each gives the same bits in any "
        "company.",
        "N",
        default=1,
        rule=whole(1),
    )
    tile: int | None = option(
        "Let the network see overlapping windows of this side only: less memory for large pictures.",
        "PX",
        rule=whole(MIN_TILE, unit="px"),
    )
    seed: int = option(SEED_HELP, "N", names=("--seed",), default=0, rule=SEED)

    def check(self) -> Card:
        """Returns the prior's card. Raises UsageError for what can be refused without torch."""
        entry = card(self.model, self.weights_file)
        if self.tile is not None and entry.image_size is not None:
            raise UsageError(f"--tile: '{self.model}' sees windows of {entry.image_size} px already")
        check_fields(self)
        check_device(self.device)
        return entry

    def facts(self) -> dict[str, Any]:
        """Returns what JSON says of them."""
        return {**asdict(self), "weights_file": None if self.weights_file is None else str(self.weights_file)}

    def start(self) -> torch.device:
        """Imports torch, sets up the allocator, resolves the device. Raises UsageError if it is not there."""
        from dmps_cli.device import resolve_device, tune_allocator

        tune_allocator()
        return resolve_device(self.device)

    def load(self, device: torch.device, listener: Listener) -> LoadedPrior:
        """Returns the prior on the device, downloaded if need be; says which. Raises WeightsError, OutputError."""
        from dmps_cli.device import has_fast_bfloat16, micro_batch
        from dmps_cli.weights.loading import load_prior
        from dmps_cli.windows import WindowedPrior

        if self.dtype == "bfloat16" and device.type in ("cpu", "cuda") and not has_fast_bfloat16(device):
            listener.note(f"torch finds no instructions for bfloat16 on {device}; float32 is faster there")
        batch = micro_batch(device, self.batch_size)
        loaded = load_prior(
            self.model,
            device,
            self.dtype,
            override=self.weights_file,
            offline=self.offline,
            batch=batch,
            listener=listener,
        )
        listener.note(f"prior {loaded.name}, {self.dtype} on {device}")
        if self.tile is None:
            return loaded
        tile = self.tile - self.tile % loaded.prior.multiple
        return replace(loaded, prior=WindowedPrior(loaded.prior, tile, is_only_size=False, batch=batch))


def check_device(name: str) -> None:
    """Raises UsageError for what cannot be a device's name."""
    kind, colon, index = name.partition(":")
    checked("device", kind, DEVICE_NAMES)
    if colon and not (kind == "cuda" and index.isascii() and index.isdigit() and len(index) <= 3):
        raise UsageError(f"device '{name}' is no device; a number follows cuda: alone, as in cuda:1")
