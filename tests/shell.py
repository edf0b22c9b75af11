"""What the command leaves behind (the fixture `dmps` runs it), and pictures to feed it."""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dmps_cli.files.images import photo_paths
from dmps_cli.listener import Silent

FAST = ["--nfe", "2"]


class Result:
    """What a command left behind."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


Dmps = Callable[..., Result]


class Heard(Silent):
    """A listener that hands on notes, and the bytes of transfers."""

    def __init__(
        self,
        note: Callable[[str], object] = lambda text: None,
        told: Callable[[int, int | None], object] = lambda done, total: None,
    ) -> None:
        self.note, self.told = note, told  # type: ignore[method-assign]

    @contextmanager
    def transfer(self, name: str) -> Iterator[Callable[[int, int | None], object]]:
        yield self.told


def photo(path: Path, size: tuple[int, int] = (32, 24), seed: int = 0) -> Path:
    """A smooth colour picture of (width, height) px."""
    rows, cols = np.mgrid[: size[1], : size[0]]
    phases = np.random.default_rng(seed).uniform(0, 6, 3)
    waves = [127 + 100 * np.sin(cols / 5 + rows / 7 + phase) for phase in phases]
    Image.fromarray(np.stack(waves, -1).astype(np.uint8)).save(path)
    return path


def bundled_photo(stem: str) -> Path:
    """The photograph of the package of that name."""
    return next(path for path in photo_paths() if path.stem == stem)


def pixels(path: str | Path) -> np.ndarray:
    """0..255, (H, W) or (H, W, 3)."""
    with Image.open(path) as image:
        return np.asarray(image)


def break_import(monkeypatch: pytest.MonkeyPatch, package: str, error: Exception) -> None:
    """Lets the next import of a package fail in that way, also where it has been imported before."""

    class Broken(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, *_: object) -> None:
            if name == package:
                raise error

    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
