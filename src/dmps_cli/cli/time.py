"""`dmps time`: seconds per image, where they go, and the memory they take."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dmps_cli import __version__, measurements
from dmps_cli.cli.console import Console
from dmps_cli.cli.degrade import make_plan
from dmps_cli.cli.options import (
    PAPER,
    ComputeFlags,
    Methods,
    Quiet,
    Samplers,
    SamplingFlags,
    Sigma,
    checked_sigma,
    command_options,
    is_compared,
)
from dmps_cli.errors import UsageError
from dmps_cli.methods import DEFAULT_METHOD, Sampling, resolve_sampling
from dmps_cli.metrics import GREY_LEVELS
from dmps_cli.tasks import OperatorOptions, Params, factor, scene_shape

if TYPE_CHECKING:
    import torch

    from dmps_cli.benchmark import Job, Timing
    from dmps_cli.cli.operators import OperatorPlan
    from dmps_cli.report import Row
    from dmps_cli.weights import LoadedPrior

MAX_PIXELS = 2**28
PARTS = ("network", "backward", "likelihood", "rest")


@command_options
def time(
    sampling: SamplingFlags,
    operator: OperatorOptions,
    compute: ComputeFlags,
    task: Annotated[str, typer.Option("--task", "-t", metavar="NAME", help="See `dmps tasks`.")] = "sr4",
    methods: Methods = None,
    samplers: Samplers = None,
    image_size: Annotated[str, typer.Option(metavar="N|HxW", help="Size of the restored image, px.")] = "256",
    repeats: Annotated[int, typer.Option(metavar="N", help="Timed restorations, after a short one that is not.")] = 3,
    sigma: Sigma = None,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory/--no-memory",
            help="Peak memory of each method above the loaded prior; on a CPU in a process of its own, some seconds "
            "each.",
        ),
    ] = True,
    random_weights: Annotated[
        bool, typer.Option("--random-weights", help="The network of --model without its file, for timing alone.")
    ] = False,
    compare: Annotated[
        str | None, typer.Option(metavar=PAPER, help="Add the paper's seconds, of another machine (one V100).")
    ] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of the table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
    quiet: Quiet = False,
) -> None:
    """Time restorations of a synthetic picture: seconds per image, what they are spent on, peak memory.

    Parts: network (its calls), backward (the way back through them), likelihood (what else the method does), rest
    (steps of the sampler, noise). The ratio is to dmps at the same levels; `unconditional` is the prior without data.
    Loading the prior, building the operator and files are left out.

    Example: dmps time --task sr4 --methods dmps,dps --nfe 5
    """
    console = Console(quiet=quiet, as_json=as_json)
    entry = compute.check()
    noise = checked_sigma(sigma)
    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other")
    if repeats < 1:
        raise UsageError(f"--repeats is {repeats}; it must be at least 1")
    with_paper = is_compared(compare)
    samplings = sampling.compared(entry, methods, samplers, task)
    plan = make_plan(task, operator, noise, compute.seed)
    bench = Bench(compute, plan, parse_size(image_size, plan.params), random_weights)

    device = compute.start()
    from dmps_cli.benchmark import memory_of, time_jobs
    from dmps_cli.device import describe, peak_mib
    from dmps_cli.report import csv_text, paper_seconds, paper_seconds_notes

    prior = bench.load(device, console)
    jobs = bench.jobs(prior, device, with_baselines(samplings))
    with console.progress(len(jobs) * (1 + repeats), "runs") as (advance, say):

        def tell(job: Job) -> None:
            say(f"{job.name} on {job.sampling.sampler} levels")
            advance()

        timings = time_jobs(jobs, repeats, tell)
    peak = peak_mib(device)
    peaks: list[float | None] = [None] * len(jobs)
    if memory:
        in_child = device.type == "cpu"
        peaks = [bench.memory_in_child(job) if in_child else memory_of(job) for job in jobs]
    rows = [
        {"task": task, **row, "size": bench.size_text} | ({"peak_mib": mib} if memory else {})
        for row, mib in zip(timing_rows(jobs, timings), peaks, strict=True)
    ]
    paper = paper_seconds(sorted({choice.sampler for choice in samplings})) if with_paper else []
    notes = paper_seconds_notes(task) if with_paper else []
    console.note(
        f"{plan.describe()}; {describe(device)}, {compute.dtype}, batch {compute.batch_size}, "
        f"{repeats} repeat{'s' * (repeats > 1)}, peak memory of the {'device' if device.type == 'cuda' else 'process'} "
        f"{peak:.0f} MiB"
    )
    facts = {
        "version": __version__,
        "command": "time",
        **compute.facts(),
        "model_sha256": prior.sha256 or None,
        "random_weights": random_weights,
        "device_name": describe(device),
        **versions(device),
        "task": task,
        "operator": dict(plan.params),
        "sigma_y": plan.sigma_y,
        "sigma_y_255": plan.sigma_y * GREY_LEVELS,
        "repeats": repeats,
        "peak_mib": peak,
    }
    runs = [[run.seconds for run in timing.runs] for timing in timings]
    full = [{**row, "runs": seconds} for row, seconds in zip(rows, runs, strict=True)]
    console.object({**facts, "rows": full} | ({"paper": paper, "notes": notes} if with_paper else {}))
    about = versions(device)
    where = {"dmps": __version__, "dtype": compute.dtype, "batch": compute.batch_size, "device_name": describe(device)}
    if as_csv:
        everything = [*({**row, **where, **about} for row in rows), *paper]
        console.rendered(lambda stream: csv_text(everything).rstrip("\n"))
        for note in notes:
            console.note(note)
    elif not as_json:
        console.table([*map(shown, rows), *paper])
        console.result(
            f"{describe(device)}, {compute.dtype}, batch {compute.batch_size}; median of {repeats}; "
            f"dmps {__version__}, torch {about['torch']}, python {about['python']}"
        )
        for note in notes:
            console.result(note)


class Bench:
    """What is timed on, the methods apart: it can be sent to another process, and be loaded there."""

    def __init__(
        self, compute: ComputeFlags, plan: OperatorPlan, size: tuple[int, int], random_weights: bool = False
    ) -> None:
        self.compute, self.plan, self.size, self.random_weights = compute, plan, size, random_weights

    @property
    def size_text(self) -> str:
        """'256x256', height first."""
        return f"{self.size[0]}x{self.size[1]}"

    def load(self, device: torch.device, console: Console) -> LoadedPrior:
        """The prior, of its file or with random weights."""
        if not self.random_weights:
            return self.compute.load(device, console)
        from dmps_cli.device import micro_batch
        from dmps_cli.weights import random_prior

        batch = micro_batch(device, self.compute.batch_size)
        override = self.compute.weights_file
        return random_prior(self.compute.model, device, self.compute.dtype, override=override, batch=batch)

    def jobs(self, prior: LoadedPrior, device: torch.device, choices: Sequence[tuple[Sampling, bool]]) -> list[Job]:
        """A job per (choice, whether it is to be unconditional), all on one measurement of a grey picture."""
        import torch

        from dmps_cli.benchmark import Job
        from dmps_cli.pipeline import FILE_KEY, degrade

        scene = scene_shape(self.plan.task, self.plan.params, self.size, prior.prior.channels)
        op = self.plan.build(scene, device)
        x = torch.zeros((self.compute.batch_size, *op.in_shape), device=device)
        y = degrade(x, op, self.plan.sigma_y, seed=self.compute.seed, keys=[FILE_KEY] * len(x))
        return [
            Job(y=y, op=op, prior=prior.prior, sigma_y=self.plan.sigma_y, sampling=choice, unconditional=without)
            for choice, without in choices
        ]

    def memory_in_child(self, job: Job) -> float | None:
        """`memory_of` the job in a fresh process; None where the system does not say, or ended the process."""
        import pickle
        import subprocess
        import sys

        # not multiprocessing: its child would run the command's own script again where that has no guard
        code = "from dmps_cli.cli.time import answer_memory; answer_memory()"
        content = pickle.dumps((self, (job.sampling, job.unconditional)))
        done = subprocess.run([sys.executable, "-c", code], input=content, capture_output=True, check=False)
        return pickle.loads(done.stdout) if done.returncode == 0 else None  # our own process's answer


def answer_memory() -> None:
    """The child process of `Bench.memory_in_child`: reads what to run from stdin, writes the answer to stdout."""
    import pickle
    import sys

    sys.stdout.buffer.write(pickle.dumps(child_memory(*pickle.load(sys.stdin.buffer))))


def child_memory(bench: Bench, choice: tuple[Sampling, bool]) -> float | None:
    """What a child process of `Bench.memory_in_child` does."""
    from dmps_cli.benchmark import memory_of

    device = bench.compute.start()
    (job,) = bench.jobs(bench.load(device, Console(quiet=True)), device, [choice])
    return memory_of(job)


def with_baselines(samplings: Sequence[Sampling]) -> list[tuple[Sampling, bool]]:
    """(sampling, whether unconditional): the prior alone once per kind and number of levels; then the methods."""
    levels = dict.fromkeys((choice.sampler, choice.nfe, choice.spacing) for choice in samplings)
    alone = [
        resolve_sampling(method=DEFAULT_METHOD, sampler=sampler, nfe=nfe, spacing=spacing)
        for sampler, nfe, spacing in levels
    ]
    return [*((choice, True) for choice in alone), *((choice, False) for choice in samplings)]


def timing_rows(jobs: Sequence[Job], timings: Sequence[Timing]) -> list[dict[str, Any]]:
    """A row per job: seconds per image of the median run, their parts, spread, calls; ratio: to dmps at its levels."""
    reference = {
        (job.sampling.sampler, job.sampling.nfe): timing.median.seconds
        for job, timing in zip(jobs, timings, strict=True)
        if job.name == DEFAULT_METHOD
    }
    rows = []
    for job, timing in zip(jobs, timings, strict=True):
        choice, run = job.sampling, timing.median
        dmps = reference.get((choice.sampler, choice.nfe))
        levels = {"method": job.name, "sampler": choice.sampler, "nfe": choice.nfe, "spacing": choice.spacing}
        rows.append(
            {
                **levels,
                **({} if job.unconditional else choice.labelled()),
                "seconds": run.seconds,
                "spread": timing.spread if len(timing.runs) > 1 else None,
                "ratio": None if dmps is None else run.seconds / dmps,
                **{part: getattr(run, part) for part in PARTS},
                "calls": run.calls,
            }
        )
    return rows


def shown(row: Row) -> dict[str, Any]:
    """The columns for people: parts as shares of the time; knobs, which the notes and --json have, left out."""
    seconds = row["seconds"]
    assert isinstance(seconds, float)
    shares = {f"{part} %": 100 * value / seconds for part in PARTS if isinstance(value := row[part], float)}
    texts = {name: f"{share:.1f}" for name, share in shares.items()}
    first = {name: row[name] for name in ("method", "sampler", "nfe", "size", "seconds", "spread", "ratio")}
    memory = {"peak MiB": row["peak_mib"]} if "peak_mib" in row else {}
    return {**first, **{name: float(text) for name, text in texts.items()}, "calls": row["calls"], **memory}


def versions(device: torch.device) -> dict[str, Any]:
    """What a time depends on beside the device's name."""
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
    """(H, W) px of 'N' or 'HxW', sides that the task can have. Raises UsageError."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part[:9]) > 0 for part in parts):
        raise UsageError(f"--image-size is '{text}'; it must be N or HxW in px, 256 or 512x384 for instance")
    height, width = int(parts[0]), int(parts[-1])
    if height * width > MAX_PIXELS:
        raise UsageError(f"--image-size is '{text}'; at most {MAX_PIXELS} pixels are timed")
    if height % factor(params) or width % factor(params):
        raise UsageError(f"--image-size is '{text}'; height and width must be multiples of the scale {factor(params)}")
    return height, width
