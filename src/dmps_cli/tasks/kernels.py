"""Blur kernels as they are given: by a formula, gauss:3, or in a file; and as a sidecar carries them.

A kernel is named by a value that JSON holds: the text of a formula, or the numbers of a file with their size, so that
whoever restores needs no file.
"""

from __future__ import annotations

import base64
import binascii
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli.errors import DmpsError, InputError, UsageError, unknown_name
from dmps_cli.files.reading import decoding, load_array, open_regular

if TYPE_CHECKING:
    import numpy as np

    from dmps_cli.operators.kernels import Kernel


MAX_VALUES = 2**20
"""Of a kernel in a file; a photograph that is named by mistake has more."""

MAX_BYTES = 2**28
"""Of a kernel's file."""

MAX_SIDE = 9999
"""px of taps along an axis."""

MAX_LENGTH = 2000.0
"""px of a motion: more than any picture's, and still a table that fits in memory."""

LEAST_SUM = 1e-3
"""What a kernel's values sum to, as a share of their sizes' sum: below it, normalising raises noise a thousandfold."""

GAINS = (1e-3, 1e3)
"""Sums of the sizes of an as-is kernel's values: beyond them single precision, or 8 bits, hold no picture."""


# --- Kernels by formula
@dataclass(frozen=True, kw_only=True)
class Form:
    """A row of FORMS. limits: smallest and largest value of each number; needed: how many must be given."""

    usage: str
    needed: int
    limits: tuple[tuple[float, float], ...]
    whole: tuple[bool, ...]
    build: Callable[..., Kernel]


def _gauss(std: float, taps: float | None = None) -> Kernel:
    return _aniso(std, std, taps)


def _aniso(std_x: float, std_y: float, taps: float | None = None) -> Kernel:
    from dmps_cli.operators.kernels import Kernel, gaussian_taps, gaussian_width

    vertical, horizontal = (gaussian_taps(std, int(taps or gaussian_width(std))) for std in (std_y, std_x))
    return Kernel(factors=(vertical, horizontal))


def _uniform(width: float) -> Kernel:
    from dmps_cli.operators.kernels import Kernel, uniform_taps

    return Kernel(factors=(uniform_taps(int(width)), uniform_taps(int(width))))


def _motion(length: float, angle: float) -> Kernel:
    from dmps_cli.operators.kernels import line

    return line(length, angle)


def _defocus(radius: float) -> Kernel:
    from dmps_cli.operators.kernels import disc

    return disc(radius)


_STD, _RADIUS, _ANGLE = (0.05, 900.0), (0.1, 500.0), (-360.0, 360.0)
_SIDE, _LENGTH = (1.0, float(MAX_SIDE)), (1.0, MAX_LENGTH)

FORMS = {
    "gauss": Form(usage="gauss:STD[,TAPS]", needed=1, limits=(_STD, _SIDE), whole=(False, True), build=_gauss),
    "uniform": Form(usage="uniform:WIDTH", needed=1, limits=(_SIDE,), whole=(True,), build=_uniform),
    "aniso": Form(
        usage="aniso:STD_X,STD_Y[,TAPS]",
        needed=2,
        limits=(_STD, _STD, _SIDE),
        whole=(False, False, True),
        build=_aniso,
    ),
    "motion": Form(
        usage="motion:LENGTH,ANGLE", needed=2, limits=(_LENGTH, _ANGLE), whole=(False, False), build=_motion
    ),
    "defocus": Form(usage="defocus:RADIUS", needed=1, limits=(_RADIUS,), whole=(False,), build=_defocus),
}

USAGES = ", ".join(form.usage for form in FORMS.values())


def _numbers(text: str) -> list[float] | None:
    """Returns the numbers after the colon of a formula; None where they are none."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        return None


def _checked_form(name: str, numbers: list[float]) -> str:
    """Returns the formula, its numbers as short as they go. Raises UsageError."""
    form = FORMS[name]
    given = f"{name}:{','.join(f'{number:.12g}' for number in numbers)}"
    if not form.needed <= len(numbers) <= len(form.limits):
        raise UsageError(f"--kernel is '{given}'; expected {form.usage}")
    for number, (least, most), is_whole in zip(numbers, form.limits, form.whole, strict=False):
        if not least <= number <= most or (is_whole and number != int(number)):
            kind = "whole numbers" if is_whole else "numbers"
            raise UsageError(
                f"--kernel is '{given}'; {form.usage} takes {kind} from {least:g} to {most:g} where it has {number:g}"
            )
    return given


# --- Values
def read(given: str | Mapping[str, Any]) -> str | dict[str, Any]:
    """Returns the value of a kernel: the text of a formula, or the numbers of a file, or of a sidecar.

    A formula goes before a file of that name; ./gauss:3 is the file. FILE:NAME is one array of several in a file.
    Raises UsageError for a formula that is none, InputError for a file that cannot be read or holds no kernel.
    """
    if not isinstance(given, str):
        return _as_value(_decoded(given))
    name, colon, rest = given.partition(":")
    numbers = _numbers(rest) if colon else None
    if is_formula(given):
        return _checked_form(name, numbers or [])
    path, array = _file_and_name(given)
    if not os.path.lexists(path):
        raise _not_there(given, name, is_formula=numbers is not None)
    return _as_value(_checked_values(_read_file(path, array), given))


def is_formula(given: str) -> bool:
    """Returns whether a text is a formula by its form, whatever its numbers; a file's name is not."""
    name, colon, rest = given.partition(":")
    return name in FORMS and bool(colon) and _numbers(rest) is not None


