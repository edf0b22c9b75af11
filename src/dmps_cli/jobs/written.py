"""How the result of a measurement becomes a file: depth, opacity and metadata of the input, as far as they are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from dmps_cli.files.encoding import Written, lost
from dmps_cli.files.suffixes import can_be_deep
from dmps_cli.jobs.batch import Batch
from dmps_cli.jobs.measured import Measured


def how_written(of: Measured, path: Path, batch: Batch) -> Written:
    """Returns how a result is written to a path; says, once in a batch, what is left out."""
    asked, read = of.job.writing, of.read
    if read.metadata is not None and not asked.keeps_metadata and (names := " and ".join(read.metadata.named())):
        batch.note_once("metadata", f"{of.job.path}: its {names} will not be in the result; --metadata keep carries it")
    how = Written(
        alpha=None if read.alpha is None else enlarged(read.alpha, of.op.picture_size),
        bits=asked.bit_depth or read.bits,
        quality=asked.quality,
        metadata=read.metadata if asked.keeps_metadata else None,
    )
    for text in lost(how, path):
        batch.note_once(text, f"{path}: {text}")
    return replace(how, bits=how.bits if can_be_deep(path) else 8)


def enlarged(alpha: Tensor, size: tuple[int, int]) -> Tensor:
    """Returns opacity (h, w) of 0 to 1 at another size, (H, W), by Lanczos's kernel (Pillow's, 3 lobes)."""
    if tuple(alpha.shape) == size:
        return alpha
    import numpy as np
    from PIL import Image

    image = Image.fromarray(alpha.numpy().astype(np.float32)).resize(size[::-1], Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).clamp(0.0, 1.0)
