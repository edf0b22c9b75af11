"""Photographs to train on: which files of some folders are usable, and random crops of them, drawn ahead of their use.

What a step sees is a function of (seed, step) and of the photographs alone, never of what was drawn before: a run that
is resumed goes on with the crops that it would have had.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from dmps_cli import processes
from dmps_cli.errors import InputError
from dmps_cli.files.atomic import name_key, sha256_file
from dmps_cli.files.images import load_uint8, size_of
from dmps_cli.files.reading import MAX_PICTURE
from dmps_cli.files.suffixes import IMAGE_SUFFIXES, common
from dmps_cli.training.noise_levels import NoiseLevels

CACHE_BYTES = 3 * 2**29
"""Decoded photographs that are kept in memory, 1.5 GiB; 2,000 of 500 x 375 px in colour are 1.1 GB."""

COVERAGE, LEAST_CROPS_PER_DECODING = 0.1, 48
"""Where not all photographs fit into memory: crops between one leaving it and the next, as a share of those that cover
a photograph of mean size, and at the least. Decoding takes time in proportion to the pixels."""

HELD_OUT = 10
"""One photograph of so many is kept for validation where no folder is given for it."""

LACKING = 15
"""Most px that a large crop has less than its side: networks pad to multiples of 16."""

Pixels = np.ndarray
"""A photograph, uint8: (H, W, 3), or (H, W, 1) in grey."""


@dataclass(frozen=True, kw_only=True)
class Photo:
    """A file and its name within the folder that it was found in."""

    path: Path
    name: str

    @property
    def key(self) -> int:
        """A number for the name, the same in any collection."""
        return name_key(self.name)


def find_photos(
    folders: Sequence[Path],
    *,
    leave_out: Iterable[Path] = (),
    on_unreadable: Callable[[str], object] = lambda folder: None,
) -> list[Photo]:
    """Returns every picture file in the folders and their subfolders, linked ones too, each once, by name.

    No hidden ones.

    leave_out: files that are no photographs, whatever their names say; on_unreadable: is told of a subfolder that
    cannot be listed. Raises InputError for what is no folder.
    """
    found: dict[str, Photo] = {}
    apart = {os.path.realpath(path) for path in leave_out}
    for folder in folders:
        if not os.path.isdir(folder):  # noqa: PTH112 - False for any odd name
            raise InputError(f"{folder} is not a folder; name folders of photographs")
        entered = {os.path.realpath(folder)}  # links may lead in circles
        for place, inner, names in os.walk(folder, onerror=lambda exc: on_unreadable(exc.filename), followlinks=True):
            places: dict[str, str] = {}
            for name in sorted(inner):  # of two names of one folder the first, on every machine
                if not name.startswith("."):
                    places.setdefault(os.path.realpath(os.path.join(place, name)), name)  # noqa: PTH118
            inner[:] = [name for real, name in places.items() if real not in entered]
            entered |= places.keys()
            for name in sorted(names):
                path = Path(place, name)
                is_wanted = path.suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")
                if is_wanted and (real := os.path.realpath(path)) not in apart and os.path.isfile(path):  # noqa: PTH113
                    found.setdefault(real, Photo(path=path, name=path.relative_to(folder).as_posix()))
    return sorted(found.values(), key=lambda photo: (photo.name, str(photo.path)))


def held_out(
    photos: Sequence[Photo], is_usable: Callable[[Photo], bool] = lambda photo: True
) -> tuple[list[Photo], list[Photo]]:
    """Returns (for training, for validation): a tenth by the hash of its name, at least one of two usable ones.

    Where a tenth and the rest both hold a usable one, a photograph stays on its side when others join.
    """
    chosen = {photo.path for photo in photos if photo.key % HELD_OUT == 0}
    sides = [p for p in photos if p.path not in chosen], [p for p in photos if p.path in chosen]
    if all(any(is_usable(photo) for photo in side) for side in sides):
        return sides
    first_two = list(islice((p for p in sorted(photos, key=lambda photo: photo.key) if is_usable(p)), 2))
    if len(first_two) < 2:
        return list(photos), []
    return [p for p in photos if p != first_two[0]], first_two[:1]


def is_usable(photo: Photo, channels: int, least_side: int) -> bool:
    """Returns whether it can be read, and has least_side px on its shorter side."""
    size = size_of(photo.path)
    if size is None or min(size) < least_side:
        return False
    try:
        pixels = decode(photo.path, channels)
    except InputError:
        return False
    return bool(min(pixels.shape[:2]) >= least_side)


def without_copies(photos: Sequence[Photo], measured: Sequence[Photo]) -> list[Photo]:
    """Returns the photographs of which there is no copy, byte for byte, among the measured ones.

    What cannot be read is no copy, and is skipped when it is to be decoded.
    """
    sizes = {photo.path.stat().st_size for photo in measured}
    alike = [photo for photo in photos if photo.path.stat().st_size in sizes]
    known = {_content(photo) for photo in measured} - {""} if alike else set()
    copies = {photo.path for photo in alike if _content(photo) in known}
    return [photo for photo in photos if photo.path not in copies]


def _content(photo: Photo) -> str:
    """Returns the sha256 of a file; '' where it cannot be read."""
    try:
        return sha256_file(photo.path, limit=MAX_PICTURE)
    except InputError:
        return ""


def list_sha256(photos: Sequence[Photo]) -> str:
    """Returns the hexadecimal sha256 of the names and sizes in bytes, by name."""
    digest = hashlib.sha256()
    for photo in photos:
        digest.update(os.fsencode(photo.name) + b"\0" + str(photo.path.stat().st_size).encode() + b"\n")
    return digest.hexdigest()


def decode(path: Path, channels: int) -> Pixels:
    """Returns a photograph with 1 or 3 channels. Raises InputError if it cannot be read."""
    return np.ascontiguousarray(load_uint8(path, channels))


class Skipped(NamedTuple):
    """How many files are not used: with a side below the crop's, damaged."""

    small: int
    damaged: int


