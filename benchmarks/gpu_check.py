"""Checks and figures of the tool on a GPU: benchmarks/gpu_check.sh prints them as one JSON object.

Every part is a process of its own with a limit of its own: one that fails, hangs or is killed leaves what it had found,
and the next one runs. Nothing but the standard library is imported here before a part runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dmps_cli.methods.choice import Sampling
    from dmps_cli.priors import Prior

ROOT = Path(__file__).resolve().parent.parent
LIMIT = 360.0
"""Seconds for everything."""

STEP_TOLERANCE = 1e-4
"""Of a step in float32: largest difference to the CPU's over the largest value."""

HALF_PSNR = {"bfloat16": 50.0, "float16": 65.0}
"""Least PSNR in dB of a restoration in half precision against float32 on the CPU; a CPU itself has 67 and 85."""

BATCH_TOLERANCE = 1e-3
"""Of a restored image: largest difference in a batch and alone, on [-1, 1]."""

TRAIN_TOLERANCE = 0.05
"""Of the mean loss of a few steps of training, to that of the CPU."""

V100_SECONDS = {"dmps": 67.02, "dps": 194.42, "pgdm": 182.35}
"""Of 1000 evaluations with the FFHQ network, the paper's Table 5: one V100."""

TINY_TESTS = ("test_sampling.py", "test_linalg.py", "test_windows.py")
TESTS = (*TINY_TESTS, "test_priors.py", "operators", "methods", "nets/test_nets.py", "nets/test_ncsnpp.py")
"""Files and folders of tests/ that touch tensors."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """device: as `--device` has it; tiny: sizes at which a CPU is through in a minute or two."""

    device: str
    tiny: bool

    @property
    def is_cuda(self) -> bool:
        """Whether it is a GPU of NVIDIA's."""
        return self.device.startswith("cuda")

    def pick(self, usual: Any, tiny: Any) -> Any:
        """The one for these settings."""
        return tiny if self.tiny else usual


class Findings:
    """What a part has found so far, on the disk at once: a part that is ended keeps it."""

    def __init__(self, path: Path) -> None:
        self.path, self.facts = path, dict[str, Any]()
        self.failures: list[str] = []

    def add(self, **facts: Any) -> None:
        """More facts."""
        self.facts |= facts
        self.path.write_text(json.dumps({**self.facts, "failures": self.failures}))

    def check(self, is_well: bool, what: str) -> None:
        """Something that must hold."""
        if not is_well:
            self.failures.append(what)
        self.add()


# --- What the parts share


def start(settings: Settings) -> torch.device:
    """The device, as a command has it."""
    from dmps_cli.device import resolve_device, tune_allocator

    tune_allocator()
    return resolve_device(settings.device)


def prior_of(name: str, device: torch.device, dtype: str = "float32") -> Prior:
    """The bundled prior, or a published network with random weights."""
    from dmps_cli.weights.loading import load_prior, random_prior

    if name == "natural":
        return load_prior(name, device, dtype).prior
    return random_prior(name, device, dtype, override=None, batch=1).prior


def task_on(task: str, side: int, device: torch.device) -> Any:
    """The operator of a task with its default options."""
    import torch

    from dmps_cli.tasks.options import OperatorOptions
    from dmps_cli.tasks.table import build, resolve

    return build(task, resolve(task, OperatorOptions()), (3, side, side), dtype=torch.float32, device=device)


def pictures(count: int, side: int) -> Tensor:
    """(count, 3, side, side): parts of a bundled photograph, each another one."""
    import torch

    from dmps_cli.files.images import load_channels, photo_paths

    paths = photo_paths()
    loaded = [load_channels(path, 3).pixels for path in paths[: min(count, len(paths))]]
    crops = []
    for k in range(count):
        pixels = loaded[k % len(loaded)]
        top, left = ((7 * k) % max(length - side, 1) for length in pixels.shape[-2:])
        crops.append(pixels[:, top : top + side, left : left + side])
    return torch.stack(crops)


def restored(
    task: str, x: Tensor, prior: Prior, sampling: Sampling, device: torch.device, keys: Sequence[tuple[int, int]]
) -> Tensor:
    """Pictures, measured on the CPU and restored on the device; the result is on the CPU."""
    import torch

    from dmps_cli.operators.measurement import Measurement
    from dmps_cli.pipeline import degrade, restore

    side = x.shape[-1]
    y = degrade(x, task_on(task, side, torch.device("cpu")), 0.05, seed=0, keys=keys)
    measurement = Measurement(y.to(device), task_on(task, side, device), 0.05)
    return restore(measurement, prior, sampling, seed=0, keys=keys).cpu()


