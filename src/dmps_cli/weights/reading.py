"""Published checkpoint files, read safely and mapped into memory.

A file is data, never a program: pickles are read with `weights_only` and a list of allowed globals that holds what
tensors need and numpy scalars, nothing else.
"""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from dmps_cli.errors import WeightsError
from dmps_cli.files.atomic import is_unicode
from dmps_cli.files.formats import HEAD, checkpoint_kind, is_markup
from dmps_cli.files.reading import check_regular, decoding, open_regular

EMA_ENTRIES = ("ema", "ema_state_dict", "ema_model", "model_ema")
MODEL_ENTRIES = ("state_dict", "model_state_dict", "model")
MAX_RATIO = 8
"""Bytes that a checkpoint may hold for each byte of its file; more is meant to fill the memory."""

PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile
_NUMPY_SCALAR = np.float64(0.0).__reduce__()[0]

_ALLOWED: list[Any] = [  # a learning rate that numpy computed, as numpy 1 and 2 name it
    (_NUMPY_SCALAR, "numpy.core.multiarray.scalar"),
    (_NUMPY_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float64DType,
]


class MismatchError(WeightsError):
    """A checkpoint, but of another network."""


# Reading
def read_checkpoint(path: Path, trainable: Callable[[], Sequence[str]] = list) -> dict[str, Tensor]:
    """Returns the weights of a published file, name -> tensor, mapped into memory where the format allows.

    trainable: the names of the parameters that training changes, asked for where they are needed. Safetensors files as
    they are. Of a pickle (torch.save), the averaged weights where there are any:

    1. an entry `ema`, `ema_state_dict`, `ema_model`, `model_ema` that holds names -> tensors, what it lacks (buffers)
       taken from 3;
    2. `ema` with a list `shadow_params` (Rectified Flow's training state): its tensors are the parameters `trainable`,
       in this order, the others are those of 3;
    3. an entry `state_dict`, `model_state_dict`, `model`;
    4. the mapping itself, if it holds nothing but names -> tensors.

    Prefixes `module.` and `_orig_mod.` that all names share go. Raises WeightsError for whatever else it may be.
    """
    kind = kind_of(path)
    if kind == "safetensors":
        return safetensors_of(path)[0]
    content = _load_pickle(path, mmap=kind == "zip")
    state = _weights(content, trainable, str(path))
    if state is None:
        entries = ", ".join(map(repr, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
        raise WeightsError(f"{path}: no weights found in it, only {entries or 'nothing'}; is it the right file?")
    return state


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


def _check_archive(path: Path) -> None:
    """Raises WeightsError for a zip file that unpacks to far more than it has bytes: torch.save does not compress."""
    with decoding(path, WeightsError), open_regular(path) as file, zipfile.ZipFile(file) as archive:
        unpacked, size = sum(entry.file_size for entry in archive.infolist()), os.fstat(file.fileno()).st_size
    if unpacked > MAX_RATIO * size:
        raise WeightsError(f"{path} has {size} bytes and unpacks to {unpacked}; weights are not compressed: refused")


def _load_pickle(path: Path, *, mmap: bool) -> object:
    if mmap:
        _check_archive(path)
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as exc:
        if asked := re.search(r"GLOBAL ([\w.]+)", str(exc)):
            raise WeightsError(
                f"{path} asks for {asked[1]}, which weights never need: refused, it could run anything on this machine"
            ) from exc
        raise WeightsError(f"{path} is damaged: not a pickle of tensors; delete it and fetch it again") from exc
    except OSError as exc:
        raise WeightsError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except MemoryError:
        raise
    except Exception as exc:  # whatever torch's restricted unpickler meets in damaged bytes
        raise WeightsError(
            f"{path} is damaged or not a checkpoint of torch.save; delete it and fetch it again"
        ) from exc


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


def _weights(
    content: object, trainable: Callable[[], Sequence[str]], where: str, depth: int = 3
) -> dict[str, Tensor] | None:
    """Returns the weights in what a pickle held, by the rule of `read_checkpoint`; None if there are none.

    depth: how many mappings deep they may lie (a pickle can hold a mapping that holds itself).
    """
    if not isinstance(content, Mapping) or not content or depth == 0:
        return None
    if all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()):
        return _without_prefixes(content)

    def inner(name: str) -> dict[str, Tensor] | None:
        return _weights(content.get(name), trainable, where, depth - 1)

    model = next((state for name in MODEL_ENTRIES if (state := inner(name))), None)
    for name in EMA_ENTRIES:
        ema = content.get(name)
        if isinstance(ema, Mapping) and isinstance(shadow := ema.get("shadow_params"), list):
            return _with_shadow(model or {}, shadow, trainable(), where)
        if state := inner(name):
            return {**(model or {}), **state}
    return model


def _without_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the state without the prefixes that all of its names share."""
    while prefix := next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in state)), ""):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return dict(state)


def _with_shadow(
    model: Mapping[str, Tensor], shadow: Sequence[object], trainable: Sequence[str], where: str
) -> dict[str, Tensor]:
    """Returns `model` with the averages in place of its trainable parameters.

    Raises WeightsError if they do not fit.
    """
    if len(shadow) != len(trainable):
        raise MismatchError(
            f"{where}: {len(shadow)} averaged tensors for {len(trainable)} trainable parameters; "
            "check that the model's configuration and the file belong together"
        )
    state = dict(model)
    for name, value in zip(trainable, shadow, strict=True):
        expected = tuple(model[name].shape) if name in model else "none"
        if not isinstance(value, Tensor) or tuple(value.shape) != expected:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise MismatchError(f"{where}: the averaged {name} is {found}, the model's {expected}; the file is damaged")
        state[name] = value
    return state


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
