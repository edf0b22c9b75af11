"""What a table of scores must say of itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dmps_cli.metrics.table import METRICS
from dmps_cli.units import GREY_LEVELS, both_scales

LEAST_SAMPLES_OF_COVERAGE = 8
"""Of an image: the standard deviation of fewer is too uncertain for a share of 90 % within 1.645 of it."""

OF_SAMPLES = {
    "psnr_of_mean": "PSNR dB of the mean",
    "std": "std of samples",
    "coverage": "coverage of the 90 % Gaussian interval (mean ± 1.645 std)",
}
"""Headings of the columns over all samples of an image: PSNR of their mean, their standard deviation on [-1, 1], and
coverage of its 90 % interval, that of a Gaussian with the samples' mean and standard deviation."""


def list_hash(images: Iterable[str]) -> str:
    """Returns the sha256 of the images' names, sorted, one a line in UTF-8: equal for tables over the same list."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(images)).encode(errors="surrogateescape")).hexdigest()


def measured(names: Iterable[str], rows: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
    """Returns those of the metrics that some row has; all of them before there are rows."""
    return tuple(name for name in names if not rows or any(row.get(name) is not None for row in rows))


def size_notes(names: Iterable[str], rows: Sequence[Mapping[str, object]], lpips_net: str) -> list[str]:
    """Returns a sentence for each of the metrics that some row has not: its picture was too small."""
    counts = {name: sum(row.get(name) is None for row in rows) for name in names}
    return [
        f"{METRICS[name].label} needs pictures of at least {METRICS[name].min_px(lpips_net)} px a side; "
        f"{count} of {len(rows)} restorations have none"
        for name, count in counts.items()
        if count
    ]


def coverage_notes(samples: int) -> list[str]:
    """Returns why an evaluation of several samples gives no coverage, as none or one sentence."""
    if not 1 < samples < LEAST_SAMPLES_OF_COVERAGE:
        return []
    return [f"coverage needs --samples {LEAST_SAMPLES_OF_COVERAGE} or more; of {samples} the spread is too uncertain"]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How the numbers of a table came about; every table names it.

    metrics: those that have a column; sigma_y: every noise level in the table, on [-1, 1]; images: names of the files
    scored, one per image (not per sample); channels: 1 or 3; y_channel: whether PSNR and SSIM are of the luma;
    prepared: what of them is used, if not all; samples: posterior samples of each. sigma_y is empty where dmps did not
    degrade.
    """

    metrics: tuple[str, ...]
    lpips_net: str
    sigma_y: tuple[float, ...]
    images: tuple[str, ...]
    channels: int = 3
    y_channel: bool = False
    prepared: str = ""
    samples: int = 1

    @property
    def _colour(self) -> str:
        if self.y_channel:
            return "Y of BT.601 (16 to 235)" + (", LPIPS in RGB" if "lpips" in self.metrics else "")
        return "RGB" if self.channels == 3 else "greyscale"

    def as_dict(self) -> dict[str, Any]:
        """Returns what JSON says: the hash in full, sigma_y on both scales."""
        return {
            "metrics": list(self.metrics),
            "lpips_net": self.lpips_net if "lpips" in self.metrics else None,
            "lpips_version": "0.1" if "lpips" in self.metrics else None,
            "colour_space": self._colour,
            "clipped_to": [-1, 1],
            "sigma_y": list(self.sigma_y),
            "sigma_y_255": [sigma * GREY_LEVELS for sigma in self.sigma_y],
            "num_images": len(self.images),
            "samples": self.samples,
            "images_sha256": list_hash(self.images),
            "prepared": self.prepared or None,
        }

    def line(self) -> str:
        """Returns the sentence under a table."""
        measured = ", ".join(METRICS[name].about.format(lpips_net=self.lpips_net) for name in self.metrics)
        noise = f"sigma_y {', '.join(map(both_scales, self.sigma_y))}; " if self.sigma_y else ""
        count = f"{len(self.images)} image" + ("" if len(self.images) == 1 else "s")
        count += f", {self.prepared}" if self.prepared else ""
        count += f", {self.samples} posterior samples of each" if self.samples > 1 else ""
        how = f"{measured}; {self._colour}, clipped to [-1, 1], per image, then averaged" if measured else "not scored"
        return f"{how}; {noise}{count}, list sha256 {list_hash(self.images)[:12]}"
