"""Measurements to restorations, in three steps that each take what the one before gives: read, draw, write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli.errors import DmpsError
from dmps_cli.files.atomic import sha256_bytes, write_together
from dmps_cli.files.measurements import RESTORATION_KIND, json_bytes, versions
from dmps_cli.jobs.batch import Batch
from dmps_cli.jobs.measured import Job, Measured, Target, measured
from dmps_cli.listener import Listener, note_missing
from dmps_cli.weights.options import ComputeOptions

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dmps_cli.jobs.fit import Fit
    from dmps_cli.metrics.protocol import Protocol
    from dmps_cli.operators.base import LinearOperator
    from dmps_cli.weights.loading import LoadedPrior

Unit = tuple[Measured, Target]
"""One sample to draw."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A sample of a measurement: its picture (C, H, W), what it took, and how it fits.

    iterations: of conjugate gradients in each step, where solves are iterated; remark: what is unusual of the fit.
    """

    of: Measured
    target: Target
    image: Tensor
    seconds: float
    iterations: list[int] | None
    fit: Fit
    remark: str | None

    def as_dict(self) -> dict[str, Any]:
        """Returns what the sidecar says of it."""
        taken = {"seconds": self.seconds} | ({"iterations": self.iterations} if self.iterations else {})
        return {"fit": self.fit.as_dict() | {"remark": self.remark}, **taken}


@dataclass(frozen=True, kw_only=True)
class Restored:
    """A sample that is written, with its sidecar beside it: facts, what that says."""

    drawn: Drawn
    path: Path
    facts: dict[str, Any]

    @property
    def remark(self) -> str | None:
        """What is unusual of its fit, where no reference says more and nothing said it before."""
        return None if self.drawn.of.truth is not None or self.drawn.of.noise.remark else self.drawn.remark


@dataclass(frozen=True, kw_only=True)
class Restorer:
    """Restores measurements with one prior; what fails is the batch's to remember."""

    prior: LoadedPrior
    compute: ComputeOptions
    device: torch.device
    batch: Batch

    def restored(
        self, jobs: Sequence[Job], scores: Scores | None = None, on_step: Callable[[], None] = lambda: None
    ) -> Iterator[Restored]:
        """Yields every sample of every job, written as soon as it is drawn."""
        return self.written(self.drawn(self.read(jobs), on_step), scores)

    def read(self, jobs: Iterable[Job]) -> Iterator[list[Unit]]:
        """Yields samples of neighbouring measurements that share an operator; what cannot be read fails alone."""
        from dmps_cli.device import micro_batch

        operators: dict[Any, LinearOperator] = {}  # the last one built: neighbours usually share it

        def units() -> Iterator[Unit]:
            for job in jobs:
                with self.batch.item(job.path):
                    ready = measured(job, self.prior, self.device, operators, self.compute.seed, self.batch.listener)
                    yield from ((ready, target) for target in job.targets)

        def shared(unit: Unit) -> object:
            return unit[0].job.plan.key, unit[0].op.in_shape, unit[0].sigma_y

        for _, group in groupby(units(), key=shared):
            while chunk := list(islice(group, micro_batch(self.device, self.compute.batch_size))):
                yield chunk

    def drawn(self, groups: Iterable[Sequence[Unit]], on_step: Callable[[], None]) -> Iterator[Drawn]:
        """Yields the samples, those of a group computed together; a failure is all of theirs."""
        for units in groups:
            try:
                yield from self._drawn(units, on_step)
            except DmpsError as exc:
                for path in dict.fromkeys(of.job.path for of, _ in units):
                    self.batch.fail(str(path), exc)

    def _drawn(self, units: Sequence[Unit], on_step: Callable[[], None]) -> list[Drawn]:
        import torch

        from dmps_cli.device import stopwatch
        from dmps_cli.jobs.fit import fits_of, remark, usual
        from dmps_cli.operators.measurement import Measurement
        from dmps_cli.pipeline import FILE_KEY, restore

        first = units[0][0]
        op, sigma_y, sampling, task = first.op, first.sigma_y, first.sampling, first.job.plan.task
        elapsed = stopwatch(op.device)
        iterations: list[list[int]] = []
        y = torch.cat([of.y for of, _ in units])
        x = restore(
            Measurement(y, op, sigma_y),
            self.prior.prior,
            sampling,
            seed=self.compute.seed,
            keys=[(FILE_KEY[0], target.sample) for _, target in units],
            on_step=on_step,
            on_iterations=iterations.extend,
        )
        seconds = elapsed() / len(units)
        fits = fits_of(y, op, x, sigma_y, is_clipped=self.prior.prior.clips_x0)
        known = usual(sampling, task, self.prior.name)
        return [
            Drawn(
                of=of,
                target=target,
                image=with_kept(op.picture(x[k]), of),
                seconds=seconds,
                iterations=iterations[k] if iterations else None,
                fit=fits[k],
                remark=of.noise.remark or remark(fits[k], known, sigma_y, task),
            )
            for k, (of, target) in enumerate(units)
        ]

    def written(self, samples: Iterable[Drawn], scores: Scores | None) -> Iterator[Restored]:
        """Yields each sample once its sidecar and picture are written.

        It is scored where there is a reference, and written even where it cannot be.
        """
        for sample in samples:
            metrics: dict[str, float] = {}
            with self.batch.item(sample.of.job.path):
                metrics = scores.of(sample, self.batch.listener) if scores else metrics
            with self.batch.item(sample.of.job.path):
                yield self._written(sample, metrics)

    def _written(self, sample: Drawn, metrics: dict[str, float]) -> Restored:
        from dmps_cli.files.images import encode

        target = sample.target
        encoded = encode(sample.image, target.path)
        shown = {"picture": target.path.name, "picture_sha256": sha256_bytes(encoded)}
        facts = self.facts(sample) | shown | metrics
        contents = {target.path.with_suffix(".json"): json_bytes(facts), target.path: encoded}
        write_together(contents, overwrite=target.overwrite)
        return Restored(drawn=sample, path=target.path, facts=facts)

    def facts(self, sample: Drawn) -> dict[str, Any]:
        """Returns everything that made a restoration."""
        of, job = sample.of, sample.of.job
        return {
            "kind": RESTORATION_KIND,
            "input": str(job.path),
            "input_sha256": job.sha256,
            "task": job.plan.task,
            "operator": dict(job.plan.params),
            "channels": of.op.in_shape[0],
            **of.noise.as_dict(),
            **of.sampling.as_dict(),
            "seed": self.compute.seed,
            "sample": sample.target.sample,
            "model": self.prior.name,
            "model_sha256": self.prior.sha256,
            "dtype": self.prior.dtype,
            "device": str(of.op.device),
            **sample.as_dict(),
            "versions": versions(),
        }