def relative(a: Tensor, b: Tensor) -> float:
    """The largest |a - b| / |b|, of b the largest value."""
    return float((a.double().cpu() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-30))


def command(*arguments: str) -> dict[str, Any]:
    """What a command of dmps prints with --json."""
    done = subprocess.run(
        [sys.executable, "-m", "dmps_cli", *arguments, "--json"], capture_output=True, text=True, check=False
    )
    if not done.stdout.strip():
        raise RuntimeError(f"dmps {' '.join(arguments)} left {done.returncode}: {done.stderr[-1500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def seconds_of(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median of the seconds of a call, queued work included, after one that is not counted."""
    from dmps_cli.device import stopwatch

    work()
    times = []
    for _ in range(repeats):
        elapsed = stopwatch(device)
        work()
        times.append(elapsed())
    return statistics.median(times)


@contextlib.contextmanager
def peak_of(device: torch.device) -> Iterator[Callable[[], float | None]]:
    """Yields what gives the peak memory since in MiB, None on a CPU."""
    import torch

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    yield lambda: torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None


# --- The parts


def environment(settings: Settings, findings: Findings) -> None:
    """The machine and its software."""
    import platform

    import torch

    from dmps_cli.device import describe, has_fast_bfloat16

    device = start(settings)
    findings.add(
        torch=torch.__version__,
        python=platform.python_version(),
        machine=platform.platform(),
        cores=os.cpu_count(),
        device=describe(device),
        fast_bfloat16=has_fast_bfloat16(device),
        cuda=torch.version.cuda,
        gpus=torch.cuda.device_count(),
    )
    if settings.is_cuda:
        facts = torch.cuda.get_device_properties(device)
        findings.add(
            capability=f"{facts.major}.{facts.minor}",
            memory_gib=facts.total_memory / 2**30,
            cudnn=torch.backends.cudnn.version(),
        )
    tf32 = {"cudnn": torch.backends.cudnn.allow_tf32, "matmul": torch.backends.cuda.matmul.allow_tf32}
    findings.add(tf32=tf32)
    findings.check(not any(tf32.values()), f"TF32 is on: {tf32}")


def doctor(settings: Settings, findings: Findings) -> None:
    """`dmps doctor`."""
    found = command("doctor", "--device", settings.device)
    findings.add(rows=found["rows"], missing_metrics=found["missing_metrics"], free_gib=found["free_gib"])
    findings.check(found["ok"], "doctor finds a fault")


def agreement(settings: Settings, findings: Findings) -> None:
    """The device against the CPU: every operator, every step of every method; restorations in half precision."""
    import torch

    from dmps_cli.methods.choice import resolve_sampling
    from dmps_cli.methods.defaults import DEFAULTS
    from dmps_cli.tasks.rows import TASKS

    device, cpu, side = start(settings), torch.device("cpu"), settings.pick(128, 32)
    x = pictures(1, side)
    operators = {task: operator_difference(task, x, device) for task in TASKS}
    findings.add(operators=operators, step_tolerance=STEP_TOLERANCE)
    priors = prior_of("natural", cpu), prior_of("natural", device)
    steps = {
        f"{method} {sampler}": step_difference(
            x, priors, resolve_sampling(method=method, sampler=sampler, nfe=settings.pick(8, 3)), device
        )
        for method, sampler in DEFAULTS
    }
    findings.add(steps=steps)
    for name, difference in (operators | steps).items():
        findings.check(difference <= STEP_TOLERANCE, f"{name}: {difference:.2g} from the CPU")
    sampling = resolve_sampling(task="deblur", nfe=settings.pick(20, 4))
    exact = restored("deblur", x, priors[0], sampling, cpu, [(0, 0)])
    ours = restored("deblur", x, priors[1], sampling, device, [(0, 0)])
    findings.add(restoration_grey_levels=float((ours - exact).abs().max()) * 127.5, half_psnr_least=HALF_PSNR)
    found: dict[str, float] = {}
    for dtype, least in HALF_PSNR.items():
        half = restored("deblur", x, prior_of("natural", device, dtype), sampling, device, [(0, 0)])
        error = float((half.clamp(-1, 1) - exact.clamp(-1, 1)).square().mean())
        found[dtype] = 10.0 * math.log10(4.0 / max(error, 1e-12))
        findings.add(half_psnr=found)
        findings.check(found[dtype] >= least, f"{dtype}: PSNR {found[dtype]:.1f} dB against float32, below {least}")


def operator_difference(task: str, x: Tensor, device: torch.device) -> float:
    """The largest relative difference to the CPU of A, A^T and the correction of a step, all of the same arguments."""
    import torch

    here, there = task_on(task, x.shape[-1], torch.device("cpu")), task_on(task, x.shape[-1], device)
    y = here.A(x)
    pairs = [(there.A(x.to(device)), y), (there.At(y.to(device)), here.At(y))]
    for ratio in (0.1, 10.0):
        expected = here.correction(y)(0.5 * x, 0.05**2, ratio**2)
        pairs.append((there.correction(y.to(device))(0.5 * x.to(device), 0.05**2, ratio**2), expected))
    return max(relative(a, b) for a, b in pairs)


class Given:
    """Noise that was drawn before."""

    def __init__(self, z: Tensor) -> None:
        self.z = z

    def like(self, x: Tensor) -> Tensor:
        """The same whenever it is asked for."""
        return self.z.to(x)


def step_difference(x: Tensor, priors: tuple[Prior, Prior], sampling: Sampling, device: torch.device) -> float:
    """The largest relative difference of a step to the CPU's, both from the state that the CPU has come to.

    priors: on the CPU, on the device.
    """
    import torch

    from dmps_cli.levels import SAMPLERS
    from dmps_cli.methods.choice import build_posterior
    from dmps_cli.methods.table import METHODS
    from dmps_cli.operators.measurement import Measurement
    from dmps_cli.pipeline import degrade
    from dmps_cli.sampling import Noise, sample

    cpu, eta = torch.device("cpu"), SAMPLERS[sampling.sampler].eta
    ops = [task_on("sr4", x.shape[-1], place) for place in (cpu, device)]
    y = degrade(x, ops[0], 0.05, seed=0, keys=[(0, 0)])
    here, there = (
        build_posterior(sampling, prior, Measurement(y.to(op.device), op, 0.05))
        for prior, op in zip(priors, ops, strict=True)
    )
    levels = priors[0].levels(sampling.sampler, sampling.nfe, sampling.spacing, METHODS[sampling.method].start)
    noise, worst = Noise(0, Noise.STEP, [(0, 0)]), 0.0
    with torch.no_grad():
        state = here.start(Noise(0, Noise.START, [(0, 0)]).like(x), levels[0])
        for pair in pairwise(levels):
            given = Given(noise.like(x))
            expected = sample(here, pair, state, eta=eta, noise=given)  # type: ignore[arg-type]
            ours = sample(there, pair, state.to(device), eta=eta, noise=given)  # type: ignore[arg-type]
            worst, state = max(worst, relative(ours, expected)), expected
    return worst


def rerun(settings: Settings, findings: Findings) -> None:
    """The same restoration twice: the same bits?"""
    import torch

    from dmps_cli.methods.choice import resolve_sampling

    device, side = start(settings), settings.pick(256, 32)
    prior, x = prior_of("natural", device), pictures(2, side)
    same: dict[str, Any] = {}
    for task, method in (("sr4", "dmps"), ("deblur", "dmps"), ("motion", "dmps"), ("cs", "dmps"), ("sr4", "dps")):
        sampling = resolve_sampling(task=task, method=method, nfe=settings.pick(10, 2))

        def once(task: str = task, sampling: Sampling = sampling) -> Tensor:
            return restored(task, x, prior, sampling, device, [(0, 0), (1, 0)])

        first, second = once(), once()
        same[f"{task} {method}"] = torch.equal(first, second)
        if torch.equal(first, second):
            continue
        torch.backends.cudnn.deterministic = True
        first, third = once(), once()
        torch.backends.cudnn.deterministic = False
        same[f"{task} {method}"] = (
            f"no: up to {float((first - second).abs().max()):.2g} on [-1, 1]; with cuDNN's deterministic kernels "
            f"{'the same' if torch.equal(first, third) else 'not either'}"
        )
        findings.add(same_bits=same)
    findings.add(same_bits=same)
    if not all(answer is True for answer in same.values()):
        findings.add(note="cuDNN chooses among kernels, some of which add in an order of their own in each call")


def batches(settings: Settings, findings: Findings) -> None:
    """Batches of 1 to 64: images a second, peak memory, and each image against itself alone."""
    import torch

    from dmps_cli.device import stopwatch
    from dmps_cli.methods.choice import resolve_sampling

    device, side = start(settings), settings.pick(256, 32)
    sizes = settings.pick((1, 2, 4, 8, 16, 32, 64), (1, 2, 3))
    prior, sampling = prior_of("natural", device), resolve_sampling(task="sr4", nfe=settings.pick(10, 2))
    x, keys = pictures(max(sizes), side), [(k, 0) for k in range(max(sizes))]
    alone = torch.cat([restored("sr4", x[k : k + 1], prior, sampling, device, keys[k : k + 1]) for k in range(2)])
    rows: list[dict[str, Any]] = []
    for size in sizes:
        restored("sr4", x[:size], prior, sampling, device, keys[:size])
        with peak_of(device) as peak:
            elapsed = stopwatch(device)
            found = restored("sr4", x[:size], prior, sampling, device, keys[:size])
            seconds, mib = elapsed(), peak()
        count = min(size, len(alone))
        difference = float((found[:count] - alone[:count]).abs().max())
        rows.append({"batch": size, "images_per_second": size / seconds, "peak_mib": mib, "difference": difference})
        findings.add(rows=rows, side=side, evaluations=sampling.nfe, tolerance=BATCH_TOLERANCE)
        findings.check(difference <= BATCH_TOLERANCE, f"batch {size}: {difference:.2g} from the image alone")


def noise(settings: Settings, findings: Findings) -> None:
    """What drawing the noise ahead, in a thread, gains, and whether the bits stay."""
    import torch

    from dmps_cli import sampling as loop
    from dmps_cli.methods.choice import resolve_sampling

    device, side = start(settings), settings.pick(256, 32)
    prior, choice = prior_of("natural", device), resolve_sampling(task="denoise", nfe=settings.pick(20, 3))
    as_shipped, rows = loop.prepared, []

    @contextlib.contextmanager
    def at_once(noise: Any, x: Tensor, count: int) -> Iterator[Any]:
        del x, count
        yield noise

    @contextlib.contextmanager
    def ahead(noise: Any, x: Tensor, count: int) -> Iterator[Any]:
        with loop.DrawnAhead(noise, x, count) as drawn:
            yield drawn

    for size in settings.pick((1, 16), (1, 2)):
        x, keys = pictures(size, side), [(k, 0) for k in range(size)]

        def once(x: Tensor = x, keys: list[tuple[int, int]] = keys) -> Tensor:
            return restored("denoise", x, prior, choice, device, keys)

        row: dict[str, Any] = {"batch": size}
        results = {}
        for name, way in {"at_once": at_once, "ahead": ahead}.items():
            loop.prepared = way  # type: ignore[assignment]
            results[name] = once()
            row[f"{name}_seconds"] = seconds_of(once, device, 3)
        loop.prepared = as_shipped
        row["same_bits"] = torch.equal(results["at_once"], results["ahead"])
        rows.append(row)
        findings.add(rows=rows, evaluations=choice.nfe)
        if row["same_bits"] is False:
            again = torch.equal(results["at_once"], once())
            findings.check(again is False, f"batch {size}: drawn ahead it is another noise")


def times(settings: Settings, findings: Findings) -> None:
    """`dmps time` of DMPS, DPS and PGDM with the FFHQ network, weights at random, beside the paper's seconds."""
    nfe, methods = settings.pick(100, 2), "dmps,dps,pgdm"
    network = ("--model", "ffhq", "--random-weights")
    network = settings.pick(network, ("--model", "natural", "--image-size", "32", "--no-memory"))
    common = (
        *network,
        "--task",
        "sr4",
        "--sampler",
        "ddpm",
        "--device",
        settings.device,
        "--repeats",
        "1",
        "--nfe",
        str(nfe),
    )
    findings.add(
        evaluations=nfe,
        paper=f"one V100, {nfe} of 1000 evaluations: seconds of the paper's table times {nfe / 1000:g}",
        paper_seconds={name: seconds * nfe / 1000 for name, seconds in V100_SECONDS.items()},
    )
    kept = ("method", "nfe", "size", "seconds", "ratio", "network", "backward", "likelihood", "rest", "peak_mib")
    for dtype, names in (("float32", methods), ("bfloat16", "dmps"), ("float16", "dmps")):
        found = command("time", *common, "--methods", names, "--dtype", dtype)
        rows = [{name: row.get(name) for name in kept} for row in found["rows"]]
        for row in rows:
            paper = V100_SECONDS.get(row["method"])
            row["of_the_papers_seconds"] = None if paper is None else row["seconds"] / (paper * nfe / 1000)
        findings.add(**{dtype: rows, f"{dtype}_peak_mib": found["peak_mib"]})


def evaluation(settings: Settings, findings: Findings) -> None:
    """`dmps eval` on the bundled photographs."""
    size = settings.pick((), ("--image-size", "32", "--fit", "crop", "--limit", "1"))
    nfe = settings.pick("20", "2")
    before = time.perf_counter()
    found = command(
        *("eval", "--dataset", "samples", "--tasks", "sr4,denoise", "--nfe", nfe, "--device", settings.device, *size)
    )
    wall, rows = time.perf_counter() - before, found["rows"]
    findings.add(
        images=len(rows),
        evaluations=int(nfe),
        images_per_second=len(rows) / sum(row["seconds"] for row in rows),
        images_per_second_of_the_command=len(rows) / wall,
        means=[{name: row.get(name) for name in ("task", "psnr", "ssim", "lpips")} for row in found["means"]],
    )
    findings.check(not found.get("failures"), f"failures: {found.get('failures')}")


def training(settings: Settings, findings: Findings) -> None:
    """`dmps train --steps`: the loss of the first steps against the CPU's, the speed, all GPUs by torchrun."""
    import torch

    photos = str(ROOT / "src" / "dmps_cli" / "data" / "photos")
    small = ("--size", "small", "--batch", "4", "--crop", "32", "--steps", settings.pick("12", "3"))
    with tempfile.TemporaryDirectory() as folder:

        def train(name: str, *options: str) -> dict[str, Any]:
            return command("train", photos, "-o", str(Path(folder, f"{name}.safetensors")), *options)

        ours, cpu = (train(f"{k}", *small, "--device", place) for k, place in enumerate((settings.device, "cpu")))
        difference = abs(ours["loss"] / cpu["loss"] - 1.0)
        findings.add(loss=ours["loss"], loss_on_cpu=cpu["loss"], tolerance=TRAIN_TOLERANCE)
        findings.check(difference <= TRAIN_TOLERANCE, f"the loss differs from the CPU's by {difference:.1%}")
        size = settings.pick(("--steps", "150"), ("--steps", "2", "--size", "small", "--crop", "32", "--batch", "2"))
        usual = train("usual", *size, "--device", settings.device)
        rows = Path(folder, "usual.safetensors.csv").read_text().splitlines()
        findings.add(usual={name: usual[name] for name in ("steps", "seconds", "loss", "wait_share")}, log=rows[-4:])
        gpus = torch.cuda.device_count() if settings.is_cuda else 0
        if gpus < 2:
            findings.add(processes=f"{gpus} GPU{'s' * (gpus != 1)} here: torchrun is not tried")
            return
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(gpus)]
        out = str(Path(folder, "all.safetensors"))
        options = ("-m", "dmps_cli", "train", photos, "-o", out, *small, "--device", "cuda", "--json")
        done = subprocess.run([*launcher, *options], capture_output=True, text=True, check=False)
        findings.check(done.returncode == 0, f"torchrun on {gpus} GPUs: {done.stderr[-800:]}")
        findings.add(processes=gpus, loss_of_all=json.loads(done.stdout or "{}").get("loss"))


