"""Which restored picture belongs to which truth: two folders, matched by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dmps_cli.errors import InputError
from dmps_cli.files.inputs import is_picture

_LISTED = 10


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A picture under its name in the folder of truths, and what it should look like."""

    name: str
    restored: Path
    truth: Path


def pairs(restored: Path, truth: Path, *, matched_only: bool = False) -> tuple[list[Pair], list[str]]:
    """Returns (the pairs by name, the names without a partner) of two files or two folders, subfolders included.

    A name is the path below the folder; where a picture has no partner of its very name, one of the same name but for
    the suffix will do, if there is only one. matched_only: whether pictures without a partner are skipped. Raises
    InputError that lists those without a partner otherwise, and for folders that have no pair.
    """
    if restored.is_file() and truth.is_file():
        return [Pair(name=truth.name, restored=restored, truth=truth)], []
    for path in (restored, truth):
        if not path.exists():
            raise InputError(f"{path} does not exist")
        if not path.is_dir():
            raise InputError(f"expected two pictures or two folders, got {restored} and {truth}")
    ours, theirs = _below(restored), _below(truth)
    found = _matched(ours, theirs)
    taken = {*found.values()}
    alone = [f"{restored / name}" for name in ours if name not in found]
    alone += [f"{truth / name}" for name in theirs if name not in taken]
    if not found:
        raise InputError(f"no picture of {restored} has the name of one of {truth}")
    if alone and not matched_only:
        raise InputError(f"{len(alone)} without a partner: {_listed(alone)}; --matched-only scores the others")
    both = sorted((theirs_name, ours_name) for ours_name, theirs_name in found.items())
    return [Pair(name=there, restored=ours[here], truth=theirs[there]) for there, here in both], alone


def _below(root: Path) -> dict[str, Path]:
    """Returns name -> file of the pictures of a folder and its subfolders, without hidden ones, by name."""
    found: dict[str, Path] = {}

    def fail(exc: OSError) -> None:
        raise InputError(f"cannot read {exc.filename}: {exc.strerror}") from exc

    for parent, folders, files in os.walk(root, onerror=fail):
        here = Path(parent)
        folders[:] = [name for name in folders if not name.startswith(".")]
        found |= {(here / name).relative_to(root).as_posix(): here / name for name in files if is_picture(here / name)}
    if not found:
        raise InputError(f"the folder {root} holds no pictures")
    return dict(sorted(found.items()))


def _matched(ours: Mapping[str, Path], theirs: Mapping[str, Path]) -> dict[str, str]:
    """Returns our name -> theirs: equal names first, then equal but for the suffix, if unique on both sides."""
    found = {name: name for name in ours if name in theirs}
    left_ours = _by_stem(name for name in ours if name not in found)
    left_theirs = _by_stem(name for name in theirs if name not in found)
    for stem, names in left_ours.items():
        if len(names) == 1 and len(partners := left_theirs.get(stem, [])) == 1:
            found[names[0]] = partners[0]
    return found


def _by_stem(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(str(PurePosixPath(name).with_suffix("")), []).append(name)
    return found


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
