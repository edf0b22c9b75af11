"""Which files a command line means: names, folders, globs, standard input."""

from __future__ import annotations

import glob
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from dmps_cli.errors import DmpsError, InputError

OUTPUT_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
IMAGE_SUFFIXES = (*OUTPUT_SUFFIXES, ".gif", ".ppm", ".pgm")
STDIN = "-"


def expand_inputs(
    arguments: Sequence[str], is_input: Callable[[Path], bool] = lambda path: True
) -> tuple[list[Path], list[tuple[str, DmpsError]]]:
    """Returns (files, failures) that the arguments name, each file once, in order.

    A folder gives its pictures by name, not hidden ones nor those of its subfolders (the glob 'folder/**/*.png' does);
    a glob that the shell left alone its matches; `-` the names on standard input, one a line. is_input: which of those
    that a folder or a glob brings are wanted. A failure is (argument, error).
    """
    found: dict[str, Path] = {}  # by absolute name: a symbolic link and what it points to are two inputs
    failures: list[tuple[str, DmpsError]] = []
    for argument in dict.fromkeys(_with_stdin(arguments)):
        try:
            for path in _expand(argument, is_input):
                found.setdefault(os.path.abspath(path), path)  # noqa: PTH100 - Path.absolute() keeps `..`
        except DmpsError as exc:
            failures.append((argument, exc))
    return list(found.values()), failures


def _with_stdin(arguments: Iterable[str]) -> Iterator[str]:
    for argument in arguments:
        if argument == STDIN:
            yield from stdin_names() or [STDIN]
        else:
            yield argument


def stdin_names() -> list[str]:
    """Returns the names on standard input, one a line; none where it is closed."""
    if isinstance(sys.stdin, io.TextIOWrapper):  # names are bytes; read them as the shell's arguments are
        sys.stdin.reconfigure(encoding=sys.getfilesystemencoding(), errors="surrogateescape")
    return [line.rstrip("\r\n") for line in sys.stdin or () if line.strip()]  # None where it is closed


def _expand(argument: str, is_input: Callable[[Path], bool]) -> list[Path]:
    if argument == STDIN:
        raise InputError("standard input names no file")
    if "\0" in argument:
        raise InputError(f"no file can have the name {argument}")
    if not argument:
        raise InputError("an input's name is empty; name a file, a folder or a glob")  # Path("") is the current folder
    path = Path(argument)
    try:
        if path.is_dir():
            return _wanted(pictures_in(path), is_input, argument)
        if path.exists():
            return [path]
        if glob.has_magic(argument):
            return _wanted(_matches(argument), is_input, argument)
    except OSError as exc:
        raise InputError(f"cannot read {argument}: {exc.strerror}") from exc
    raise InputError(f"{argument} does not exist")


def _wanted(paths: list[Path], is_input: Callable[[Path], bool], argument: str) -> list[Path]:
    if wanted := [path for path in paths if is_input(path)]:
        return wanted
    raise InputError(f"{argument} holds no inputs, only results and companions of pictures")


def _matches(pattern: str) -> list[Path]:
    matches = sorted(Path(match) for match in glob.glob(pattern, recursive=True))  # noqa: PTH207 - absolute patterns
    if files := [match for match in matches if match.is_file()]:
        return files
    raise InputError(f"{pattern} matches no file")


def pictures_in(folder: Path) -> list[Path]:
    """Returns the picture files of a folder, by name, but for hidden ones. Raises InputError if there is none."""
    try:
        pictures = sorted(path for path in folder.iterdir() if is_picture(path))
    except OSError as exc:
        raise InputError(f"cannot read the folder {folder}: {exc.strerror}") from exc
    if not pictures:
        raise InputError(f"the folder {folder} holds no pictures ({', '.join(IMAGE_SUFFIXES)})")
    return pictures


def is_picture(path: Path) -> bool:
    """Returns whether it is a file with the suffix of a picture, and not hidden."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
