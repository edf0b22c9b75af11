"""From the tensors and the metadata of a file to the denoiser "natural"."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
from msgspec import UNSET, Meta, Struct, UnsetType
from torch import Tensor

from dmps_cli.errors import WeightsError
from dmps_cli.files.records import RecordError, as_builtins, as_record
from dmps_cli.nets.loading import load_state
from dmps_cli.nets.natural import Natural, NaturalConfig, NaturalNet


def natural_from_state(state: Mapping[str, Tensor], where: str, metadata: Mapping[str, str] | None = None) -> Natural:
    """Returns the denoiser of a weights file, ready to run, in float32 and channels_last.

    state: the file's tensors, whatever their precision; where: the file, for messages; metadata: its strings, of
    which `sigma_data`, `sigma_min`, `sigma_max` count (absent: the defaults of Natural). Raises WeightsError.
    """
    net = natural_on_meta(state, where)
    load_state(net, state, where)
    return Natural(net, **sigmas_of(metadata or {}, where)).to(memory_format=torch.channels_last)


def natural_on_meta(state: Mapping[str, Tensor], where: str) -> NaturalNet:
    """Returns the network that the tensors are of, without storage. Raises WeightsError if they are of none."""
    with torch.device("meta"):
        return NaturalNet(NaturalConfig.from_state(state, where))


SigmaBound = Annotated[float, Meta(gt=0.0, le=1e4)]


class SigmaFacts(Struct, frozen=True, kw_only=True):
    """What a file's metadata say of the noise levels; absent: the defaults of Natural."""

    sigma_data: SigmaBound | UnsetType = UNSET
    sigma_min: SigmaBound | UnsetType = UNSET
    sigma_max: SigmaBound | UnsetType = UNSET


def sigmas_of(metadata: Mapping[str, str], where: str) -> dict[str, float]:
    """Returns those of `sigma_data`, `sigma_min`, `sigma_max` that a file names.

    Raises WeightsError for what is none.
    """
    try:
        sigmas = as_record(dict(metadata), SigmaFacts, strict=False)
    except RecordError as exc:
        raise WeightsError(f"{where}: its metadata are damaged ({exc}); fetch the file again") from exc
    return as_builtins(sigmas)
