"""Operators of one's own, by a matrix in a file or by code: how they are named, read, built and tried.

Code is run where the command line, or a program, names it, and nowhere else: what a sidecar says of such an operator
is its name and hash, from which nothing can be built (docs/security.md).
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli.errors import InputError, UsageError
from dmps_cli.files.atomic import sha256_bytes, sha256_file
from dmps_cli.files.reading import MAX_PICTURE, check_regular, decoding, load_array, open_regular

if TYPE_CHECKING:
    import numpy as np

    from dmps_cli.operators.base import LinearOperator
    from dmps_cli.tasks.rows import Site

USAGE = "FILE.py:NAME or package.module:NAME"
MAX_DENSE = 2**28
"""Numbers of a dense matrix, and entries of a sparse one: 1 GiB in float32."""


# --- Names
def named_matrix(value: Any) -> dict[str, Any]:
    """Returns {name, sha256} of a matrix's file; what a sidecar says of one as it is. Raises InputError, UsageError."""
    if isinstance(value, Mapping):
        return _recorded(value)
    path = Path(value)
    if path.suffix.lower() not in (".npz", ".npy"):
        raise UsageError(f"--matrix is '{value}'; expected .npz (sparse, as SciPy saves it) or .npy (dense)")
    return {"name": str(value), "sha256": _hash(path)}


def named_code(value: Any) -> dict[str, Any]:
    """Returns {name, sha256} of code, the hash None for a module; what a sidecar says of some as it is."""
    if isinstance(value, Mapping):
        return _recorded(value)
    where, colon, name = str(value).rpartition(":")
    if not colon or not name.isidentifier() or not where:
        raise UsageError(f"--operator is '{value}'; expected {USAGE}")
    if not is_file(where) and not all(part.isidentifier() for part in where.split(".")):
        raise UsageError(f"--operator is '{value}'; expected {USAGE}")
    return {"name": str(value), "sha256": _hash(Path(where)) if is_file(where) else None}


def is_file(where: str) -> bool:
    """Returns whether what stands before the colon is a file, rather than a module."""
    return where.endswith(".py") or "/" in where or os.sep in where


def code_file(value: str) -> Path | None:
    """Returns the file of FILE.py:NAME."""
    where = value.rpartition(":")[0]
    return Path(where) if is_file(where) else None


def _hash(path: Path) -> str:
    try:
        check_regular(path)
        return sha256_file(path, limit=MAX_PICTURE)
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}") from exc


def _recorded(value: Mapping[str, Any]) -> dict[str, Any]:
    name, digest = value.get("name"), value.get("sha256")
    if not isinstance(name, str) or not (digest is None or isinstance(digest, str)):
        raise InputError("it names no operator")
    return {"name": name, "sha256": digest}


# --- Matrices
def matrix_operator(site: Site) -> LinearOperator:
    """Returns the operator of the matrix that `Site.own` names. Raises InputError for a file or shape that is wrong."""
    from dmps_cli.operators.matrix import MatrixOperator

    assert site.own is not None
    try:
        op = MatrixOperator(site.in_shape, load_matrix(Path(site.own)), dtype=site.dtype, device=site.device)
    except InputError as exc:
        raise InputError(f"{site.own}: {exc}" if site.own not in str(exc) else str(exc)) from exc
    return tried(op, site.own)


def load_matrix(path: Path) -> Any:
    """Returns a dense matrix as a tensor, or a sparse one as SciPy's csr_array, float64. Raises InputError."""
    import torch

    if path.suffix.lower() == ".npz":
        return _load_sparse(path)
    array = load_array(path)
    if array.ndim != 2 or array.dtype.kind not in "fiub" or not 0 < array.size <= MAX_DENSE:
        raise InputError(
            f"{path} holds {array.dtype} of shape {array.shape}; expected M x N real numbers, at most {MAX_DENSE}"
        )
    _check_finite(array, path)
    return torch.from_numpy(array.astype("float64", copy=False))


