"""Published checkpoint files, read safely and mapped into memory.

A file is data, never a program (`weights.pickles`).
"""

from __future__ import annotations

import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from dmps_cli.errors import WeightsError
from dmps_cli.files.atomic import is_unicode
from dmps_cli.files.formats import HEAD, checkpoint_kind, is_markup
from dmps_cli.files.reading import check_regular, decoding, open_regular
from dmps_cli.weights.pickles import read_pickle


# Reading
def read_content(path: Path) -> object:
    """Returns what a published file holds, its tensors mapped into memory where the format allows.

    Of safetensors names -> tensors, of torch.save's format whatever was saved (`weights.finding` finds the weights).
    Raises WeightsError for whatever else it may be.
    """
    kind = kind_of(path)
    return safetensors_of(path)[0] if kind == "safetensors" else read_pickle(path, mmap=kind == "zip")


def kind_of(path: Path) -> str:
    """Returns 'safetensors', 'zip' (torch.save) or 'legacy' (before torch 1.6).

    Raises WeightsError for anything else.
    """
    try:
        with open_regular(path) as file:
            head = file.read(HEAD)
            whole = zipfile.is_zipfile(file)
    except OSError as exc:
        raise WeightsError(f"cannot read {path}: {exc.strerror}") from exc
    if not head:
        raise WeightsError(f"{path} is empty; delete it and fetch it again")
    kind = checkpoint_kind(head)
    if kind == "zip" and not whole:
        raise WeightsError(f"{path} is damaged: its end is missing; delete it and fetch it again")
    if kind is not None:
        return kind
    if is_markup(head):
        raise WeightsError(f"{path} is a web page, not a checkpoint; delete it and fetch it again")
    raise WeightsError(f"{path} is not a checkpoint (neither torch.save's format nor safetensors)")


def safetensors_of(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns (tensors, metadata), the tensors mapped."""
    if not is_unicode(str(path)):
        raise WeightsError(f"{path}: safetensors files are opened by names in UTF-8 only; rename it or its folder")
    with decoding(path, WeightsError):
        check_regular(path)
        try:
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except SafetensorError as exc:
            raise WeightsError(f"{path} is damaged ({exc}); delete it and fetch it again") from exc


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Returns (tensors, metadata) of a safetensors file, the tensors mapped. Raises WeightsError for any other file."""
    if kind_of(path) != "safetensors":
        raise WeightsError(f"{path} is not a safetensors file")
    return safetensors_of(path)


def read_metadata(path: Path) -> dict[str, str]:
    """Returns what a safetensors file, whatever its name, says of itself; nothing of any other. Raises WeightsError."""
    try:
        is_safetensors = kind_of(path) == "safetensors"
    except WeightsError:  # no checkpoint at all: of a download that went wrong its card can still be shown
        return {}
    return safetensors_of(path)[1] if is_safetensors else {}
