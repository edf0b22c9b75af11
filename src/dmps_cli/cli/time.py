"""`dmps time`: seconds per image, and where they go."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from dmps_cli import __version__
from dmps_cli.cli.console import Console
from dmps_cli.cli.degrade import make_plan
from dmps_cli.cli.options import ComputeFlags, Quiet, Samplers, SamplingFlags, Sigma, checked_sigma, command_options
from dmps_cli.errors import UsageError
from dmps_cli.tasks import OperatorOptions


@command_options
def time(
    sampling: SamplingFlags,
    operator: OperatorOptions,
    compute: ComputeFlags,
    task: Annotated[str, typer.Option("--task", "-t", metavar="NAME", help="See `dmps tasks`.")] = "sr4",
    samplers: Samplers = None,
    image_size: Annotated[str, typer.Option(metavar="N|HxW", help="Size of the restored image, px.")] = "256",
    repeats: Annotated[int, typer.Option(metavar="N", help="Timed restorations, after one that is not.")] = 3,
    sigma: Sigma = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of the table.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
    quiet: Quiet = False,
) -> None:
    """Time restorations of a synthetic picture: median and spread, share of network and rest, peak memory.

    Loading the prior, building the operator and files are left out.

    Example: dmps time --task sr4 --nfe 5
    """
    console = Console(quiet=quiet, as_json=as_json)
    compute.check()
    checked_sigma(sigma)
    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other")
    if repeats < 1:
        raise UsageError(f"--repeats is {repeats}; it must be at least 1")
    height, width = parse_size(image_size)
    samplings = [sampling.resolve(task, ladder) for ladder in sampling.ladders(samplers)]
    plan = make_plan(task, operator, sigma, compute.seed)

    device = compute.start()
    import torch

    from dmps_cli.benchmark import time_restore
    from dmps_cli.device import describe, peak_mib
    from dmps_cli.pipeline import FILE_KEY, degrade
    from dmps_cli.report import csv_text
    from dmps_cli.weights import load_prior

    prior = load_prior(compute.model, device, compute.dtype)
    op = plan.build((prior.prior.channels, height, width), device)
    x = torch.zeros((compute.batch_size, *op.in_shape), device=device)
    y = degrade(x, op, plan.sigma_y, seed=compute.seed, keys=[FILE_KEY] * len(x))
    rows = []
    with console.progress(len(samplings), "samplers") as (advance, say):
        for choice in samplings:
            say(choice.sampler)
            timing = time_restore(y, op, prior.prior, plan.sigma_y, choice, repeats=repeats)
            rows.append(
                {
                    "task": task,
                    **choice.as_dict(),
                    "size": f"{height}x{width}",
                    "seconds": timing.median,
                    "spread": timing.spread,
                    "network": timing.network,
                    "rest": timing.rest,
                    "calls": timing.calls,
                    "peak_mib": peak_mib(device),
                }
            )
            advance()
    console.note(
        f"{plan.describe()}; {describe(device)}, {compute.dtype}, batch {compute.batch_size}, {repeats} repeats"
    )
    console.object(
        {"version": __version__, "command": "time", **asdict(compute), "device_name": describe(device), "rows": rows}
    )
    if as_csv:
        console.result(csv_text(rows).rstrip("\n"))
    elif not as_json:
        console.table(rows)


def parse_size(text: str) -> tuple[int, int]:
    """(H, W) px of 'N' or 'HxW'. Raises UsageError."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"--image-size is '{text}'; it must be N or HxW in px, 256 or 512x384 for instance")
    sides = [int(part) for part in parts]
    return sides[0], sides[-1]