def profile(settings: Settings, findings: Findings) -> None:
    """Batch 1: kernels and share of the time that the GPU is busy; what CUDA graphs and torch.compile gain."""
    import torch

    from dmps_cli.methods.choice import resolve_sampling

    device = start(settings)
    choice, side = resolve_sampling(task="sr4", nfe=settings.pick(20, 2)), settings.pick(256, 32)
    x, natural = pictures(1, side), prior_of("natural", device)
    whole = partial(restored, "sr4", x, natural, choice, device, [(0, 0)])
    seconds = seconds_of(whole, device, 3)
    count, busy = kernels_of(whole, 1, settings.is_cuda)
    findings.add(
        restoration={"seconds": seconds, "evaluations": choice.nfe, "kernels": count, "busy_share": busy / seconds}
    )
    for name in settings.pick(("natural", "ffhq"), ("natural",)):
        prior, x = prior_of(name, device), torch.randn(1, 3, side, side, device=device)
        cur, nxt = prior.levels("ddpm", 20)[10:12]

        def evaluate(x: Tensor = x, prior: Prior = prior, cur: Any = cur, nxt: Any = nxt) -> Tensor:
            return prior.predict(x, cur, nxt)[0]

        with torch.no_grad():
            eager = seconds_of(evaluate, device, settings.pick(20, 2))
            count, busy = kernels_of(evaluate, settings.pick(5, 1), settings.is_cuda)
            row: dict[str, Any] = {"eager_ms": 1e3 * eager, "kernels": count, "busy_share": busy / eager}
            row["launch_bound"] = row["busy_share"] < 0.8 if settings.is_cuda else None
            findings.add(**{name: row})
            ways = {"cuda_graph_ms": cuda_graph, "compiled_ms": compiled}
            for key, way in ways.items():
                row[key] = tried(partial(way, evaluate, x, device), settings.is_cuda)
                findings.add(**{name: row})