def with_kept(image: Tensor, of: Measured) -> Tensor:
    """Returns the restoration (C, H, W), its kept pixels those of the picture where they have no noise."""
    if of.kept is None:
        return image
    import torch

    picture, keep = of.kept
    return torch.where(keep, picture[0], image)


class Scores:
    """Metrics against the references, gathered into one table."""

    def __init__(self, lpips_net: str, listener: Listener) -> None:
        from dmps_cli.metrics.scorer import Scorer

        self.scorer = Scorer(lpips_net=lpips_net)
        self.rows: list[dict[str, Any]] = []
        self.sigmas: set[float] = set()
        self.channels = 3
        self.images: dict[str, None] = {}  # by input: samples of one are one image
        note_missing(listener, self.scorer.missing)

    def of(self, sample: Drawn, listener: Listener) -> dict[str, float]:
        """Returns the metrics of a sample; none without a reference."""
        truth, path = sample.of.truth, sample.of.job.path
        if truth is None:
            return {}
        scores = self.scorer.score(sample.image[None], truth.to(sample.image))[0]
        if absent := [name for name in self.scorer.names if name not in scores]:
            listener.note(f"{path}: too small for {', '.join(absent)}; left out")
        self.channels = truth.shape[1]
        self.sigmas.add(sample.of.sigma_y)
        self.images[path.name] = None
        self.rows.append({"image": sample.target.path.name, **scores})
        return scores

    @property
    def protocol(self) -> Protocol:
        """How the numbers came about."""
        return self.scorer.protocol(self.rows, self.sigmas, self.images, self.channels)
