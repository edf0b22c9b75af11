"""Where the pictures of an evaluation are, relative to its folder: named after what their rows are of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from dmps_cli.evaluation.rows import Row
from dmps_cli.methods.knobs import KNOBS
from dmps_cli.methods.table import family
from dmps_cli.tasks.chain import slug

PICTURES = ("truth", "measurements", "restored", "mean", "spread")


def truth_file(row: Row) -> Path:
    """Returns where the part of a row's photograph that was used is, relative to the folder."""
    return Path("truth") / slug(row["task"]) / png_name(row["image"])


def measurement_file(row: Row) -> Path:
    """Returns where the measurement of a row is, relative to the folder."""
    return Path("measurements") / _problem(row) / png_name(row["image"])


def restored_file(row: Row) -> Path:
    """Returns where the restoration of a row is, relative to the folder."""
    name = png_name(row["image"])
    sample = f"_{row['sample']}" if "sample" in row else ""
    return Path("restored") / _problem(row) / _method(row) / f"{name.removesuffix('.png')}{sample}.png"


def mean_file(row: Row) -> Path:
    """Returns where the mean of the samples of a row's image is, relative to the folder."""
    return Path("mean") / _problem(row) / _method(row) / png_name(row["image"])


def spread_file(row: Row) -> Path:
    """Returns where the standard deviation of the samples of a row's image is, relative to the folder."""
    return Path("spread") / _problem(row) / _method(row) / png_name(row["image"])


def png_name(image: str) -> str:
    """Returns the name of a picture made of an image: photo.png, photo.jpg.png."""
    return image if image.endswith(".png") else f"{image}.png"


def picture_files(rows: Iterable[Row]) -> Iterator[Path]:
    """Yields whatever pictures rows may have, relative to the folder."""
    for row in rows:
        yield from (file_of(row) for file_of in (truth_file, measurement_file, restored_file, mean_file, spread_file))


def _problem(row: Row) -> str:
    return f"{slug(row['task'])}_sigma{row['sigma_y']}"


def _method(row: Row) -> str:
    knobs = [f"{label}{row[label]}" for knob in KNOBS.values() if (label := knob.label) in row]
    return "_".join([family(row["method"]), row["sampler"], row["spacing"], f"nfe{row['nfe']}", *knobs])
