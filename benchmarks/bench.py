"""Speed and memory figures of docs/speed.md: `make bench` prints them. Nothing here is asserted.

Each group runs in a process of its own, so that the peak memory and the allocator's state are its own.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

SIZES = (256, 1024)
BUDGETS = {"deblur": 10.0, "deblur-gauss": 10.0, "deblur-aniso": 10.0}  # % at 1024, zero boundary; 5 % elsewhere
LEVEL = 20  # of a 50-step ladder: neither the noisiest nor the cleanest


def median_seconds(work: Callable[[], object], repeats: int) -> float:
    """Median time of a call, after one that is not counted."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def startup() -> list[dict[str, Any]]:
    """Seconds of `dmps --help`, as a process."""
    command = [sys.executable, "-m", "dmps_cli", "--help"]
    seconds = median_seconds(lambda: subprocess.run(command, check=True, capture_output=True), 9)
    return [{"what": "dmps --help", "seconds": seconds, "budget": 0.5}]


def likelihood(size: int) -> list[dict[str, Any]]:
    """Per task: operator construction, and the likelihood part of a step against the network's time in float32."""
    import torch

    from dmps_cli.device import tune_allocator
    from dmps_cli.methods.choice import resolve_sampling
    from dmps_cli.methods.table import METHODS
    from dmps_cli.operators.measurement import Measurement
    from dmps_cli.priors import DenoiserPrior
    from dmps_cli.tasks.options import OperatorOptions
    from dmps_cli.tasks.rows import TASKS
    from dmps_cli.tasks.table import build, resolve
    from dmps_cli.weights.loading import load_prior

    tune_allocator()
    shape, rows = (3, size, size), []
    x_t = torch.randn(1, *shape)
    prior = load_prior("natural", torch.device("cpu")).prior
    free = DenoiserPrior(lambda z, s: z)
    sampling = resolve_sampling(method="dmps (x_t)", sampler="flow", nfe=50)
    cur, nxt = prior.levels("flow", 50)[LEVEL : LEVEL + 2]
    repeats = 15 if size == SIZES[0] else 5
    with torch.no_grad():
        network = median_seconds(lambda: prior.predict(x_t, cur, nxt), repeats)
        without = median_seconds(lambda: free.predict(x_t, cur, nxt), repeats)
        for name in TASKS:
            params = resolve(name, OperatorOptions())
            start = time.perf_counter()
            op = build(name, params, shape, dtype=torch.float32)
            y = op.A(x_t)
            method = METHODS["dmps (x_t)"].build(
                free, Measurement(y, op, 0.05), 0.0, sampling.knobs
            )  # asks for what is made lazily
            construction = time.perf_counter() - start
            step = median_seconds(lambda method=method: method.predict(x_t, cur, nxt), repeats) - without
            rows.append(
                {
                    "task": name,
                    "size": size,
                    "network ms": 1e3 * network,
                    "likelihood ms": 1e3 * step,
                    "share %": 100 * step / network,
                    "budget %": BUDGETS.get(name, 5.0) if size == SIZES[-1] else 5.0,
                    "construction s": construction,
                }
            )
    return rows


def iterated() -> list[dict[str, Any]]:
    """What has no closed form: a likelihood step of compressed sensing at 200 x 300 px, by conjugate gradients."""
    import torch

    from dmps_cli.device import tune_allocator
    from dmps_cli.tasks.options import OperatorOptions
    from dmps_cli.tasks.table import build, resolve

    tune_allocator()
    shape, rows = (3, 200, 300), []
    x = torch.randn(1, *shape)
    op = build("cs", resolve("cs", OperatorOptions()), shape, dtype=torch.float32)
    correction = op.correction(op.A(x))
    for ratio in (999.0, 10.0, 1.0, 0.1):
        seconds = median_seconds(lambda ratio=ratio: correction(torch.zeros_like(x), 0.05**2, ratio**2), 5)
        rows.append({"task": "cs", "size": "200x300", "sigma / alpha": ratio, "likelihood ms": 1e3 * seconds})
    return rows


def network(tuned: bool, dtype: str) -> list[dict[str, Any]]:
    """One evaluation of the bundled prior, with or without the allocator's setting, and the process's peak memory."""
    import torch

    from dmps_cli.device import tune_allocator
    from dmps_cli.levels import flow_levels
    from dmps_cli.weights.loading import load_prior

    if tuned:
        tune_allocator()
    prior, rows = load_prior("natural", torch.device("cpu"), dtype).prior, []
    cur, nxt = flow_levels(50)[LEVEL : LEVEL + 2]
    for size in SIZES:
        x_t = torch.randn(1, 3, size, size)
        with torch.no_grad():
            seconds = median_seconds(lambda x_t=x_t: prior.predict(x_t, cur, nxt), 9 if size == SIZES[0] else 3)
        rows.append({"size": size, "dtype": dtype, "tuned allocator": str(tuned), "ms": 1e3 * seconds})
    return rows


