"""`dmps degrade`: photographs in, measurements out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from dmps_cli import __version__
from dmps_cli.cli.batch import Batch, may_write, open_batch, plan_outputs
from dmps_cli.cli.guide import typed
from dmps_cli.cli.operators import OperatorPlan, check_mask
from dmps_cli.cli.options import (
    Inputs,
    OutputFlags,
    Seed,
    Sigma,
    TaskName,
    check_seed,
    checked_sigma,
    checked_task,
    command_options,
)
from dmps_cli.errors import UsageError
from dmps_cli.files import sha256_file
from dmps_cli.measurements import KIND, RESTORATION_KIND, Source, pattern_hash, siblings, write_measurement
from dmps_cli.tasks import ALPHA_MASK, TASKS, OperatorOptions, crop_box, resolve

if TYPE_CHECKING:
    from dmps_cli.operators.base import LinearOperator


@command_options
def degrade(
    inputs: Inputs,
    operator: OperatorOptions,
    output: OutputFlags,
    task: TaskName = None,
    sigma: Sigma = None,
    seed: Seed = 0,
) -> None:
    """Degrade photographs: y = A x + n.

    The noise of a picture follows from --seed and its pixels: other pictures get other noise.

    Writes a picture to look at (.png), the exact measurement in float32 (.npy) and a sidecar (.json) that says what was
    done, from which `dmps restore` goes on. Without --operator-seed, random masks and the rows of cs follow --seed.

    Example: dmps degrade photo.jpg --task sr4 --sigma 0.05 --seed 0 -o y.png
    """
    if checked_task(task, typed("degrade", inputs)) is None:
        raise UsageError(f"name a --task: {', '.join(TASKS)}")
    check_seed(seed)
    plan = make_plan(task, operator, checked_sigma(sigma), seed, own_alpha=True)  # type: ignore[arg-type]
    batch, paths = open_batch(inputs, output.console(), left_out=[KIND, RESTORATION_KIND])
    planned = plan_outputs(
        batch, paths, f"_{task}", output, lambda name: [name, *siblings(name)], kept=operator.files()
    )
    jobs = []
    for path, target in planned:
        with batch.item(path):
            facts = {"task": plan.task, "operator": dict(plan.params), "sigma_y": plan.sigma_y, "seed": seed}
            made_of = {"source_sha256": sha256_file(path), **facts}
            overwrite = may_write(target, siblings(target), made_of, output, batch.console)
            if overwrite is not None:
                jobs.append((path, target, overwrite))
    if jobs:
        batch.console.note(plan.describe())
        worker = Worker(plan=plan, seed=seed, batch=batch)
        with batch.console.progress(len(jobs), "pictures") as (advance, say):
            for path, target, overwrite in jobs:
                say(path.name)
                with batch.item(path):
                    worker.degrade(path, target, overwrite=overwrite)
                advance()
    batch.finish({"version": __version__, "command": "degrade", "seed": seed})


def make_plan(
    task: str, options: OperatorOptions, sigma: float | None, seed: int, *, own_alpha: bool = False
) -> OperatorPlan:
    """The complete parameters; a random pattern follows the seed unless it has its own.

    own_alpha: whether each picture may bring its mask. Raises UsageError for a wrong option, InputError for a missing
    mask.
    """
    params = resolve(task, options)
    if params.get("operator_seed") is not None and options.operator_seed is None:
        params["operator_seed"] = seed
    check_mask(params)
    if params.get("mask") == ALPHA_MASK and not own_alpha:
        raise UsageError(f"--mask {ALPHA_MASK} is each picture's own; name a mask's file here")
    return OperatorPlan(task=task, params=params, sigma_y=TASKS[task].sigma_y if sigma is None else sigma)


@dataclass(kw_only=True)
class Worker:
    """Degrades one picture after another; neighbours of one size share the operator."""

    plan: OperatorPlan
    seed: int
    batch: Batch
    built: tuple[OperatorPlan, LinearOperator] | None = None

    def degrade(self, path: Path, target: Path, *, overwrite: bool) -> None:
        """Writes the measurement of a picture and prints its path."""
        from dmps_cli.images import cropped, load, load_rgb
        from dmps_cli.pipeline import degrade, picture_key

        image = load_rgb(path) if TASKS[self.plan.task].needs_colour else load(path)
        height, width = image.pixels.shape[-2:]
        crop = crop_box(self.plan.params, (height, width))
        for note in image.notes:
            self.batch.console.note(note)
        x = cropped(image.pixels[None], crop)
        channels, h, w = x.shape[1:]
        if (w, h) != (width, height):
            self.batch.console.note(f"{path}: {w} x {h} of {width} x {height} px are used, a multiple of the scale")
        plan, op = self.operator(path, (channels, h, w))
        if op.frame is not None:
            shown = "{2} x {3} px from ({0}, {1})".format(*op.frame)
            self.batch.console.note(f"{path}: the measurement shows {shown} of {w} x {h}; the rest is the scene around")
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
            source=Source(file=path.name, sha256=sha256_file(path), width=width, height=height, crop=crop),
        )
        self.batch.results.append({"input": str(path), "output": str(target), **sidecar.as_dict()})
        self.batch.console.path(target)

    def operator(self, path: Path, shape: tuple[int, int, int]) -> tuple[OperatorPlan, LinearOperator]:
        """(the plan for that picture, its operator for that shape), built anew only when one of them changes."""
        import torch

        plan = self.plan.of_picture(path)
        if self.built is None or self.built[0].key != plan.key or self.built[1].in_shape != shape:
            op = plan.build(shape, torch.device("cpu"))
            for note in plan.mask_notes:
                self.batch.console.note(note)
            self.built = plan, op
        return self.built
