"""Which files a command line means: names, folders, globs, standard input."""

from __future__ import annotations

import glob
import io
import itertools
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from dmps_cli.errors import DmpsError, InputError
from dmps_cli.files.options import InputOptions
from dmps_cli.files.reading import read_bytes
from dmps_cli.files.suffixes import IMAGE_SUFFIXES, common

STDIN = "-"
COMPANIONS = (".json", ".npy")
"""What dmps writes beside a picture."""


@dataclass(kw_only=True)
class Found:
    """The files that arguments name, each once, in order.

    places: the folder of each below its argument, which -o keeps. skipped: files of folders and globs that are no
    pictures, by suffix. failures: (argument, error).
    """

    places: dict[Path, PurePath] = field(default_factory=dict)
    skipped: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, DmpsError]] = field(default_factory=list)

    @property
    def paths(self) -> list[Path]:
        """The files."""
        return list(self.places)

    def skipped_note(self) -> str | None:
        """Returns what to say of the files that are no pictures; None without any."""
        if not (count := self.skipped.total()):
            return None
        kinds = ", ".join(f"{number} {suffix}" for suffix, number in self.skipped.most_common(5))
        more = ", .." if len(self.skipped) > 5 else ""
        return f"skipped: {count} file{'s' * (count > 1)} with no suffix of a picture ({kinds}{more})"


def expand_inputs(
    arguments: Sequence[str],
    is_input: Callable[[Path], bool] = lambda path: True,
    options: InputOptions | None = None,
) -> Found:
    """Returns the files that the arguments name.

    A folder gives its pictures by name, not hidden ones nor those of its subfolders unless that is asked for (the glob
    'folder/**/*.png' gives them too); a glob that the shell left alone its matches; `-` the names on standard input,
    one a line, as a list does. is_input: which of those that a folder or a glob brings are wanted.
    """
    options, found = options or InputOptions(), Found()
    names = [*_with_stdin(arguments), *([] if options.listed is None else _listed(options.listed))]
    seen: set[str] = set()  # by absolute name: a symbolic link and what it points to are two inputs
    plain: list[Path] = []  # named one by one
    for argument in dict.fromkeys(names):
        try:
            new = _expand(argument, is_input, found.skipped, recursive=options.recursive)
        except DmpsError as exc:
            found.failures.append((argument, exc))
            continue
        plain += [path for path, place in new if place is None]
        for path, place in new:
            absolute = os.path.abspath(path)  # noqa: PTH100 - Path.absolute() keeps `..`
            if absolute not in seen:
                seen.add(absolute)
                found.places[path] = PurePath() if place is None else place
    if options.recursive and len(plain) > 1:
        found.places |= _below_shared([path for path in plain if path in found.places])
    return found


def _below_shared(paths: Sequence[Path]) -> dict[Path, PurePath]:
    """Returns the folder of each below the one that they share."""
    folders = [os.path.abspath(path.parent) for path in paths]  # noqa: PTH100 - Path.absolute() keeps `..`
    try:
        shared = os.path.commonpath(folders)
    except ValueError:  # on several drives
        return {}
    return {path: PurePath(os.path.relpath(folder, shared)) for path, folder in zip(paths, folders, strict=True)}


def _listed(path: Path) -> list[str]:
    try:
        text = os.fsdecode(read_bytes(path))
    except OSError as exc:
        raise InputError(f"cannot read the list {path}: {exc.strerror}") from exc
    if names := [line for line in text.splitlines() if line.strip()]:
        return names
    raise InputError(f"the list {path} names no file")


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


def _expand(
    argument: str, is_input: Callable[[Path], bool], skipped: Counter[str], *, recursive: bool
) -> list[tuple[Path, PurePath | None]]:
    """Returns (file, its folder below the argument, None for a file that is named itself)."""
    if argument == STDIN:
        raise InputError("standard input names no file")
    if "\0" in argument:
        raise InputError(f"no file can have the name {argument}")
    if not argument:
        raise InputError("an input's name is empty; name a file, a folder or a glob")  # Path("") is the current folder
    path = Path(argument)
    try:
        if path.is_dir():
            pictures = _sorted_out(_files_below(path, recursive=recursive), skipped)
            if not pictures:
                below = "" if recursive else "; --recursive takes those of its folders" * _has_folders(path)
                raise InputError(f"the folder {path} holds no pictures ({common()}){below}")
            return [(file, file.parent.relative_to(path)) for file in _wanted(pictures, is_input, argument)]
        if path.exists():
            return [(path, None)]
        if glob.has_magic(argument):
            beginning = _beginning(argument)
            matches = _matches(argument)
            _sorted_out(matches, skipped)
            matches = _wanted(matches, is_input, argument)
            return [(file, file.parent.relative_to(beginning)) for file in matches]
    except OSError as exc:
        raise InputError(f"cannot read {argument}: {exc.strerror}") from exc
    raise InputError(f"{argument} does not exist")


def _beginning(pattern: str) -> Path:
    """Returns the folder that all matches of a glob lie below."""
    parts = Path(pattern).parts[:-1]
    plain = list(itertools.takewhile(lambda part: not glob.has_magic(part), parts))
    return Path(*plain)


def _wanted(paths: list[Path], is_input: Callable[[Path], bool], argument: str) -> list[Path]:
    if wanted := [path for path in paths if is_input(path)]:
        return wanted
    raise InputError(f"{argument} holds no inputs, only results and companions of pictures")


def _matches(pattern: str) -> list[Path]:
    matches = sorted(Path(match) for match in glob.glob(pattern, recursive=True))  # noqa: PTH207 - absolute patterns
    if files := [match for match in matches if match.is_file()]:
        return files
    raise InputError(f"{pattern} matches no file")


def _files_below(folder: Path, *, recursive: bool) -> list[Path]:
    """Returns the files of a folder, by name, but for hidden ones; those of its folders too where that is asked.

    Raises InputError if one cannot be read.
    """
    found: list[Path] = []
    try:
        if not recursive:
            found = list(folder.iterdir())
        else:
            for place, folders, names in os.walk(folder, onerror=_raise):
                folders[:] = [name for name in folders if not name.startswith(".")]
                found += [Path(place) / name for name in names]
        return sorted(path for path in found if not path.name.startswith(".") and path.is_file())
    except OSError as exc:
        raise InputError(f"cannot read the folder {exc.filename or folder}: {exc.strerror}") from exc


def _raise(exc: OSError) -> None:
    raise exc


def _sorted_out(files: list[Path], skipped: Counter[str]) -> list[Path]:
    """Returns the pictures; the others are counted, but for what belongs to a picture."""
    pictures = [path for path in files if is_picture(path)]
    of_pictures = {path.with_suffix("") for path in pictures}
    for path in files:
        is_companion = path.suffix.lower() in COMPANIONS and path.with_suffix("") in of_pictures
        if not is_picture(path) and not is_companion:
            skipped[path.suffix.lower() or path.name] += 1
    return pictures


def _has_folders(folder: Path) -> bool:
    return any(path.is_dir() for path in folder.iterdir())


def pictures_in(folder: Path) -> list[Path]:
    """Returns the picture files of a folder, by name, but for hidden ones. Raises InputError if there is none."""
    pictures = [path for path in _files_below(folder, recursive=False) if is_picture(path)]
    if not pictures:
        raise InputError(f"the folder {folder} holds no pictures ({common()})")
    return pictures


def is_picture(path: Path) -> bool:
    """Returns whether it is a file with the suffix of a picture, and not hidden."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
