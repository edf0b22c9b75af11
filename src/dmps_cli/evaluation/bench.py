"""What `time` measures: trials, memory in processes of their own, rows."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dmps_cli.errors import UsageError
from dmps_cli.files import measurements
from dmps_cli.listener import SILENT, Listener
from dmps_cli.methods.choice import Sampling, resolve_sampling
from dmps_cli.methods.defaults import DEFAULT_METHOD
from dmps_cli.methods.table import family
from dmps_cli.tasks.geometry import factor, scene_shape
from dmps_cli.tasks.rows import Params
from dmps_cli.weights.options import ComputeOptions

if TYPE_CHECKING:
    import torch

    from dmps_cli.evaluation.timing import Timing, Trial
    from dmps_cli.report.tables import TableRow
    from dmps_cli.tasks.plan import OperatorPlan
    from dmps_cli.weights.loading import LoadedPrior


MAX_PIXELS = 2**28
PARTS = ("network", "backward", "likelihood", "rest")


class Bench:
    """What is timed on, the methods apart: it can be sent to another process, and be loaded there."""

    def __init__(
        self, compute: ComputeOptions, plan: OperatorPlan, size: tuple[int, int], random_weights: bool = False
    ) -> None:
        self.compute, self.plan, self.size, self.random_weights = compute, plan, size, random_weights

    @property
    def size_text(self) -> str:
        """'256x256', height first."""
        return f"{self.size[0]}x{self.size[1]}"

    def load(self, device: torch.device, listener: Listener) -> LoadedPrior:
        """Returns the prior, of its file or with random weights."""
        if not self.random_weights:
            return self.compute.load(device, listener)
        from dmps_cli.device import micro_batch
        from dmps_cli.weights.loading import random_prior

        batch = micro_batch(device, self.compute.batch_size)
        override = self.compute.weights_file
        return random_prior(self.compute.model, device, self.compute.dtype, override=override, batch=batch)

    def trials(
        self,
        prior: LoadedPrior,
        device: torch.device,
        choices: Sequence[tuple[Sampling, bool]],
        listener: Listener = SILENT,
    ) -> list[Trial]:
        """Returns a trial per (choice, whether it is to be unconditional), all on one measurement of a grey picture."""
        import torch

        from dmps_cli.evaluation.timing import Trial
        from dmps_cli.operators.measurement import Measurement
        from dmps_cli.pipeline import FILE_KEY, degrade

        scene = scene_shape(self.plan.task, self.plan.params, self.size, prior.prior.channels)
        op = self.plan.build(scene, device, listener)
        x = torch.zeros((self.compute.batch_size, *op.in_shape), device=device)
        y = degrade(x, op, self.plan.sigma_y, seed=self.compute.seed, keys=[FILE_KEY] * len(x))
        measurement = Measurement(y, op, self.plan.sigma_y)
        return [
            Trial(measurement=measurement, prior=prior.prior, sampling=choice, unconditional=without)
            for choice, without in choices
        ]

    def memory_in_child(self, trial: Trial) -> float | None:
        """Returns `memory_of` the trial in a fresh process.

        None where the system does not say, or ended the process.
        """
        import pickle
        import subprocess
        import sys

        # not multiprocessing: its child would run the command's own script again where that has no guard
        code = "from dmps_cli.evaluation.bench import answer_memory; answer_memory()"
        content = pickle.dumps((self, (trial.sampling, trial.unconditional)))
        done = subprocess.run([sys.executable, "-c", code], input=content, capture_output=True, check=False)
        return pickle.loads(done.stdout) if done.returncode == 0 else None  # our own process's answer


def answer_memory() -> None:
    """Serves as the child process of `Bench.memory_in_child`: reads stdin, writes the answer to stdout."""
    import pickle
    import sys

    sys.stdout.buffer.write(pickle.dumps(child_memory(*pickle.load(sys.stdin.buffer))))


def child_memory(bench: Bench, choice: tuple[Sampling, bool]) -> float | None:
    """Returns what a child process of `Bench.memory_in_child` does."""
    from dmps_cli.evaluation.timing import memory_of

    device = bench.compute.start()
    (trial,) = bench.trials(bench.load(device, SILENT), device, [choice])
    return memory_of(trial)


def with_baselines(samplings: Sequence[Sampling]) -> list[tuple[Sampling, bool]]:
    """Returns (sampling, whether unconditional): the prior alone once per kind of levels, then the methods."""
    levels = dict.fromkeys((choice.sampler, choice.nfe, choice.spacing) for choice in samplings)
    alone = [
        resolve_sampling(method=DEFAULT_METHOD, sampler=sampler, nfe=nfe, spacing=spacing)
        for sampler, nfe, spacing in levels
    ]
    return [*((choice, True) for choice in alone), *((choice, False) for choice in samplings)]


def timing_rows(trials: Sequence[Trial], timings: Sequence[Timing]) -> list[dict[str, Any]]:
    """Returns a row per trial: seconds per image of the median run, their parts, spread, calls.

    ratio: of the seconds to those of dmps at the same levels.
    """
    reference = {
        (trial.sampling.sampler, trial.sampling.nfe): timing.median.seconds
        for trial, timing in zip(trials, timings, strict=True)
        if family(trial.name) == DEFAULT_METHOD
    }
    rows = []
    for trial, timing in zip(trials, timings, strict=True):
        choice, run = trial.sampling, timing.median
        dmps = reference.get((choice.sampler, choice.nfe))
        levels = {"method": trial.name, "sampler": choice.sampler, "nfe": choice.nfe, "spacing": choice.spacing}
        rows.append(
            {
                **levels,
                **({} if trial.unconditional else choice.labelled()),
                "seconds": run.seconds,
                "spread": timing.spread if len(timing.runs) > 1 else None,
                "ratio": None if dmps is None else run.seconds / dmps,
                **{part: getattr(run, part) for part in PARTS},
                "calls": run.calls,
            }
        )
    return rows


def versions(device: torch.device) -> dict[str, Any]:
    """Returns what a time depends on beside the device's name."""
    import torch

    known = measurements.versions()
    return {
        "device": str(device),
        "threads": torch.get_num_threads(),
        "python": known["python"],
        "torch": known["torch"],
        "machine": platform.platform(),
    }


def parse_size(text: str, params: Params) -> tuple[int, int]:
    """Returns (H, W) px of 'N' or 'HxW', sides that the task can have. Raises UsageError."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part[:9]) > 0 for part in parts):
        raise UsageError(f"--image-size is '{text}'; expected N or HxW in px, as 256 or 512x384")
    height, width = int(parts[0]), int(parts[-1])
    if height * width > MAX_PIXELS:
        raise UsageError(f"--image-size is '{text}'; expected at most {MAX_PIXELS} pixels")
    if height % factor(params) or width % factor(params):
        raise UsageError(f"--image-size is '{text}'; expected multiples of the scale {factor(params)}")
    return height, width


def shares(row: TableRow) -> dict[str, Any]:
    """Returns a row's columns for people: parts as shares of the time; knobs, which notes and --json have, left out."""
    seconds = row["seconds"]
    assert isinstance(seconds, float)
    shares = {f"{part} %": 100 * value / seconds for part in PARTS if isinstance(value := row[part], float)}
    texts = {name: f"{share:.1f}" for name, share in shares.items()}
    first = {name: row[name] for name in ("method", "sampler", "nfe", "size", "seconds", "spread", "ratio")}
    memory = {"peak MiB": row["peak_mib"]} if "peak_mib" in row else {}
    return {**first, **{name: float(text) for name, text in texts.items()}, "calls": row["calls"], **memory}
