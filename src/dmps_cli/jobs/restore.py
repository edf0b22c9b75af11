"""Measurements to restorations, in three steps that each take what the one before gives: read, draw, write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli.errors import DmpsError
from dmps_cli.files.atomic import sha256_bytes, write_together
from dmps_cli.files.measurements import RESTORATION_KIND, json_bytes, versions
from dmps_cli.jobs.batch import Batch
from dmps_cli.jobs.measured import Measured, Reader
from dmps_cli.jobs.request import Job, may_write_sample
from dmps_cli.listener import Listener, note_missing
from dmps_cli.tasks.table import task as task_row
from dmps_cli.weights.options import ComputeOptions

if TYPE_CHECKING:
    from torch import Tensor

    from dmps_cli.jobs.fit import Fit
    from dmps_cli.metrics.protocol import Protocol
    from dmps_cli.weights.loading import LoadedPrior

Draw = tuple[Measured, int]
"""A measurement, and the number of the sample to draw of it."""


@dataclass(frozen=True, kw_only=True)
class Restored:
    """A sample: its picture (C, H, W) on [-1, 1], and its facts, what the sidecar beside the written one says."""

    of: Measured
    sample: int
    image: Tensor
    facts: dict[str, Any]

    @property
    def path(self) -> Path:
        """Where it is written."""
        return self.of.job.targets[self.sample]

    @property
    def remark(self) -> str | None:
        """What is unusual of its fit, where no reference says more and nothing said it before."""
        if self.of.truth is not None or self.of.noise.remark:
            return None
        found: str | None = self.facts["fit"]["remark"]
        return found


@dataclass(frozen=True, kw_only=True)
class Restorer:
    """Restores measurements with one prior; what fails is the batch's to remember."""

    prior: LoadedPrior
    compute: ComputeOptions
    batch: Batch

    def restored(
        self, jobs: Sequence[Job], scores: Scores | None = None, on_step: Callable[[], None] = lambda: None
    ) -> Iterator[Restored]:
        """Yields every sample of every job, written as soon as it is drawn."""
        return self.written(self.drawn(self.read(jobs), on_step), scores)

    def read(self, jobs: Iterable[Job]) -> Iterator[list[Draw]]:
        """Yields samples of neighbouring measurements that share an operator; what cannot be read fails alone."""
        from dmps_cli.device import micro_batch

        reader = Reader(prior=self.prior, seed=self.compute.seed, listener=self.batch.listener)

        def draws() -> Iterator[Draw]:
            for job in jobs:
                with self.batch.item(job.path):
                    measured = reader.measured(job)
                    yield from ((measured, sample) for sample in job.targets)

        for _, group in groupby(draws(), key=lambda draw: draw[0].kind):
            while chunk := list(islice(group, micro_batch(self.prior.device, self.compute.batch_size))):
                yield chunk

    def drawn(self, groups: Iterable[Sequence[Draw]], on_step: Callable[[], None]) -> Iterator[Restored]:
        """Yields the samples, those of a group computed together; a failure is all of theirs."""
        for draws in groups:
            try:
                yield from self._drawn(draws, on_step)
            except DmpsError as exc:
                for path in dict.fromkeys(of.job.path for of, _ in draws):
                    self.batch.fail(str(path), exc)

    def _drawn(self, draws: Sequence[Draw], on_step: Callable[[], None]) -> list[Restored]:
        import torch

        from dmps_cli.device import stopwatch
        from dmps_cli.jobs.fit import fits_of
        from dmps_cli.operators.measurement import Measurement
        from dmps_cli.pipeline import FILE_KEY, by_strips, forecast, restore

        first = draws[0][0]
        op, sigma_y, sampling = first.op, first.noise.sigma_y, first.job.sampling
        if by_strips(op.in_shape, sampling):
            self.batch.listener.note(
                f"{first.job.path}: {forecast(self.prior.prior, op.in_shape, sampling, op.device)}"
            )
        elapsed = stopwatch(op.device)
        iterations: list[list[int]] = []
        y = torch.cat([of.y for of, _ in draws])
        measurement = Measurement(y, op, sigma_y if first.noise.each is None else first.noise.each).whitened()
        x = restore(
            measurement,
            self.prior.prior,
            sampling,
            seed=self.compute.seed,
            keys=[(FILE_KEY[0], sample) for _, sample in draws],
            on_step=on_step,
            on_iterations=iterations.extend,
        )
        seconds = elapsed() / len(draws)
        fits = fits_of(measurement.y, measurement.op, x.to(op.device), sigma_y, is_clipped=self.prior.clips_x0)
        restored = []
        for k, (of, sample) in enumerate(draws):
            said = of.noise.remark or self.remark(of, fits[k])
            taken = {"seconds": seconds} | ({"iterations": iterations[k]} if iterations else {})
            facts = self.facts(of, sample, {"fit": fits[k].as_dict() | {"remark": said}, **taken})
            restored.append(Restored(of=of, sample=sample, image=of.finished(x[k]), facts=facts))
        return restored

    def remark(self, of: Measured, fit: Fit) -> str | None:
        """Returns what is unusual of a fit; of a blur, beside a soft sample of its picture."""
        from dmps_cli.jobs.fit import OVER, remark, usual
        from dmps_cli.jobs.noise import trial_part
        from dmps_cli.jobs.raised_sigma import own_excess

        name, sigma_y, own = of.job.plan.task, of.noise.sigma_y, None
        known = usual(of.job.sampling, name, self.prior.name)
        is_asked = of.truth is None and known is not None and task_row(name).kernel is not None
        if is_asked and fit.excess is not None and fit.excess > OVER:
            part = trial_part(of.y, of.job.plan, of.op.device)
            own = own_excess(part, self.prior.prior, name, seed=self.compute.seed)
        return remark(fit, known, sigma_y, name, is_bound=of.noise.is_bound, own=own)

    def facts(self, of: Measured, sample: int, found: Mapping[str, Any]) -> dict[str, Any]:
        """Returns everything that a restoration is made of, and what was found of it."""
        job = of.job
        return {
            "kind": RESTORATION_KIND,
            "input": str(job.path),
            "input_sha256": job.sha256,
            "task": job.plan.task,
            "operator": dict(job.plan.params),
            "channels": of.op.in_shape[0],
            **job.reading.given(),
            **of.noise.as_dict(),
            **job.sampling.as_dict(),
            "seed": self.compute.seed,
            "sample": sample,
            "model": self.prior.name,
            "model_sha256": self.prior.sha256,
            "dtype": self.prior.dtype,
            "device": str(of.op.device),
            **found,
            "versions": versions(),
        }

    def written(self, samples: Iterable[Restored], scores: Scores | None) -> Iterator[Restored]:
        """Yields each sample once its sidecar and picture are written, what the sidecar says completed.

        It is scored where there is a reference, and written even where it cannot be.
        """
        for sample in samples:
            metrics: dict[str, float] = {}
            with self.batch.item(sample.of.job.path):
                metrics = scores.of(sample, self.batch.listener) if scores else metrics
            with self.batch.item(sample.of.job.path):
                if written := self._written(sample, metrics):
                    yield written

    def _written(self, sample: Restored, metrics: dict[str, float]) -> Restored | None:
        """Returns what is written; None where another call has written that sample meanwhile."""
        from dmps_cli.files.encoding import encode
        from dmps_cli.jobs.written import how_written

        job, path = sample.of.job, sample.path
        overwrite = may_write_sample(path, sample.sample, job.sha256, job.output, self.batch.listener)
        if overwrite is None:
            return None
        how = how_written(sample.of, path, self.batch)
        encoded = encode(sample.image, path, how)
        facts = sample.facts | {"picture": path.name, "picture_sha256": sha256_bytes(encoded), "bits": how.bits}
        facts |= metrics
        write_together({path.with_suffix(".json"): json_bytes(facts), path: encoded}, overwrite=overwrite)
        return replace(sample, facts=facts)


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

    def of(self, sample: Restored, listener: Listener) -> dict[str, float]:
        """Returns the metrics of a sample; none without a reference."""
        truth, path = sample.of.truth, sample.of.job.path
        if truth is None:
            return {}
        scores = self.scorer.score(sample.image[None], truth.to(sample.image))[0]
        if absent := [name for name in self.scorer.names if name not in scores]:
            listener.note(f"{path}: too small for {', '.join(absent)}; left out")
        self.channels = truth.shape[1]
        self.sigmas.add(sample.of.noise.sigma_y)
        self.images[path.name] = None
        self.rows.append({"image": sample.path.name, **scores})
        return scores

    @property
    def protocol(self) -> Protocol:
        """How the numbers came about."""
        return self.scorer.protocol(self.rows, self.sigmas, self.images, self.channels)