def kernels_of(work: Callable[[], object], repeats: int, is_cuda: bool) -> tuple[float, float]:
    """(kernels, seconds that the device is busy) of a call, by torch's profiler; on a CPU its operators."""
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiler

    work()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    with profiler(activities=activities) as found:
        for _ in range(repeats):
            work()
        if is_cuda:
            import torch

            torch.cuda.synchronize()
    kind = DeviceType.CUDA if is_cuda else DeviceType.CPU
    events = [event for event in found.events() if event.device_type == kind]
    total = sum(event.time_range.elapsed_us() if is_cuda else event.self_cpu_time_total for event in events)
    return len(events) / repeats, 1e-6 * total / repeats


def tried(work: Callable[[], float], is_cuda: bool) -> float | str:
    """Milliseconds, or why there are none."""
    if not is_cuda:
        return "CUDA alone"
    try:
        return 1e3 * work()
    except Exception as exc:  # noqa: BLE001 - one way that does not work is a finding
        return f"failed: {type(exc).__name__}: {str(exc)[:300]}"


def cuda_graph(evaluate: Callable[[], Tensor], x: Tensor, device: torch.device) -> float:
    """Seconds of an evaluation that is replayed as a CUDA graph, its input copied in."""
    import torch

    side_stream = torch.cuda.Stream()
    side_stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side_stream):  # as torch's notes on CUDA graphs have it: warm-up apart
        for _ in range(3):
            evaluate()
    torch.cuda.current_stream().wait_stream(side_stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = evaluate()
    given = x.clone()

    def replay() -> Tensor:
        x.copy_(given)
        graph.replay()
        return output

    seconds = seconds_of(replay, device, 20)
    if not torch.allclose(replay(), evaluate(), atol=1e-4):
        raise RuntimeError("the replayed graph gives another result")
    return seconds


def compiled(evaluate: Callable[[], Tensor], x: Tensor, device: torch.device) -> float:
    """Seconds of an evaluation by torch.compile(mode="reduce-overhead")."""
    import torch

    del x
    fast = torch.compile(evaluate, mode="reduce-overhead")
    return seconds_of(fast, device, 20)


def tests(settings: Settings, findings: Findings) -> None:
    """The tests that touch tensors, on the device."""
    files = [f"tests/{name}" for name in settings.pick(TESTS, TINY_TESTS)]
    with tempfile.TemporaryDirectory() as folder:
        report, pytest = Path(folder, "report.xml"), [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q"]
        done = subprocess.run(
            [*pytest, *files, "--device", settings.device, f"--junitxml={report}"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if not report.exists():
            raise RuntimeError(f"pytest left {done.returncode}: {(done.stderr or done.stdout)[-1500:]}")
        suite = ElementTree.parse(report).getroot().find("testsuite")
    assert suite is not None
    failed = [
        f"{case.get('classname')}::{case.get('name')}: {(fault.get('message') or '')[:300]}"
        for case in suite.iter("testcase")
        for fault in [*case.findall("failure"), *case.findall("error")]
    ]
    findings.add(files=files, count=int(suite.get("tests", "0")), num_failed=len(failed))
    for text in failed[:20]:
        findings.check(False, text)


@dataclass(frozen=True, kw_only=True)
class Part:
    """seconds: its limit."""

    run: Callable[[Settings, Findings], None]
    seconds: float


PARTS = {
    "environment": Part(run=environment, seconds=20),
    "doctor": Part(run=doctor, seconds=25),
    "agreement": Part(run=agreement, seconds=40),
    "rerun": Part(run=rerun, seconds=20),
    "batches": Part(run=batches, seconds=30),
    "noise": Part(run=noise, seconds=15),
    "time": Part(run=times, seconds=60),
    "eval": Part(run=evaluation, seconds=25),
    "train": Part(run=training, seconds=35),
    "profile": Part(run=profile, seconds=40),
    "tests": Part(run=tests, seconds=120),
}
"""In this order: if the time gets short, the last ones are cut."""


# --- Running them


def run_here(name: str, settings: Settings, answer: Path) -> None:
    """A part, in this process."""
    PARTS[name].run(settings, Findings(answer))


def run_apart(name: str, settings: Settings, seconds: float, stop: Mapping[str, bool]) -> dict[str, Any]:
    """A part in a process of its own, which is ended after so many seconds: status, seconds, error, what it found."""
    with tempfile.TemporaryDirectory() as folder:
        answer, said = Path(folder, "answer.json"), Path(folder, "said.txt")
        options = ["--device", settings.device, *(["--tiny"] if settings.tiny else [])]
        begun = time.monotonic()
        with said.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, __file__, "--part", name, "--answer", str(answer), *options],
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            while process.poll() is None and time.monotonic() - begun < seconds and not stop["asked"]:
                time.sleep(0.05)
            is_late = process.poll() is None
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # with all that it started
            process.wait()
        found: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            found = json.loads(answer.read_text())
        failures = found.pop("failures", [])
        status, error = "ok", None
        last_words = said.read_text(errors="replace")[-2000:]
        if is_late:
            status, error = "timed out", f"ended after {seconds:.0f} s; {last_words}"
        elif process.returncode:
            status, error = "error", last_words
        elif failures:
            status, error = "failed", "; ".join(failures)
        taken = round(time.monotonic() - begun, 1)
        return {"status": status, "seconds": taken, "limit": seconds, "error": error, "failures": failures, **found}


def run_all(names: Sequence[str], settings: Settings, limit: float) -> dict[str, Any]:
    """Every part in turn, within the limit; a polite kill ends the part in hand and reports what there is."""
    stop = {"asked": False}

    def ask(number: int, frame: object) -> None:
        del number, frame
        stop["asked"] = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    begun, parts = time.monotonic(), dict[str, Any]()
    for name in names:
        left = limit - (time.monotonic() - begun)
        if stop["asked"] or left < 1.0:
            parts[name] = {"status": "not run", "error": "interrupted" if stop["asked"] else "no time was left"}
            continue
        slack = 4.0 if settings.tiny else 1.0  # a CPU, perhaps a busy one
        parts[name] = run_apart(name, settings, min(PARTS[name].seconds * slack, left), stop)
        print(f"{name}: {parts[name]['status']}, {parts[name]['seconds']} s", file=sys.stderr, flush=True)
    return {
        "device": settings.device,
        "tiny": settings.tiny,
        "seconds": round(time.monotonic() - begun, 1),
        "limit": limit,
        "ok": all(part["status"] == "ok" for part in parts.values()),
        "parts": parts,
    }


def main() -> None:
    """Runs the parts and prints the object; with --part one of them, for the parent process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda", help="as dmps has it; default: cuda")
    parser.add_argument("--tiny", action="store_true", help="small sizes, to try the script itself on a CPU")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of the parts: {', '.join(PARTS)}")
    parser.add_argument(
        "--limit", type=float, help=f"seconds for everything; default: {LIMIT:g}, four times with --tiny"
    )
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    settings = Settings(device=arguments.device, tiny=arguments.tiny)
    if arguments.part:
        try:
            run_here(arguments.part, settings, arguments.answer)
        except Exception:  # noqa: BLE001 - whatever it is, the parent process reports it
            traceback.print_exc()
            raise SystemExit(1) from None
        return
    names = arguments.only.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"no part is called {', '.join(unknown)}; there are {', '.join(PARTS)}")
    limit = arguments.limit or (4.0 * LIMIT if settings.tiny else LIMIT)
    found = run_all(names, settings, limit)
    print(json.dumps(found, indent=1))
    raise SystemExit(0 if found["ok"] else 1)


if __name__ == "__main__":
    main()