class Collection:
    """The usable photographs, in memory as far as they fit.

    Where all of them fit they are decoded at once. Else those in memory are a window that moves through the photographs
    in random order (another one in each round), one photograph further for every `crops_per_decoding` crops.
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        *,
        channels: int,
        least_side: int,
        seed: int,
        cache_bytes: int = CACHE_BYTES,
        on_photo: Callable[[], None] = lambda: None,
    ) -> None:
        """least_side: px of the shorter side that a photograph must have. Raises InputError if none is usable."""
        self.channels, self.least_side, self.seed = channels, least_side, seed
        self.damaged: dict[int, str] = {}  # why
        self.cache: dict[int, Pixels] = {}
        self.orders: dict[int, np.ndarray] = {}
        sizes = {photo.path: size_of(photo.path) for photo in photos}
        large = [p for p in photos if (size := sizes[p.path]) is None or min(size) >= least_side]
        self.small = len(photos) - len(large)
        self.photos = large
        num_bytes = [channels * size[0] * size[1] for p in large if (size := sizes[p.path])]
        mean = sum(num_bytes) / max(len(num_bytes), 1)
        self.crops_per_decoding = max(LEAST_CROPS_PER_DECODING, int(COVERAGE * mean / (channels * least_side**2)))
        self.window = len(large) if sum(num_bytes) <= cache_bytes else max(1, int(cache_bytes / mean))
        self.is_whole = self.window == len(large)
        for place in range(self.window):
            self._usable(place)
            on_photo()
        if not self.cache:
            raise InputError(self._nothing(len(photos)))
        if self.is_whole:
            self.photos = [photo for index, photo in enumerate(large) if index in self.cache]
            self.cache = dict(enumerate(self.cache.values()))
            self.window = len(self.photos)

    def _nothing(self, num_files: int) -> str:
        if not num_files:
            return f"the folders hold no photographs ({common()})"
        return (
            f"no usable photographs: of {num_files} files, {self.small} are smaller than the crop of "
            f"{self.least_side} px and {len(self.damaged)} damaged"
            + "".join(f"; {reason}" for reason in [*self.damaged.values()][:1])
        )

    @property
    def skipped(self) -> Skipped:
        """Files that are not used, as far as they have been met."""
        return Skipped(self.small, len(self.damaged))

    @property
    def num_usable(self) -> int:
        """Photographs less the damaged ones that have been met."""
        return len(self.photos) if self.is_whole else len(self.photos) - len(self.damaged)

    def pixels(self, first_crop: int, draw: float) -> Pixels:
        """Returns a photograph of the window at that crop of the run. draw: uniform on [0, 1), says which."""
        if self.is_whole:
            return self.cache[int(draw * self.window)]
        start = first_crop // self.crops_per_decoding
        index = self._usable(start + int(draw * self.window))
        if len(self.cache) > self.window + 1:
            kept = {self._index(place) for place in range(start, start + self.window)}
            self.cache = {known: value for known, value in self.cache.items() if known in kept or known == index}
        return self.cache[index]

    def _index(self, place: int) -> int:
        """Returns which photograph stands at that place of the endless random order."""
        if self.is_whole:
            return place
        turn, within = divmod(place, len(self.photos))
        if turn not in self.orders:
            order = np.random.default_rng((self.seed, ORDER, turn)).permutation(len(self.photos))
            self.orders = {known: self.orders[known] for known in (turn - 1,) if known in self.orders} | {turn: order}
        return int(self.orders[turn][within])

    def _usable(self, place: int) -> int:
        """Returns the photograph at a place, decoded.

        Of a damaged one the next that is not. Raises InputError if none is.
        """
        for later in range(len(self.photos)):
            index = self._index(place + later) if not self.is_whole else place
            if index in self.cache:
                return index
            if index in self.damaged:
                if self.is_whole:
                    break
                continue
            try:
                pixels = decode(self.photos[index].path, self.channels)
            except InputError as exc:
                self.damaged[index] = str(exc)
                continue
            if min(pixels.shape[:2]) >= self.least_side:
                self.cache[index] = pixels
                return index
            self.damaged[index] = f"{self.photos[index].path} has another size than its header says"
        if self.is_whole:
            return -1
        raise InputError(self._nothing(len(self.photos) + self.small))


CROPS, ORDER, NOISE = range(3)  # purposes of draws: streams that must never coincide


class TrainingBatch(NamedTuple):
    """x: (B, C, H, W) of uint8; s: (B,) noise levels; eps: like x, normal draws in float32.

    whole: how many images the step has on all processes, None if they are all here; x holds this one's part, or, where
    there is none for it, one that does not count.
    """

    x: Tensor
    s: Tensor
    eps: Tensor
    whole: int | None = None


@dataclass(frozen=True, kw_only=True)
class Shapes:
    """Crops of a step: three batches of `batch` small ones to one of `large_batch` large ones, sides in px.

    Large ones lack up to LACKING px, so that edges are learnt where the network has to pad.
    """

    batch: int
    crop: int
    large_batch: int
    large_crop: int

    @classmethod
    def around(cls, batch: int, crop: int) -> Self:
        """Adds large crops of twice the side, a third as many but at least one: 12 of 96 px, 4 of 192 px."""
        return cls(batch=batch, crop=crop, large_batch=max(1, batch // 3), large_crop=2 * crop)

    def draw(self, rng: np.random.Generator, step: int) -> tuple[int, int]:
        """Returns (how many, side px)."""
        if step % 4 < 3:
            return self.batch, self.crop
        return self.large_batch, self.large_crop - int(rng.integers(LACKING + 1))

    def crops_before(self, step: int) -> int:
        """Crops in all earlier steps."""
        return (step // 4) * (3 * self.batch + self.large_batch) + (step % 4) * self.batch


def draw_batch(collection: Collection, shapes: Shapes, levels: NoiseLevels, seed: int, step: int) -> TrainingBatch:
    """Returns a step's crops, flipped and turned by multiples of 90 degrees at random, their noise and its levels.

    Of a photograph smaller than a large crop, the edge is mirrored. Of several processes each draws the same, and keeps
    its own part; every crop has noise of its own, so that none is drawn in vain.
    """
    rng = np.random.default_rng((seed, CROPS, step))
    count, side = shapes.draw(rng, step)
    first = shapes.crops_before(step)
    crops = [random_crop(collection.pixels(first, rng.random()), side, rng) for _ in range(count)]
    s = torch.from_numpy(levels.draw(rng, count)).float()
    own = [*processes.own_part(count)] or [0]
    x = torch.from_numpy(np.stack([crops[k] for k in own])).permute(0, 3, 1, 2)
    return TrainingBatch(x, s[own], torch.stack([_noise((seed, NOISE, step, k), x.shape[1:]) for k in own]), count)


def _noise(key: tuple[int, ...], shape: torch.Size) -> Tensor:
    """Returns normal draws fixed by the key."""
    generator = torch.Generator().manual_seed(int(np.random.SeedSequence(key).generate_state(1)[0]))
    return torch.randn(shape, generator=generator)


def random_crop(pixels: Pixels, side: int, rng: np.random.Generator) -> Pixels:
    """Returns (side, side, C) of a photograph, flipped and turned at random."""
    top, left = (int(rng.integers(0, max(length - side, 0) + 1)) for length in pixels.shape[:2])
    crop = pixels[top : top + side, left : left + side]
    missing = [side - length for length in crop.shape[:2]]
    if any(missing):
        crop = np.pad(crop, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric")
    turns, is_flipped = int(rng.integers(4)), bool(rng.integers(2))
    turned = np.rot90(crop, turns)
    return turned[:, ::-1] if is_flipped else turned
