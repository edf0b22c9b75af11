"""Photographs to measurements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from dmps_cli.files.atomic import sha256_file
from dmps_cli.files.measurements import OriginalFile, pattern_hash, siblings, write_measurement
from dmps_cli.files.reading import MAX_PICTURE
from dmps_cli.jobs.batch import Batch, OutputOptions, may_write, plan_outputs
from dmps_cli.jobs.noise_values import common_sigma, each_sigma, recorded
from dmps_cli.tasks.chain import slug
from dmps_cli.tasks.geometry import crop_box
from dmps_cli.tasks.plan import OperatorPlan
from dmps_cli.tasks.table import task

if TYPE_CHECKING:
    from dmps_cli.operators.base import LinearOperator


@dataclass(frozen=True, kw_only=True)
class Degraded:
    """A measurement that is written: path, of its picture; facts, what the sidecar beside it says."""

    path: Path
    facts: dict[str, Any]


@dataclass(kw_only=True)
class Degrader:
    """Degrades one picture after another; neighbours of one size share the operator. What fails is the batch's.

    white: as in `images.load`.
    """

    plan: OperatorPlan
    seed: int
    output: OutputOptions
    batch: Batch
    white: float | None = None
    built: tuple[OperatorPlan, LinearOperator] | None = None

    def planned(
        self,
        paths: Sequence[Path],
        read: Sequence[Path] = (),
        check: Callable[[Path], object] = lambda path: None,
    ) -> list[tuple[Path, Path]]:
        """Returns (photograph, picture of its measurement) of all that are to be made.

        read: further files, which must not be replaced. check: raises what is wrong with an output's name. Raises
        UsageError for what is all inputs' alike.
        """

        def written(target: Path) -> list[Path]:
            return [target, *siblings(target)]

        def named(path: PurePath) -> str:
            return f"{path.stem}_{slug(self.plan.task)}.png"

        pairs = plan_outputs(self.batch, paths, named, self.output, written, kept=read, check=check)
        planned = []
        for path, target in pairs:
            with self.batch.item(path):
                if self.may_write(path, target) is not None:
                    planned.append((path, target))
        return planned

    def may_write(self, path: Path, target: Path) -> bool | None:
        """Returns what `batch.may_write` does of a photograph's measurement; asked before work, and after it."""
        plan, sha256 = self.plan, sha256_file(path, limit=MAX_PICTURE)
        made_of: dict[str, Any] = {"source_sha256": sha256, "task": plan.task, "operator": dict(plan.params)}
        if plan.each_sigma is None:
            made_of |= {"sigma_y": plan.sigma_y}
        return may_write(target, siblings(target), made_of | {"seed": self.seed}, self.output, self.batch.listener)

    def degrade(self, path: Path, target: Path) -> Degraded | None:
        """Writes the measurement of a photograph; None where another call has written it meanwhile.

        Raises the DmpsError of what fails.
        """
        from dmps_cli.files.images import cropped, load, load_rgb
        from dmps_cli.pipeline import degrade, picture_key

        note = self.batch.listener.note
        read = load_rgb if task(self.plan.task).needs_colour else load
        image = read(path, white=self.white)
        height, width = image.pixels.shape[-2:]
        crop = crop_box(self.plan.task, self.plan.params, (height, width))
        for text in image.notes:
            note(text)
        x = cropped(image.pixels[None], crop)
        channels, h, w = x.shape[1:]
        if (w, h) != (width, height):
            note(f"{path}: {w} x {h} of {width} x {height} px are used, a multiple of the scale")
        plan, op = self.operator(path, (channels, h, w))
        if op.frame is not None:
            shown = "{2} x {3} px from ({0}, {1})".format(*op.frame)
            note(f"{path}: the measurement shows {shown} of {w} x {h}; the rest is the scene around")
        each = None if plan.each_sigma is None else each_sigma(plan.each_sigma, op)
        y = degrade(x, op, plan.sigma_y if each is None else each, seed=self.seed, keys=[picture_key(x)])
        overwrite = self.may_write(path, target)
        if overwrite is None:
            return None
        sidecar = write_measurement(
            target,
            y[0],
            op.to_image(y)[0],
            overwrite=overwrite,
            mask=plan.mask,
            pattern_sha256=pattern_hash(op.pattern),
            task=plan.task,
            operator=dict(plan.params),
            sigma_y=plan.sigma_y if each is None else common_sigma(each),
            sigma_values=None if each is None else recorded(each),
            seed=self.seed,
            image_shape=(channels, h, w),
            source=OriginalFile(
                file=path.name, sha256=sha256_file(path, limit=MAX_PICTURE), width=width, height=height, crop=crop
            ),
        )
        return Degraded(path=target, facts=sidecar.as_dict())

    def operator(self, path: Path, shape: tuple[int, int, int]) -> tuple[OperatorPlan, LinearOperator]:
        """Returns (plan for that picture, its operator for that shape), built anew only when one of them changes."""
        import torch

        plan = self.plan.of_picture(path)
        if self.built is None or self.built[0].key != plan.key or self.built[1].in_shape != shape:
            op = plan.build(shape, torch.device("cpu"), self.batch.listener)
            for note in plan.mask_notes(op):
                self.batch.listener.note(note)
            self.built = plan, op
        return self.built
