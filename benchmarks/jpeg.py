"""JPEG files restored from their coefficients, beside the decoded file: the figures of docs/jpeg.md.

    python benchmarks/jpeg.py FOLDER [--limit N] [--qualities 10,30,75] [--forms 4:4:4,4:2:2,4:2:0,grey]

The central 128 x 128 px of the photographs of a folder, saved by Pillow, decoded by Pillow, and restored by the
defaults. `kept`: of the file's coefficients that are not 0, the share that is the same when the result, rounded to 8
bits, is saved anew with the same tables; `off`: the largest difference of any, in steps.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import dmps_cli as dmps
from dmps_cli.files.images import to_uint8
from dmps_cli.files.inputs import pictures_in
from dmps_cli.jobs.jpeg import jpeg_measurement, read_coefficients
from dmps_cli.metrics.scorer import Scorer

SIDE = 128
FORMS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2, "grey": None}


def central(path: Path, mode: str) -> Image.Image:
    """The central square of a photograph."""
    with Image.open(path) as image:
        left, top = (image.width - SIDE) // 2, (image.height - SIDE) // 2
        return image.convert(mode).crop((left, top, left + SIDE, top + SIDE))


def as_tensor(image: Image.Image) -> Tensor:
    """A picture (1, C, H, W) on [-1, 1]."""
    values = torch.from_numpy(np.array(image, dtype=np.float32)).reshape(image.height, image.width, -1)
    return values.movedim(-1, 0)[None] / 127.5 - 1


def saved(image: Image.Image, path: Path, form: str, **options: object) -> Path:
    """Writes it as JPEG."""
    image.save(path, subsampling=-1 if FORMS[form] is None else FORMS[form], **options)
    return path


def returned(source: Path, x: Tensor, form: str) -> tuple[float, float]:
    """(kept, off) of a result."""
    with Image.open(source) as image:
        tables = image.quantization
    pixels = to_uint8(x).squeeze()
    again = saved(Image.fromarray(pixels), source.with_name("again.jpg"), form, qtables=tables)
    first, second = (read_coefficients(path) for path in (source, again))
    kept, off = [], 0.0
    for a, b, steps in zip(first.planes, second.planes, first.layout.steps, strict=True):
        steps_off = ((a - b) / steps).abs().round()
        kept.append((steps_off == 0)[a.abs() > 0])
        off = max(off, float(steps_off.max()))
    return float(torch.cat(kept).double().mean()), off


def main() -> None:
    """Prints a line for each form and quality."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--limit", type=int, default=12)
    parser.add_argument("--qualities", default="10,30,75")
    parser.add_argument("--forms", default=",".join(FORMS))
    parser.add_argument("--dtype", default="bfloat16")
    given = parser.parse_args()
    prior = dmps.load_prior("natural", dtype=given.dtype)
    scorer = Scorer(["psnr", "lpips"])
    pictures = pictures_in(given.folder)[: given.limit]
    print(f"{len(pictures)} photographs; PSNR dB / LPIPS decoded, restored; kept, off", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for form in given.forms.split(","):
            for quality in map(int, given.qualities.split(",")):
                rows = []
                for path in pictures:
                    truth = central(path, "L" if form == "grey" else "RGB")
                    source = saved(truth, Path(folder) / "a.jpg", form, quality=quality)
                    measured, _ = jpeg_measurement(source, 3, "cpu")
                    x = measured.op.picture(dmps.restore(measured, prior)).clamp(-1, 1)
                    data = io.BytesIO(source.read_bytes())
                    pair = [scorer.score(one, as_tensor(truth))[0] for one in (as_tensor(Image.open(data)), x)]
                    rows.append([s[name] for s in pair for name in ("psnr", "lpips")] + [*returned(source, x[0], form)])
                means = [fmean(column) for column in zip(*rows, strict=True)]
                most = max(row[-1] for row in rows)
                print(
                    f"{form:6} {quality:3}  {means[0]:.2f} / {means[1]:.3f}  {means[2]:.2f} / {means[3]:.3f}"
                    f"  {means[4]:.1%}  {most:.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
