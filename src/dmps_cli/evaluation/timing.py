"""How long a restoration takes, where the time goes, and how much memory it needs above the loaded prior."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from dmps_cli.device import return_freed_memory, stopwatch
from dmps_cli.levels import Level
from dmps_cli.methods.choice import Sampling
from dmps_cli.methods.posterior import Posterior
from dmps_cli.operators.measurement import Measurement
from dmps_cli.pipeline import FILE_KEY, restore
from dmps_cli.priors import Prior
from dmps_cli.sampling import Denoiser, Fresh

T = TypeVar("T")
UNCONDITIONAL = "unconditional"
FEW = 2  # evaluations: enough to warm up, and to reach the peak of memory


# --- Stopwatches around the prior and the method
class TimedPrior(Prior):
    """A prior that counts its calls, the seconds spent in them and those of the way back through them."""

    def __init__(self, prior: Prior, device: torch.device) -> None:
        self.inner, self.device = prior, device
        self.channels, self.least_size, self.multiple = prior.channels, prior.least_size, prior.multiple
        self.calls, self.seconds, self.backward = 0, 0.0, 0.0

    def peak_bytes(self, height: int, width: int) -> float | None:
        """Returns that of the prior inside."""
        return self.inner.peak_bytes(height, width)

    def levels(self, sampler: str, nfe: int, spacing: str = "uniform", start: float | None = None) -> list[Level]:
        """Returns those of the prior inside."""
        return self.inner.levels(sampler, nfe, spacing, start)

    def predict(self, x_t: Tensor, cur: Level, nxt: Level) -> tuple[Tensor, Tensor | None]:
        """Returns the prediction of the prior inside, timed."""
        elapsed = stopwatch(self.device)
        prediction = self.inner.predict(x_t, cur, nxt)
        self.seconds += elapsed()
        self.calls += 1
        if prediction[0].requires_grad and x_t.requires_grad:
            self._time_backward(x_t, prediction[0])
        return prediction

    def _time_backward(self, x_t: Tensor, x0: Tensor) -> None:
        """Starts a clock when a gradient reaches x0, and reads it when it has come down to x_t."""
        running: list[Callable[[], float]] = []

        def begin(gradient: Tensor) -> None:
            running.append(stopwatch(self.device))

        def end(gradient: Tensor) -> None:
            self.backward += running.pop()()

        x0.register_hook(begin)  # type: ignore[no-untyped-call]
        x_t.register_hook(end)  # type: ignore[no-untyped-call]


class TimedPosterior(Posterior):
    """A method with the seconds spent in it, those of its prior among them."""

    def __init__(self, inner: Posterior, device: torch.device) -> None:
        super().__init__(inner.prior, inner.measurement)
        self.inner, self.device, self.seconds = inner, device, 0.0
        self.draws_on_ode = inner.draws_on_ode

    def _timed(self, call: Callable[[], T]) -> T:
        elapsed = stopwatch(self.device)
        result = call()
        self.seconds += elapsed()
        return result

    def start(self, z: Tensor, level: Level) -> Tensor:
        """Returns that of the method inside, timed."""
        return self._timed(lambda: self.inner.start(z, level))

    def predict(self, x_t: Tensor, cur: Level, nxt: Level) -> tuple[Tensor, Tensor | None]:
        """Returns that of the method inside, timed."""
        return self._timed(lambda: self.inner.predict(x_t, cur, nxt))

    def step(self, x_t: Tensor, cur: Level, nxt: Level, eta: float, fresh: Fresh) -> Tensor:
        """Returns that of the method inside, timed where it is its own; the sampler's step counts as none of it."""
        if type(self.inner).step is Denoiser.step:
            return super().step(x_t, cur, nxt, eta, fresh)
        return self._timed(lambda: self.inner.step(x_t, cur, nxt, eta, fresh))


class Unconditional(Posterior):
    """The prior's own sampler, which does not look at the measurement: what any method costs at least."""

    def predict(self, x_t: Tensor, cur: Level, nxt: Level) -> tuple[Tensor, Tensor | None]:
        """Returns the prior's."""
        return self.prior.predict(x_t, cur, nxt)


