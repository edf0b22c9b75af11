"""`dmps time`: seconds per image, and where they go."""

from __future__ import annotations

from typing import Annotated

import typer

from dmps_cli import __version__
from dmps_cli.cli.console import Console
from dmps_cli.cli.degrade import make_plan
from dmps_cli.cli.options import (
    ComputeFlags,
    Methods,
    Quiet,
    Samplers,
    SamplingFlags,
    Sigma,
    checked_sigma,
    command_options,
)
from dmps_cli.errors import UsageError
from dmps_cli.metrics import GREY_LEVELS
from dmps_cli.tasks import OperatorOptions, Params, factor

MAX_PIXELS = 2**28


@command_options
def time(
    sampling: SamplingFlags,
    operator: OperatorOptions,
    compute: ComputeFlags,
    task: Annotated[str, typer.Option("--task", "-t", metavar="NAME", help="See `dmps tasks`.")] = "sr4",
    methods: Methods = None,
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

    Example: dmps time --task sr4 --methods dmps,dps --nfe 5
    """
    console = Console(quiet=quiet, as_json=as_json)
    entry = compute.check()
    checked_sigma(sigma)
    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other")
    if repeats < 1:
        raise UsageError(f"--repeats is {repeats}; it must be at least 1")
    samplings = sampling.compared(entry, methods, samplers, task)
    plan = make_plan(task, operator, sigma, compute.seed)
    height, width = parse_size(image_size, plan.params)

    device = compute.start()
    import torch

    from dmps_cli.benchmark import time_restore
    from dmps_cli.device import describe, peak_mib
    from dmps_cli.pipeline import FILE_KEY, degrade
    from dmps_cli.report import csv_text

    prior = compute.load(device, console)
    op = plan.build((prior.prior.channels, height, width), device)
    x = torch.zeros((compute.batch_size, *op.in_shape), device=device)
    y = degrade(x, op, plan.sigma_y, seed=compute.seed, keys=[FILE_KEY] * len(x))
    rows = []
    with console.progress(len(samplings), "settings") as (advance, say):
        for choice in samplings:
            say(f"{choice.method} on {choice.sampler} levels")
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
                }
            )
            advance()
    peak = peak_mib(device)
    console.note(
        f"{plan.describe()}; {describe(device)}, {compute.dtype}, batch {compute.batch_size}, "
        f"{repeats} repeat{'s' * (repeats > 1)}, peak memory of the {'device' if device.type == 'cuda' else 'process'} "
        f"{peak:.0f} MiB"
    )
    facts = {
        "version": __version__,
        "command": "time",
        **compute.facts(),
        "model_sha256": prior.sha256,
        "device_name": describe(device),
        "task": task,
        "operator": dict(plan.params),
        "sigma_y": plan.sigma_y,
        "sigma_y_255": plan.sigma_y * GREY_LEVELS,
        "repeats": repeats,
        "peak_mib": peak,
    }
    console.object({**facts, "rows": rows})
    if as_csv:
        console.result(csv_text(rows).rstrip("\n"))
    elif not as_json:
        console.table(rows)


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
