"""`dmps time`: seconds per image, where they go, and the memory they take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dmps_cli import __version__
from dmps_cli.checks import whole
from dmps_cli.cli.completion import COMPLETE, complete_words
from dmps_cli.cli.console import Console
from dmps_cli.cli.groups import command_options
from dmps_cli.cli.options import Methods, Quiet, Samplers, Sigma
from dmps_cli.errors import UsageError
from dmps_cli.evaluation.bench import Bench, parse_size, shares, timing_rows, versions, with_baselines
from dmps_cli.jobs.given_sigma import checked_sigma
from dmps_cli.methods.options import SamplingOptions
from dmps_cli.report.paper import PAPER, is_compared
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.plan import make_plan
from dmps_cli.tasks.table import named
from dmps_cli.units import GREY_LEVELS
from dmps_cli.weights.options import ComputeOptions

if TYPE_CHECKING:
    from dmps_cli.evaluation.timing import Trial


@command_options
def time(
    sampling: SamplingOptions,
    operator: OperatorOptions,
    compute: ComputeOptions,
    task: Annotated[
        str | None,
        typer.Option(
            "--task", "-t", metavar="NAME", help="See `dmps tasks`. Default: sr4.", autocompletion=COMPLETE["tasks"]
        ),
    ] = None,
    methods: Methods = None,
    samplers: Samplers = None,
    image_size: Annotated[str, typer.Option(metavar="N|HxW", help="Size of the restored image, px.")] = "256",
    repeats: Annotated[
        int, typer.Option(metavar="N", help="Timed restorations, after a short one that is not."), whole(1)
    ] = 3,
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
        str | None,
        typer.Option(
            metavar=PAPER,
            help="Add the paper's seconds, of another machine (one V100).",
            autocompletion=complete_words(PAPER),
        ),
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
    with_paper = is_compared(compare)
    task = named(task, operator) or "sr4"
    samplings = sampling.compared(entry, methods, samplers, task)
    plan = make_plan(task, operator, noise, compute.seed)
    bench = Bench(compute, plan, parse_size(image_size, plan.params), random_weights)

    device = compute.start()
    about = versions(device)
    from dmps_cli.device import describe, peak_mib
    from dmps_cli.evaluation.timing import memory_of, time_trials
    from dmps_cli.report.paper import paper_seconds, paper_seconds_notes
    from dmps_cli.report.tables import csv_text

    prior = bench.load(device, console)
    trials = bench.trials(prior, device, with_baselines(samplings), console)
    with console.progress(len(trials) * (1 + repeats), "runs") as (advance, say):

        def tell(trial: Trial) -> None:
            say(f"{trial.name} on {trial.sampling.sampler} levels")
            advance()

        timings = time_trials(trials, repeats, tell)
    peak = peak_mib(device)
    peaks: list[float | None] = [None] * len(trials)
    if memory:
        in_child = device.type == "cpu"
        peaks = [bench.memory_in_child(trial) if in_child else memory_of(trial) for trial in trials]
    rows = [
        {"task": task, **row, "size": bench.size_text} | ({"peak_mib": mib} if memory else {})
        for row, mib in zip(timing_rows(trials, timings), peaks, strict=True)
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
        **about,
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
    where = {"dmps": __version__, "dtype": compute.dtype, "batch": compute.batch_size, "device_name": describe(device)}
    if as_csv:
        everything = [*({**row, **where, **about} for row in rows), *paper]
        console.rendered(lambda stream: csv_text(everything).rstrip("\n"))
        for note in notes:
            console.note(note)
    elif not as_json:
        console.table([*map(shares, rows), *paper])
        console.result(
            f"{describe(device)}, {compute.dtype}, batch {compute.batch_size}; median of {repeats}; "
            f"dmps {__version__}, torch {about['torch']}, python {about['python']}"
        )
        for note in notes:
            console.result(note)