# --- Time
@dataclass(frozen=True, kw_only=True)
class Trial:
    """What is measured: restorations of the batch, or, unconditional, samples of the prior at the same levels."""

    measurement: Measurement
    prior: Prior
    sampling: Sampling
    unconditional: bool = False

    @property
    def name(self) -> str:
        """The method's."""
        return UNCONDITIONAL if self.unconditional else self.sampling.method

    def run(self, seed: int = 0) -> TrialTimes:
        """Restores the batch once, timed. No files are touched."""
        timed, watched = TimedPrior(self.prior, self.measurement.op.device), list[TimedPosterior]()

        def instrument(method: Posterior) -> Posterior:
            if self.unconditional:
                method = Unconditional(method.prior, method.measurement)
            watched.append(TimedPosterior(method, self.measurement.op.device))
            return watched[-1]

        count = len(self.measurement.y)
        elapsed = stopwatch(self.measurement.op.device)
        restore(
            self.measurement,
            timed,
            self.sampling,
            seed=seed,
            keys=[FILE_KEY] * count,
            instrument=instrument,
        )
        total = elapsed()
        inside = sum(method.seconds for method in watched)
        return TrialTimes(
            seconds=total / count,
            network=timed.seconds / count,
            backward=timed.backward / count,
            likelihood=(inside - timed.seconds - timed.backward) / count,
            calls=timed.calls // len(watched),
        )


@dataclass(frozen=True, kw_only=True)
class TrialTimes:
    """Seconds per image, and what they were spent on; calls: network evaluations per image.

    network: the calls; backward: the way back through them; likelihood: what else the method did.
    """

    seconds: float
    network: float
    backward: float
    likelihood: float
    calls: int

    @property
    def rest(self) -> float:
        """Steps of the prior's sampler, noise, the setting up."""
        return self.seconds - self.network - self.backward - self.likelihood


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The runs of a trial."""

    runs: Sequence[TrialTimes]

    @property
    def median(self) -> TrialTimes:
        """The run of median time (of an even number, the faster one in the middle): its parts add up."""
        return sorted(self.runs, key=lambda run: run.seconds)[(len(self.runs) - 1) // 2]

    @property
    def spread(self) -> float:
        """Largest minus smallest seconds per image."""
        seconds = [run.seconds for run in self.runs]
        return max(seconds) - min(seconds)


def time_trials(
    trials: Sequence[Trial], repeats: int, on_run: Callable[[Trial], None] = lambda trial: None
) -> list[Timing]:
    """Times every trial `repeats` times, after a short uncounted run of each; on_run is called before each run.

    In rounds over the trials, so that a machine that slows down slows them all. Several trials' ratios are then those
    of the methods.
    """
    for trial in trials:
        on_run(trial)
        _few(trial).run()
    runs: list[list[TrialTimes]] = [[] for _ in trials]
    for repeat in range(repeats):
        for trial, found in zip(trials, runs, strict=True):
            on_run(trial)
            found.append(trial.run(seed=repeat))
    return [Timing(runs=found) for found in runs]


def _few(trial: Trial) -> Trial:
    return replace(trial, sampling=replace(trial.sampling, nfe=min(FEW, trial.sampling.nfe)))


# --- Memory
def memory_of(trial: Trial) -> float | None:
    """Returns the peak memory of a run above what is in use before it, MiB; None where the system does not say.

    CUDA: of torch's allocator. CPU (Linux): of the process's resident pages, the allocator told to keep nothing that is
    free; it stays so, hence to be called in a fresh process, once. The prior is called on a small picture first, so
    that its weights count as loaded.
    """
    device = trial.measurement.op.device
    if device.type == "cpu":
        return_freed_memory()
    with torch.no_grad():
        _touch(trial)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        _few(trial).run()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    if device.type != "cpu" or platform.system() != "Linux":
        return None
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak from here on (proc(5))
        before = _status("VmRSS")
        _few(trial).run()
        return (_status("VmHWM") - before) / 2**10
    except (OSError, KeyError):
        return None


def _touch(trial: Trial) -> None:
    """Calls the network once on the smallest picture, at the levels of the trial."""
    height, width = trial.prior.fitting(1, 1)
    levels = trial.prior.levels(trial.sampling.sampler, FEW, trial.sampling.spacing)
    measurement = trial.measurement
    smallest = measurement.y.new_zeros((1, measurement.op.in_shape[0], height, width))
    trial.prior.predict(smallest, levels[0], levels[1])


def _status(field: str) -> int:
    """Returns KiB of a line of /proc/self/status."""
    lines = dict(line.split(":", maxsplit=1) for line in Path("/proc/self/status").read_text("ascii").splitlines())
    return int(lines[field].split()[0])


__all__ = ["UNCONDITIONAL", "TimedPrior", "Timing", "Trial", "TrialTimes", "memory_of", "time_trials"]
