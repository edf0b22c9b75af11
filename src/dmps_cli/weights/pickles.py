"""Pickles of torch.save, read as data.

torch's restricted unpickler (`weights_only`) is the guard. What trainers keep beside their weights (numpy arrays,
paths, arguments of a command line) is known by name and skipped: a stand-in of ours takes its place, so that nothing of
those packages is imported, built or called. Any other name is refused.
"""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch

from dmps_cli.errors import WeightsError
from dmps_cli.files.reading import decoding, open_regular

MAX_RATIO = 8
"""Bytes that a checkpoint may hold for each byte of its file; more is meant to fill the memory."""

WEIGHTS_ALONE = "torch.save(model.state_dict(), 'weights.pt')"
"""What a trainer types to save what is read here."""


class Skipped:
    """Stands for data that weights do not need: it is made of anything and keeps nothing."""

    def __new__(cls, *_: object) -> Skipped:
        """Returns an instance, whatever the arguments."""
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Forgets the state."""


def _mapping(*_: object) -> OrderedDict[Any, Any]:
    """Stands for what makes a mapping of a default and is then filled."""
    return OrderedDict()


_WIDTHS = [f"{kind}{bits}" for kind in ("Int", "UInt", "Float") for bits in (8, 16, 32, 64)]
_NUMPY_TYPES = ("Bool", "Object", "Str", "Bytes", *_WIDTHS)
_SYSTEMS = ("Posix", "Windows")
_PATHS = ("Path", "PurePath", *(f"{kind}{system}Path" for kind in ("", "Pure") for system in _SYSTEMS))
_NODES = ("Any", "String", "Integer", "Float", "Boolean", "Bytes", "Path")

SKIPPED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(
        ("numpy.core.multiarray", "numpy._core.multiarray"), ("_reconstruct", "scalar")
    ),  # as numpy 1 and 2 name it
    "numpy": ("ndarray", "dtype", "bool_", "int32", "int64", "float32", "float64"),
    "numpy.dtypes": tuple(f"{name}DType" for name in _NUMPY_TYPES),
    **dict.fromkeys(("pathlib", "pathlib._local"), _PATHS),  # as Python up to 3.12 and 3.13 name them
    "argparse": ("Namespace",),
    "types": ("SimpleNamespace",),
    "datetime": ("datetime", "date", "time", "timedelta", "timezone"),
    "uuid": ("UUID",),
    "decimal": ("Decimal",),
    "builtins": ("int", "float", "str", "bool", "bytes", "list", "dict", "tuple", "range", "slice"),
    "typing": ("Any", "Union", "Optional"),
    "omegaconf.dictconfig": ("DictConfig",),
    "omegaconf.listconfig": ("ListConfig",),
    "omegaconf.base": ("ContainerMetadata", "Metadata"),
    "omegaconf.nodes": tuple(f"{name}Node" for name in _NODES),
    "ml_collections.config_dict.config_dict": ("ConfigDict", "FrozenConfigDict", "FieldReference"),
}
"""Module -> names in it that are data, as files name them."""

FILLED = (
    "easydict.EasyDict",
    "addict.addict.Dict",
    "munch.Munch",
    "lightning_fabric.utilities.data.AttributeDict",
    "lightning.fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)
"""Mappings with other names, whose entries may be weights."""

ALLOWED: list[Any] = [
    *((Skipped, f"{module}.{name}") for module, names in SKIPPED.items() for name in names),
    *((OrderedDict, name) for name in FILLED),
    (_mapping, "collections.defaultdict"),
]


def read_pickle(path: Path, *, mmap: bool) -> object:
    """Returns what torch.save wrote, tensors mapped if `mmap`, data that are no tensors skipped.

    Raises WeightsError for a damaged file, and for one that asks for anything that is not known to be data.
    """
    if mmap:
        _check_archive(path)
    try:
        with torch.serialization.safe_globals(ALLOWED):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as exc:
        if asked := re.search(r"GLOBAL ([\w.]+)", str(exc)):
            raise WeightsError(
                f"{path} asks for {asked[1]}, which weights never need: refused, it could run anything on this "
                f"machine; where it comes from, save the weights alone: {WEIGHTS_ALONE}"
            ) from exc
        raise WeightsError(
            f"{path} is damaged: not a pickle of tensors; fetch it again, or save the weights alone: {WEIGHTS_ALONE}"
        ) from exc
    except OSError as exc:
        raise WeightsError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except MemoryError:
        raise
    except Exception as exc:  # whatever torch's restricted unpickler meets in damaged bytes
        raise WeightsError(
            f"{path} is damaged or not a checkpoint of torch.save; delete it and fetch it again"
        ) from exc


def _check_archive(path: Path) -> None:
    """Raises WeightsError for a program, and for a zip file that unpacks to far more than it has bytes.

    torch.save does not compress.
    """
    with decoding(path, WeightsError), open_regular(path) as file, zipfile.ZipFile(file) as archive:
        names = [Path(name).name for name in archive.namelist()]
        unpacked, size = sum(entry.file_size for entry in archive.infolist()), os.fstat(file.fileno()).st_size
    if "constants.pkl" in names:
        raise WeightsError(f"{path} is a program (TorchScript), not weights; save the weights alone: {WEIGHTS_ALONE}")
    if unpacked > MAX_RATIO * size:
        raise WeightsError(f"{path} has {size} bytes and unpacks to {unpacked}; weights are not compressed: refused")