def memory(task: str) -> list[dict[str, Any]]:
    """Peak memory of a whole `dmps restore` of a picture of 1024 x 1024 px."""
    import numpy as np
    from PIL import Image

    with TemporaryDirectory() as folder:
        source, target = Path(folder, "x.png"), Path(folder, "y.png")
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), dtype=np.uint8)).save(source)
        dmps = [sys.executable, "-m", "dmps_cli"]
        subprocess.run([*dmps, "degrade", source, "--task", task, "-o", target, "-q"], check=True, capture_output=True)
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        subprocess.run([*dmps, "restore", target, "--nfe", "3", "-q"], check=True, capture_output=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak > before, "the restoration is the larger process"
    return [{"task": task, "size": 1024, "peak MiB": peak / 1024, "budget MiB": 2500}]


def adm_evaluation(way: str) -> list[dict[str, Any]]:
    """One evaluation of the FFHQ network at 256 x 256, weights at random; a process of its own.

    way: 'reference' (contiguous, float32, gradients recorded, the allocator as it comes, as the published code runs
    it), or the floating-point type in which we run it.
    """
    import torch

    from dmps_cli.device import DTYPES, peak_mib, tune_allocator
    from dmps_cli.nets.adm import ADM, ADMConfig
    from dmps_cli.weights.building import build_prior
    from dmps_cli.weights.cards import card

    config, cpu = card("ffhq").config, torch.device("cpu")
    torch.manual_seed(0)
    network = ADM(ADMConfig.from_reference(config, "ffhq"))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1)
    x, t = torch.randn(1, 3, 256, 256), torch.tensor([500.0])
    if way == "reference":
        network.eval()
    else:
        tune_allocator()
        state = network.state_dict()
        network = build_prior("adm", config, state, where="ffhq", device=cpu, dtype=DTYPES[way]).network  # type: ignore[attr-defined]
    before = peak_mib(cpu)
    with torch.set_grad_enabled(way == "reference"):
        seconds = median_seconds(lambda: network(x, t), 3)
    return [{"way": way, "seconds": seconds, "peak MiB above the model": peak_mib(cpu) - before}]


def adm() -> list[dict[str, Any]]:
    """The FFHQ network in the published way and in ours, in turn, twice; medians and ratios."""
    ways = ("reference", "float32", "bfloat16")
    runs = [as_process(f"adm {way}")[0] for _ in range(2) for way in ways]
    rows = []
    for way in ways:
        mine = [run for run in runs if run["way"] == way]
        rows.append(
            {"way": way, **{key: statistics.median(run[key] for run in mine) for key in mine[0] if key != "way"}}
        )
    for row in rows:
        for key in ("seconds", "peak MiB above the model"):
            row[f"ratio of {key.split()[0]}"] = row[key] / rows[0][key]
    return rows


def loading() -> list[dict[str, Any]]:
    """CPU seconds from an FFHQ checkpoint (weights at random) to a prior, torch imported already; median of 5."""
    import torch

    from dmps_cli.weights.building import random_state
    from dmps_cli.weights.cards import card
    from dmps_cli.weights.loading import load_prior

    with TemporaryDirectory() as folder:
        os.environ["DMPS_CACHE"] = folder
        path = card("ffhq").location
        path.parent.mkdir(parents=True)
        torch.save(random_state("adm", card("ffhq").config, "ffhq"), path)
        taken = []
        for _ in range(6):  # the first reads it through, for its hash
            start = time.process_time()
            load_prior("ffhq", torch.device("cpu"))
            taken.append(time.process_time() - start)
        return [{"what": "ffhq", "CPU seconds": statistics.median(taken[1:])}]


GROUPS: dict[str, Callable[[], list[dict[str, Any]]]] = {
    "startup": startup,
    **{f"likelihood {size}": lambda size=size: likelihood(size) for size in SIZES},
    "iterated": iterated,
    **{name: lambda name=name: import_module(name).bench_rows() for name in ("solves", "deblur", "sigma")},
    **{
        f"network {dtype} {'tuned' if tuned else 'default'}": lambda dtype=dtype, tuned=tuned: network(tuned, dtype)
        for dtype in ("float32", "bfloat16")
        for tuned in (False, True)
    },
    "adm": adm,
    "loading": loading,
    **{f"memory {task}": lambda task=task: memory(task) for task in ("sr4", "deblur", "cs")},
}

PARTS = {f"adm {way}": lambda way=way: adm_evaluation(way) for way in ("reference", "float32", "bfloat16")}
"""Processes that a group starts."""


def as_process(name: str) -> list[dict[str, Any]]:
    """What a group returns, run in a process of its own."""
    command = [sys.executable, __file__, "--group", name]
    rows: list[dict[str, Any]] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return rows


def main() -> None:
    """Runs the groups named, or all, and prints a table of each; --group prints one as JSON, for the parent."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("groups", nargs="*", default=list(GROUPS), help="default: all")
    parser.add_argument("--group", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.group:
        print(json.dumps((GROUPS | PARTS)[arguments.group]()))
        return
    from dmps_cli.cli.columns import console_table
    from dmps_cli.cli.tables import console_text

    print(f"{os.cpu_count()} cores; seconds and milliseconds are medians")
    for name in arguments.groups:
        print(f"\n{name}\n{console_text(console_table(as_process(name)), sys.stdout)}", flush=True)


if __name__ == "__main__":
    main()