def _load_sparse(path: Path) -> Any:
    import zipfile

    from scipy import sparse

    with decoding(path), open_regular(path, limit=MAX_PICTURE) as file:
        claimed = sum(entry.file_size for entry in zipfile.ZipFile(file).infolist())
        if claimed > 24 * MAX_DENSE:
            raise InputError(f"{path} claims {claimed} bytes; expected at most {MAX_DENSE} entries")
        file.seek(0)
        matrix = sparse.csr_array(sparse.load_npz(file))
        if matrix.ndim != 2 or matrix.dtype.kind not in "fiub" or not matrix.nnz:
            raise InputError(f"{path} holds {matrix.nnz} entries of {matrix.dtype}; expected real numbers, not all 0")
        matrix.check_format(full_check=True)
        matrix.sum_duplicates()
    _check_finite(matrix.data, path)
    return matrix.astype("float64")


def _check_finite(values: np.ndarray, path: Path) -> None:
    import numpy as np

    if not np.isfinite(values).all():
        raise InputError(f"{path} holds NaN or infinity; expected finite numbers")


# --- Code
def code_operator(site: Site) -> LinearOperator:
    """Returns what the code in `Site.own` makes for images of that shape. Raises InputError for anything wrong."""
    from dmps_cli.operators.base import LinearOperator
    from dmps_cli.operators.functions import FunctionOperator, own_code

    assert site.own is not None
    make = _loaded(site.own)
    with own_code(site.own, "calling it"), _importing(site.own):
        made = _bound(make, site)()
    if isinstance(made, LinearOperator):
        return tried(_checked(made, site), site.own)
    functions = made if isinstance(made, tuple | list) else (made,)
    if (
        not 1 <= len(functions) <= 2
        or not callable(functions[0])
        or not all(f is None or callable(f) for f in functions)
    ):
        raise InputError(
            f"{site.own} gives a {type(made).__name__}; expected a LinearOperator, or functions of tensors (A, At)"
        )
    op = FunctionOperator(site.in_shape, *functions, name=site.own, dtype=site.dtype, device=site.device)
    return tried(op, site.own)


def _bound(make: Callable[..., Any], site: Site) -> Callable[[], Any]:
    """Returns the call of make(shape, dtype, device), the last two perhaps by name. Raises InputError if neither."""
    import torch

    device = torch.device(site.device)
    by_name = {"dtype": site.dtype, "device": device}
    signature = inspect.signature(make)
    for arguments, named in (((site.in_shape, site.dtype, device), {}), ((site.in_shape,), by_name)):
        try:
            signature.bind(*arguments, **named)
        except TypeError:
            continue
        return lambda: make(*arguments, **named)
    raise InputError(f"{site.own} takes {signature}; expected (shape, dtype, device)")


def _checked(op: LinearOperator, site: Site) -> LinearOperator:
    import torch

    have = (op.in_shape, op.dtype, op.device.type)
    wanted = (tuple(site.in_shape), site.dtype, torch.device(site.device).type)
    if have != wanted:
        raise InputError(
            f"{site.own} gives an operator of {have[0]}, {have[1]} on {have[2]}; expected {wanted[0]}, {wanted[1]} on "
            f"{wanted[2]}"
        )
    return op


def tried(op: LinearOperator, name: str) -> LinearOperator:
    """Returns an operator of one's own with its verdict, once it has been tried at random. Raises InputError."""
    from dmps_cli.operators.functions import own_code, verdict

    with own_code(name, "A or At"):
        op.verdict = verdict(op, name)
    return op


def _loaded(own: str) -> Callable[..., Any]:
    """Returns what code names. Raises InputError where there is nothing of that name, or it cannot be imported."""
    from dmps_cli.operators.functions import own_code

    where, _, name = own.rpartition(":")
    with own_code(own, "importing it"), _importing(own):
        module = _module_of_file(Path(where)) if is_file(where) else importlib.import_module(where)
        found = getattr(module, name, None)
    if found is None:
        raise InputError(f"{own}: there is no '{name}' in {where}")
    if not callable(found):
        raise InputError(f"{own} is an object of type {type(found).__name__}; expected a function")
    made: Callable[..., Any] = found
    return made


def _module_of_file(path: Path) -> Any:
    """Returns the module in a file, imported anew: by a name of its own, so that none is shadowed."""
    name = f"_dmps_own_{sha256_bytes(os.fsencode(path.absolute()))[:16]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@contextmanager
def _importing(own: str) -> Iterator[None]:
    """Lets what stands beside a file, or in the current folder, be imported while it lasts."""
    where = own.rpartition(":")[0]
    folder = str(Path(where).parent.absolute()) if is_file(where) else str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