def _not_there(given: str, name: str, *, is_formula: bool) -> DmpsError:
    """Returns what to say of a text that is no formula and names no file."""
    if name in FORMS:
        return UsageError(f"--kernel is '{given}'; expected {FORMS[name].usage}")
    if is_formula:
        return unknown_name("kernel", name, FORMS)
    return InputError(f"the kernel {given} does not exist; name a file (PNG, NPY, MAT) or one of {USAGES}")


def check_sum(value: str | Mapping[str, Any], *, as_is: bool) -> None:
    """Raises InputError for a kernel whose sum is none that can be worked with."""
    if not isinstance(value, str):
        _scaled(_decoded(value), as_is=as_is)


def _scaled(values: np.ndarray, *, as_is: bool) -> np.ndarray:
    """Returns the values, summing to 1 unless as_is. Raises InputError."""
    total, size = float(values.sum()), float(abs(values).sum())
    if as_is:
        if not GAINS[0] <= size <= GAINS[1]:
            raise InputError(f"the kernel's values sum to {total:g}, too far from 1; leave --kernel-as-is out")
        return values
    if total < LEAST_SUM * size:
        raise InputError(f"the kernel's values sum to {total:g}, which cannot be made 1; take it with --kernel-as-is")
    return values / total


def build(value: str | Mapping[str, Any], *, as_is: bool = False) -> Kernel:
    """Returns the kernel of a value; as_is: not normalised. Raises InputError for one that cannot be."""
    if isinstance(value, str):
        name, _, rest = value.partition(":")
        return FORMS[name].build(*(_numbers(rest) or []))
    import torch

    from dmps_cli.operators.kernels import factored

    return factored(torch.from_numpy(_scaled(_decoded(value), as_is=as_is)))


def described(value: str | Mapping[str, Any]) -> str:
    """Returns a value for notes: gauss:3, or the size of a kernel from a file, width first."""
    return value if isinstance(value, str) else f"{value['size'][1]} x {value['size'][0]} px"


def of_array(values: np.ndarray) -> dict[str, Any]:
    """Returns the value of a kernel (kh, kw), centred at row kh // 2, column kw // 2. Raises InputError for none."""
    return _as_value(_checked_values(values, "given"))


def _as_value(values: np.ndarray) -> dict[str, Any]:
    """Returns {size: [kh, kw], float64: row by row, little-endian, in base64}."""
    return {"size": list(values.shape), "float64": base64.b64encode(values.astype("<f8").tobytes()).decode()}


def _decoded(value: Mapping[str, Any]) -> np.ndarray:
    """Returns the numbers of `_as_value`, checked again. Raises InputError."""
    import numpy as np

    try:
        raw = base64.b64decode(value["float64"], validate=True)
        values = np.frombuffer(raw, dtype="<f8").reshape(value["size"]).astype(np.float64)
    except (KeyError, TypeError, ValueError, binascii.Error) as exc:
        raise InputError(f"the kernel in the sidecar is damaged ({exc}); name the kernel's file with --kernel") from exc
    return _checked_values(values, "in the sidecar")


def _checked_values(array: np.ndarray, name: str) -> np.ndarray:
    """Returns any array as a kernel, float64. Raises InputError where it is none."""
    import numpy as np

    if array.dtype.kind not in "fiub":
        raise InputError(f"the kernel {name} holds {array.dtype}; expected real numbers")
    if array.ndim != 2:
        raise InputError(f"the kernel {name} has the shape {_shown(array)}; expected two dimensions")
    if not 0 < array.size <= MAX_VALUES:
        raise InputError(f"the kernel {name} has the shape {_shown(array)}; expected 1 to {MAX_VALUES} numbers")
    values = array.astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"the kernel {name} holds NaN or infinity; expected finite numbers")
    if not values.any():
        raise InputError(f"the kernel {name} is 0 everywhere; expected numbers that sum to more than 0")
    return values


def _shown(array: np.ndarray) -> str:
    return " x ".join(map(str, array.shape)) or "of a single number"


# --- Files
def file_of(given: str | Mapping[str, Any]) -> Path | None:
    """Returns the file that a kernel is read from; None for a formula, or numbers read already."""
    if not isinstance(given, str):
        return None
    path = _file_and_name(given)[0]
    return path if os.path.lexists(path) else None


