"""Makes the folder that benchmarks/train_gpu.sh trains from on a machine where nothing is installed.

In it: the package without what a training does not read, the scripts, and the photographs as one zip file, of as high a
quality as the size allows. A photograph that is not made smaller by coding it anew travels as it is; so do those to
measure on, and all of the folders named by --keep. Photographs of which a copy is measured on are left out.

    python benchmarks/pack_gpu.py photographs/ more/ --validate others/ -o packed/
    sh packed/benchmarks/train_gpu.sh --out OUT
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import os
import shutil
import zipfile
from collections.abc import Sequence
from functools import partial
from multiprocessing.pool import ThreadPool
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import numpy as np
from PIL import Image

from dmps_cli.errors import InputError
from dmps_cli.training.photographs import Photo, decode, find_photos, list_sha256, without_copies
from dmps_cli.weights.cards import card

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ("train_gpu.sh", "train_gpu.py", "device_photos.py")
PHOTOGRAPHS, BUNDLED = "photographs.zip", "natural.safetensors"
QUALITIES = range(95, 29, -1)
SAMPLED = 12
"""One photograph of so many is coded to find the quality."""
ENTRY_BYTES = 250  # of the zip file, for each photograph
SPARE = 0.98


class Coded(NamedTuple):
    """A photograph's bytes, and their PSNR in dB against its pixels; infinite if they are those of the file itself."""

    content: bytes
    psnr: float


def coded(photo: Photo, kind: str, quality: int) -> Coded:
    """The smaller of the file itself and its pixels coded anew. Raises InputError."""
    pixels, buffer = decode(photo.path, 3), io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, quality=quality, **({"method": 6} if kind == "WEBP" else {}))
    own = as_it_is(photo)
    if len(own.content) <= len(buffer.getvalue()):
        return own
    with Image.open(buffer) as image:
        error = np.asarray(image.convert("RGB"), dtype=np.float64) - pixels
    return Coded(buffer.getvalue(), 10.0 * math.log10(255.0**2 / max(float(np.square(error).mean()), 1e-9)))


def as_it_is(photo: Photo) -> Coded:
    """The file's own bytes."""
    return Coded(photo.path.read_bytes(), math.inf)


def total(found: Sequence[Coded]) -> int:
    """Bytes in the zip file."""
    return sum(len(one.content) + ENTRY_BYTES for one in found)


def fitting(photos: Sequence[Photo], kind: str, room: int) -> tuple[int, list[Coded]]:
    """(quality, the photographs at the best one with which all fit into so many bytes). Raises SystemExit."""
    sample = photos[::SAMPLED]
    with ThreadPool() as pool:
        low, high = 0, len(QUALITIES) - 1  # indices, of falling quality
        while low < high:
            middle = (low + high) // 2
            size = total(pool.map(partial(coded, kind=kind, quality=QUALITIES[middle]), sample))
            if size * len(photos) / len(sample) <= SPARE * room:
                high = middle
            else:
                low = middle + 1
        for quality in QUALITIES[low:]:
            found = pool.map(partial(coded, kind=kind, quality=quality), photos)
            if total(found) <= room:
                return quality, found
    raise SystemExit(f"{len(photos)} photographs do not fit into {room / 1e6:.1f} MB; name fewer, or more --megabytes")


def readable(photos: Sequence[Photo]) -> list[Photo]:
    """Those that can be decoded; others are said."""

    def reason(photo: Photo) -> str:
        try:
            decode(photo.path, 3)
        except InputError as exc:
            return str(exc)
        return ""

    with ThreadPool() as pool:
        reasons = pool.map(reason, photos)
    for text in filter(None, reasons):
        print(f"skipped: {text}")
    return [photo for photo, text in zip(photos, reasons, strict=True) if not text]


def package_files() -> list[Path]:
    """The package's code, the weights to begin with, the scripts, the terms."""
    package = ROOT / "src" / "dmps_cli"
    scripts = [ROOT / "benchmarks" / name for name in SCRIPTS]
    return [*sorted(package.rglob("*.py")), package / "data" / BUNDLED, *scripts, ROOT / "LICENSE", ROOT / "NOTICE"]


def copy(files: Sequence[Path], out: Path) -> None:
    """The files, in the same folders below `out`."""
    for path in files:
        target = out / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def zip_entries(found: Sequence[Coded], part: str) -> dict[str, bytes]:
    """By name within the zip file, which keeps their order."""
    return {f"{part}/{k:05d}": one.content for k, one in enumerate(found)}


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="photographs to train on")
    parser.add_argument("--keep", action="append", default=[], type=Path, help="a folder of them to pack as it is")
    parser.add_argument("--validate", required=True, type=Path, help="photographs to measure on, never trained on")
    parser.add_argument("-o", "--out", required=True, type=Path, help="the folder to make")
    parser.add_argument("--megabytes", type=float, default=60.0, help="most that it may have (default: 60)")
    parser.add_argument("--format", choices=("webp", "avif"), default="webp", help="coding (default: webp)")
    parser.add_argument("--photographs-only", action="store_true", help="no package: a checkout lies beside it")
    parser.add_argument("--licence", default=card("natural").licence, help="terms of the prior (default: natural's)")
    options = parser.parse_args()
    if options.out.exists() and any(options.out.iterdir()):
        parser.error(f"{options.out} is not empty")
    measured = readable(find_photos([options.validate]))
    photos, kept = (
        readable(without_copies(find_photos(folders), measured)) for folders in (options.folders, options.keep)
    )
    apart = {os.path.realpath(photo.path) for photo in (*measured, *kept)}
    photos = [photo for photo in photos if os.path.realpath(photo.path) not in apart]
    if not measured or not (photos or kept):
        parser.error("no photographs")
    files = [] if options.photographs_only else package_files()
    used = sum(path.stat().st_size for path in files)
    whole = [as_it_is(photo) for photo in (*kept, *measured)]
    room = int(options.megabytes * 1e6) - used - total(whole) - 4096
    quality, found = fitting(photos, options.format.upper(), room) if photos else (0, [])
    training, all_coded = [*photos, *kept], [*found, *whole[: len(kept)]]
    losses = [one.psnr for one in all_coded if math.isfinite(one.psnr)]
    facts = {
        "photographs": str(len(training)),
        "photographs_sha256": list_sha256(training),
        "photographs_coding": f"{len(losses)} as {options.format} of quality {quality}, "
        f"{len(training) - len(losses)} as they were",
        "validation": f"{len(measured)} photographs, whole",
        "validation_sha256": list_sha256(measured),
        "licence": options.licence,
    }
    entries = {
        "facts.json": json.dumps(facts).encode(),
        **zip_entries(all_coded, "training"),
        **zip_entries(whole[len(kept) :], "validation"),
    }
    options.out.mkdir(parents=True, exist_ok=True)
    copy(files, options.out)
    with zipfile.ZipFile(options.out / PHOTOGRAPHS, "w", zipfile.ZIP_STORED) as file:
        for name, content in entries.items():
            file.writestr(zipfile.ZipInfo(name), content)  # no date: the same photographs, the same bytes
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    print(
        f"{options.out}: {size / 1e6:.1f} MB; {len(training)} photographs to train on, {len(measured)} to measure on; "
        f"{facts['photographs_coding']}"
        + (f" (mean PSNR of those coded {fmean(losses):.1f} dB)" if losses else "")
        + f"; sha256 {hashlib.sha256((options.out / PHOTOGRAPHS).read_bytes()).hexdigest()[:12]}"
    )


if __name__ == "__main__":
    main()
