"""Photographs to measurements."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli.files.atomic import sha256_file
from dmps_cli.files.measurements import OriginalFile, pattern_hash, write_measurement
from dmps_cli.files.reading import MAX_PICTURE
from dmps_cli.listener import SILENT, Listener
from dmps_cli.tasks.plan import OperatorPlan
from dmps_cli.tasks.table import TASKS, crop_box

if TYPE_CHECKING:
    from dmps_cli.operators.base import LinearOperator


@dataclass(kw_only=True)
class Degrader:
    """Degrades one picture after another; neighbours of one size share the operator."""

    plan: OperatorPlan
    seed: int
    listener: Listener = SILENT
    built: tuple[OperatorPlan, LinearOperator] | None = None

    def degrade(self, path: Path, target: Path, *, overwrite: bool) -> dict[str, Any]:
        """Writes the measurement of a picture; what its sidecar says."""
        from dmps_cli.files.images import cropped, load, load_rgb
        from dmps_cli.pipeline import degrade, picture_key

        image = load_rgb(path) if TASKS[self.plan.task].needs_colour else load(path)
        height, width = image.pixels.shape[-2:]
        crop = crop_box(self.plan.params, (height, width))
        for note in image.notes:
            self.listener.note(note)
        x = cropped(image.pixels[None], crop)
        channels, h, w = x.shape[1:]
        if (w, h) != (width, height):
            self.listener.note(f"{path}: {w} x {h} of {width} x {height} px are used, a multiple of the scale")
        plan, op = self.operator(path, (channels, h, w))
        if op.frame is not None:
            shown = "{2} x {3} px from ({0}, {1})".format(*op.frame)
            self.listener.note(f"{path}: the measurement shows {shown} of {w} x {h}; the rest is the scene around")
        y = degrade(x, op, self.plan.sigma_y, seed=self.seed, keys=[picture_key(x)])
        sidecar = write_measurement(
            target,
            y[0],
            op.to_image(y)[0],
            overwrite=overwrite,
            mask=plan.mask,
            pattern_sha256=pattern_hash(op.pattern),
            task=self.plan.task,
            operator=dict(self.plan.params),
            sigma_y=self.plan.sigma_y,
            seed=self.seed,
            image_shape=(channels, h, w),
            source=OriginalFile(
                file=path.name, sha256=sha256_file(path, limit=MAX_PICTURE), width=width, height=height, crop=crop
            ),
        )
        return {"input": str(path), "output": str(target), **sidecar.as_dict()}

    def operator(self, path: Path, shape: tuple[int, int, int]) -> tuple[OperatorPlan, LinearOperator]:
        """Returns (plan for that picture, its operator for that shape), built anew only when one of them changes."""
        import torch

        plan = self.plan.of_picture(path)
        if self.built is None or self.built[0].key != plan.key or self.built[1].in_shape != shape:
            op = plan.build(shape, torch.device("cpu"))
            for note in plan.mask_notes(op):
                self.listener.note(note)
            self.built = plan, op
        return self.built