def _file_and_name(given: str) -> tuple[Path, str | None]:
    """Returns (file, None), or (file, name) of FILE:NAME where the whole is no file."""
    file, colon, name = given.rpartition(":")
    if colon and not os.path.lexists(given) and os.path.lexists(file):
        return Path(file), name
    return Path(given), None


def _read_file(path: Path, name: str | None) -> np.ndarray:
    """Returns the array of a file, the one of that name where it holds several. Raises InputError."""
    with decoding(path), open_regular(path, limit=MAX_BYTES) as file:
        head = file.read(len(_MATLAB))
    if head.startswith(_NUMPY):
        arrays = {"": load_array(path)}
    elif head.startswith(_ZIP):
        arrays = _read_npz(path)
    elif head == _MATLAB or path.suffix.lower() == ".mat":
        arrays = _read_mat(path)
    elif path.suffix.lower() in (".npy", ".npz", ".txt", ".csv"):
        raise InputError(f"{path} is no kernel: its content is none of PNG, NPY and MAT")
    else:
        arrays = {"": _read_picture(path)}
    return _chosen(arrays, path, name)


_NUMPY, _ZIP, _MATLAB = b"\x93NUMPY", b"PK\x03\x04", b"MATLAB"  # how files begin; MATLAB's of version 4 do not say


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a NumPy archive that are small enough for kernels."""
    import zipfile

    import numpy as np

    with decoding(path), open_regular(path) as file:
        sizes = {entry.filename.removesuffix(".npy"): entry.file_size for entry in zipfile.ZipFile(file).infolist()}
        wanted = _small_enough(path, sizes, _MAX_ENTRY)
        with np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in wanted}


_MAX_ENTRY = 16 * MAX_VALUES  # bytes, of any type of numbers


def _read_mat(path: Path) -> dict[str, np.ndarray]:
    """Returns the numeric arrays of a MATLAB file (versions 4 to 7.2); those of a cell array as NAME.1, NAME.2, .."""
    import numpy as np
    from scipy.io import loadmat, whosmat

    with decoding(path), open_regular(path) as file:
        try:
            sizes = {name: math.prod(shape) for name, shape, _ in whosmat(file)}
            wanted = _small_enough(path, sizes, MAX_VALUES)
            held = loadmat(file, variable_names=wanted)
        except NotImplementedError as exc:
            raise InputError(f"cannot read {path}: it is a MATLAB file of version 7.3; save it with -v7") from exc
    found: dict[str, np.ndarray] = {}
    for name in wanted:
        cells = held[name].flatten("F") if held[name].dtype == object else None
        found |= {name: held[name]} if cells is None else {f"{name}.{k + 1}": c for k, c in enumerate(cells)}
    return {name: array for name, array in found.items() if getattr(array, "dtype", np.dtype(object)).kind in "fiub"}


def _small_enough(path: Path, sizes: Mapping[str, int], most: int) -> list[str]:
    """Returns the names of arrays that are no larger than `most`. Raises InputError if all are."""
    wanted = [name for name, size in sizes.items() if size <= most]
    if sizes and not wanted:
        raise InputError(f"{path} holds larger arrays than a kernel's; expected at most {MAX_VALUES} numbers")
    return wanted


def _read_picture(path: Path) -> np.ndarray:
    """Returns the grey values of a picture, 0 to 1. Raises InputError, also for one in colour."""
    import numpy as np
    import torch

    from dmps_cli.files.images import load

    pixels = load(path).pixels
    if not torch.equal(pixels, pixels[:1].expand_as(pixels)):
        raise InputError(f"the kernel {path} is in colour; expected a grey picture")
    levels = (pixels[0].double().numpy() + 1.0) * 32767.5
    whole = np.rint(levels)  # what 8 or 16 bits hold is told from single precision's rounding
    return (whole if np.allclose(levels, whole, rtol=0, atol=0.02) else levels) / 65535.0


def _chosen(arrays: Mapping[str, np.ndarray], path: Path, name: str | None) -> np.ndarray:
    """Returns the array of that name.

    Without one, the only one that can be a kernel. Raises InputError that names them.
    """
    if name is not None:
        if name not in arrays:
            raise InputError(f"{path} holds no array '{name}'; it holds {_listed(arrays)}")
        return arrays[name]
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    tables = {name: array for name, array in arrays.items() if array.ndim == 2 and array.size > 1}
    if len(tables) == 1:
        return next(iter(tables.values()))
    if not tables:
        raise InputError(f"{path} holds no array of two dimensions; it holds {_listed(arrays)}")
    raise InputError(
        f"{path} holds several arrays, {_listed(tables)}; choose one: --kernel {path}:{next(iter(tables))}"
    )


_LISTED = 8


def _listed(arrays: Mapping[str, np.ndarray]) -> str:
    texts = [f"{name or 'one without a name'} ({_shown(array)})" for name, array in arrays.items()]
    more = [f"{len(texts) - _LISTED} more"] if len(texts) > _LISTED else []
    return ", ".join([*texts[:_LISTED], *more]) or "none of numbers"
