"""Trains the larger network on one GPU for some minutes, from the bundled weights; benchmarks/train_gpu.sh runs it.

As `dmps train` has it: the loss, the noise levels, what a loss counts, Muon and AdamW. What differs: the photographs
lie in the GPU's memory and crops are drawn there, nothing waits for a step, two averages of the weights are followed.
Every minute the average that is better on the photographs to measure on is written, with a line of its PSNR at sigma
15, 25 and 50, so that a run that ends at any moment leaves what it has reached. SIGTERM and Ctrl-C end it in order.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import signal
import sys
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

import dmps_cli
from benchmarks.device_photos import DevicePhotos, read_zip
from dmps_cli.device import describe, has_fast_bfloat16, resolve_device, synchronize, tune_allocator
from dmps_cli.errors import DmpsError, InputError, MemoryShortageError, memory_errors
from dmps_cli.files.atomic import atomic_write
from dmps_cli.files.tensors import load_plain, write_safetensors
from dmps_cli.nets.beginnings import grown
from dmps_cli.nets.natural import SIZES, Block, Natural, NaturalConfig, NaturalNet
from dmps_cli.training.muon import MuonAdamW
from dmps_cli.training.noise_levels import LevelLosses, NoiseLevels
from dmps_cli.training.objective import (
    LARGEST_NORM,
    SIGMAS,
    edm_loss,
    learning_rate,
    network_facts,
    power_decay,
    psnr,
    stored,
)

ROOT = Path(__file__).resolve().parent.parent
BUNDLED = Path(dmps_cli.__file__).parent / "data" / "natural.safetensors"
PHOTOGRAPHS = "photographs.zip"
PRIOR, LOG = "prior.safetensors", "log.csv"

START_SECONDS = 40.0
"""What reading, the search for the batch and the compiler may take beside `--minutes`; more shortens the training."""

FINISH_SECONDS = 5.0  # for the last validation and the files
AVERAGES = {"5 %": 16.97, "10 %": 6.94}
"""Exponents of `power_decay` by the standard deviation of their weights in time, as a share of the run."""

LEAST_BATCH, MOST_BATCH, PAYS, SEARCH_SECONDS = 16, 1024, 1.05, 10.0
"""A batch twice as large must give so many times the crops a second; how long larger ones are tried."""

LACKING = 15
"""Most px that a large crop has less than its side: networks pad to multiples of 16."""

LEAST_SCALE = 0.5
CHECK_STEPS = 100
"""Between looks at whether all is finite, which a GPU has to be waited for."""

VALIDATION_BATCH = 8


def note(text: str) -> None:
    """A line on stdout, at once."""
    print(text, flush=True)


# --- One step


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How it is trained. batch: crops of `crop` px a step; every fourth step has a quarter, of twice the side."""

    size: str
    minutes: float
    steps: int | None
    lr: float
    seed: int
    crop: int
    batch: int

    def shape(self, step: int) -> tuple[int, int]:
        """(how many, side px) of a step: large crops of odd sizes too, where the network has to pad."""
        if step % 4 < 3:
            return self.batch, self.crop
        return max(1, self.batch // 4), 2 * self.crop - random.Random(f"{self.seed} {step}").randrange(LACKING + 1)

    def scale(self, step: int) -> float:
        """Of the half of a step's crops that are shrunk."""
        return random.Random(f"{self.seed} {step} scale").uniform(LEAST_SCALE, 1.0)


def draw(photos: DevicePhotos, plan: Plan, levels: NoiseLevels, step: int) -> tuple[Tensor, Tensor, Tensor]:
    """(x, s, eps) of a step, on the device: a function of the plan and the step. (B, 3, H, W), (B,), like x."""
    device, (count, side) = photos.pixels.device, plan.shape(step)
    generator = torch.Generator(device).manual_seed(random.Random(f"{plan.seed} {step} device").getrandbits(62))
    parts = [(count - count // 2, 1.0), (count // 2, plan.scale(step))]
    x = torch.cat([photos.crops(n, side, scale, generator) for n, scale in parts if n])
    kind, u = torch.rand(2, count, generator=generator, device=device, dtype=torch.float64)
    return x, levels.at(kind, u).float(), torch.randn(x.shape, generator=generator, device=device)


MOST_PROGRAMS = 64
"""Of one function: one for each width and shape, where torch makes eight before it gives up without a word."""

Compiler = Callable[[Callable[..., Tensor]], Callable[..., Tensor]]


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """By torch.compile, for each shape anew."""
    from torch._dynamo import config

    for name in ("recompile_limit", "cache_size_limit"):  # by the version of torch
        if hasattr(config, name):
            setattr(config, name, MOST_PROGRAMS)
    return torch.compile(function, dynamic=False)


class Compiled:
    """The network's blocks, compiled; of shapes for which that fails, or does not pay, as they were.

    compiler: makes of a function a faster one; None: nothing is compiled.
    """

    def __init__(self, net: nn.Module, compiler: Compiler | None) -> None:
        self.forwards: list[tuple[Block, Callable[..., Tensor]]] = []
        self.left_out: set[tuple[int, ...]] = set()
        self.is_off = False
        blocks = [module for module in net.modules() if isinstance(module, Block)]
        try:
            self.forwards = [(block, compiler(block.forward)) for block in blocks] if compiler else []
        except Exception as exc:  # noqa: BLE001 - whatever a compiler that is not all there may raise
            note(f"nothing is compiled: {_in_short(exc)}")

    def switch(self, shape: tuple[int, ...]) -> bool:
        """Whether the blocks are compiled from here on, for this shape of a batch."""
        is_on = bool(self.forwards) and shape not in self.left_out and not self.is_off
        for block, forward in self.forwards:
            if is_on:
                block.forward = forward  # type: ignore[method-assign]
            else:
                block.__dict__.pop("forward", None)
        return is_on

    @contextmanager
    def off(self) -> Iterator[None]:
        """Nothing is compiled within."""
        self.is_off = True
        try:
            yield
        finally:
            self.is_off = False

    def leave_out(self, shape: tuple[int, ...], why: str) -> None:
        """From here on that shape is not compiled."""
        self.left_out.add(shape)
        note(f"not compiled for crops of {'x'.join(map(str, shape))}: {why}")


class Learner:
    """The network, two averages of its weights and the optimizer on a device."""

    def __init__(self, net: NaturalNet, device: torch.device, compiler: Compiler | None = None) -> None:
        self.device, self.levels = device, NoiseLevels()
        self.net = net.to(device).to(memory_format=torch.channels_last).train().requires_grad_(True)
        self.averages = {name: copy.deepcopy(self.net).eval().requires_grad_(False) for name in AVERAGES}
        self.compiled = Compiled(self.net, compiler)
        self.begin()

    def begin(self) -> None:
        """From the weights as they are, nothing remembered."""
        self.losses = LevelLosses(self.levels, device=self.device)
        self.optimizer = MuonAdamW(self.net, fused=self.device.type in ("cpu", "cuda"))
        self.step, self.num_crops = 0, 0
        self.loss = torch.zeros((), device=self.device)  # sum since the last report

    def autocast(self) -> AbstractContextManager[object]:
        """bfloat16 where the device is fast in it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=has_fast_bfloat16(self.device))

    def take_step(self, x: Tensor, s: Tensor, eps: Tensor, lr: float) -> None:
        """One step of the optimizer; what it gives is not waited for. Raises MemoryShortageError, nothing changed."""
        with memory_errors():
            losses = self._gradients(x, s, eps)
        nn.utils.clip_grad_norm_(self.net.parameters(), LARGEST_NORM)
        self.optimizer.step(lr)
        self.net.zero_grad(set_to_none=True)
        self.losses.update(s, losses)
        self.step += 1
        self.num_crops += len(x)
        self.loss += losses.mean()
        with torch.no_grad():
            for name, exponent in AVERAGES.items():
                weight = 1.0 - power_decay(self.step, exponent)
                torch._foreach_lerp_([*self.averages[name].parameters()], [*self.net.parameters()], weight)

    def _gradients(self, x: Tensor, s: Tensor, eps: Tensor) -> Tensor:
        """The losses, (B,). A failure of compiled code is met here: the step is computed again without it."""
        shape = (len(x), *(side + -side % self.net.multiple for side in x.shape[2:]))
        is_compiled = self.compiled.switch(shape)
        try:
            return self._backward(x, s, eps)
        except Exception as exc:
            self.net.zero_grad(set_to_none=True)
            if not is_compiled or _is_memory(exc):
                raise
            self.compiled.leave_out(shape, _in_short(exc))
        self.compiled.switch(shape)
        return self._backward(x, s, eps)

    @torch.enable_grad()
    def _backward(self, x: Tensor, s: Tensor, eps: Tensor) -> Tensor:
        with self.autocast():
            losses = edm_loss(self.net, x, s, eps)
        (losses * self.losses.weights(s)).mean().backward()
        return losses.detach()

    def state(self) -> list[Tensor]:
        """Copies of the weights and of their averages."""
        return [p.detach().clone() for net in self._nets() for p in net.parameters()]

    @torch.no_grad()
    def restore(self, state: Sequence[Tensor]) -> None:
        """Takes up the weights and their averages; the optimizer begins anew."""
        torch._foreach_copy_([p for net in self._nets() for p in net.parameters()], list(state))
        self.loss.zero_()
        self.optimizer = MuonAdamW(self.net, fused=self.device.type in ("cpu", "cuda"))

    def _nets(self) -> list[nn.Module]:
        return [self.net, *self.averages.values()]

    def is_finite(self) -> bool:
        """Whether all of it is, and the losses since the last report."""
        parameters = [p for net in self._nets() for p in net.parameters()]
        return bool(torch.stack([self.loss, *torch._foreach_norm(parameters)]).isfinite().all())


def _in_short(exc: Exception) -> str:
    return f"{type(exc).__name__}: {' '.join(str(exc).split())[:200]}"


def _is_memory(exc: Exception) -> bool:
    try:
        with memory_errors():
            raise exc
    except MemoryShortageError:
        return True
    except Exception:  # noqa: BLE001 - the one that was asked about
        return False


# --- The batch


def crops_per_second(learner: Learner, photos: DevicePhotos, plan: Plan, first: int = 0, count: int = 3) -> float:
    """Of steps of one shape, that of the step `first`, after one that is not counted. Raises MemoryShortageError."""
    for k in range(count + 1):
        if k == 1:
            synchronize(learner.device)
            start = time.perf_counter()
        with memory_errors():
            batch = draw(photos, plan, learner.levels, first)
        learner.take_step(*batch, 0.0)
    synchronize(learner.device)
    return count * plan.shape(first)[0] / (time.perf_counter() - start)


def batch_that_pays(learner: Learner, photos: DevicePhotos, plan: Plan) -> int:
    """The largest batch up to which twice as many crops a step gave more of them a second."""
    start, batch, best = time.perf_counter(), LEAST_BATCH, 0.0
    while batch <= MOST_BATCH and time.perf_counter() - start < SEARCH_SECONDS:
        try:
            rate = crops_per_second(learner, photos, replace(plan, batch=batch))
        except MemoryShortageError:
            note(f"batches of {batch}: out of memory")
            break
        note(f"batches of {batch}: {rate:.0f} crops/s")
        if rate < PAYS * best:
            break
        best, batch = rate, 2 * batch
    if learner.device.type == "cuda":
        torch.cuda.empty_cache()
    return max(batch // 2, 1)


def compile_what_pays(learner: Learner, photos: DevicePhotos, plan: Plan) -> None:
    """Compiles for the shapes of the plan; where that is slower than without, it is left out."""
    for first in (0, 3):
        count, side = plan.shape(first)
        padded = side + -side % learner.net.multiple
        shape = (count, padded, padded)
        try:
            with learner.compiled.off():
                plain = crops_per_second(learner, photos, plan, first)
            start = time.perf_counter()
            rate = crops_per_second(learner, photos, plan, first)
        except MemoryShortageError:
            learner.compiled.leave_out(shape, "out of memory")
            continue
        note(f"crops of {side} px: {plain:.0f} a second, compiled {rate:.0f} ({time.perf_counter() - start:.0f} s)")
        if rate < plain and shape not in learner.compiled.left_out:
            learner.compiled.leave_out(shape, "slower")


# --- The run


@dataclass(kw_only=True)
class GpuRun:
    """A training, its files and its clock. facts: for the metadata; pictures: to measure on, (n, 3, H, W) each."""

    learner: Learner
    photos: DevicePhotos
    pictures: Sequence[Tensor]
    plan: Plan
    out: Path
    config: NaturalConfig
    facts: Mapping[str, str]
    report_seconds: float
    part_bytes: int
    is_stopped: Callable[[], bool] = lambda: False
    rows: list[dict[str, Any]] = field(default_factory=list)
    slowing: float = 1.0  # of the learning rate, after a divergence

    def train(self, end: float) -> None:
        """Trains until `end` of time.monotonic(), or for the plan's steps; reports now and then, and at the end."""
        learner, lr = self.learner, 0.0
        self.start = self.mark = time.monotonic()
        self.report(lr)
        good = learner.state()
        while (share := self.share(end)) < 1.0 and not self.is_stopped():
            lr = learning_rate(self.slowing * self.plan.lr, share, learner.step)
            self.take_step(lr)
            is_due = time.monotonic() - self.mark >= self.report_seconds
            if (is_due or learner.step % CHECK_STEPS == 0) and not learner.is_finite():
                learner.restore(good)
                self.slowing /= 2.0
                note(f"step {learner.step}: not finite; back to the last checkpoint, at {self.slowing:g} of the rate")
            elif is_due:
                self.report(lr)
                good = learner.state()
        if not learner.is_finite():
            learner.restore(good)
        if learner.step != self.rows[-1]["step"]:
            self.report(lr)

    def share(self, end: float) -> float:
        """Of the time, or of the steps, used up."""
        if self.plan.steps is not None:
            return self.learner.step / self.plan.steps
        return (time.monotonic() - self.start) / max(end - self.start, 1e-9)

    def take_step(self, lr: float) -> None:
        """One step; where memory falls short, with half of the batch from here on."""
        while True:
            try:
                with memory_errors():
                    batch = draw(self.photos, self.plan, self.learner.levels, self.learner.step)
                self.learner.take_step(*batch, lr)
            except MemoryShortageError:
                if self.plan.batch == 1:
                    raise
                self.plan = replace(self.plan, batch=self.plan.batch // 2)
                note(f"out of memory: batches of {self.plan.batch} from here on")
            else:
                return

    def report(self, lr: float) -> None:
        """Measures both averages, writes the better one and the log, says a line."""
        learner = self.learner
        if learner.step:
            found = {name: self.measured(net) for name, net in learner.averages.items()}
        else:
            found = dict.fromkeys(AVERAGES, self.measured(learner.net))
        best = max(found, key=lambda name: fmean(found[name]))
        before = self.rows[-1] if self.rows else {"step": 0, "crops": 0}
        steps, seconds = learner.step - before["step"], time.monotonic() - self.start
        rate = (learner.num_crops - before["crops"]) / max(time.monotonic() - self.mark, 1e-9)
        loss = float(learner.loss) / max(steps, 1)
        learner.loss.zero_()
        row = {"step": learner.step, "seconds": round(seconds, 1), "crops": learner.num_crops, "lr": lr, "loss": loss}
        row |= {f"psnr_{s} {name}": round(v, 3) for name in found for s, v in zip(SIGMAS, found[name], strict=True)}
        self.rows.append(row)
        self.write(best, found[best])
        values = " ".join(f"{value:.3f}" for value in found[best])
        note(
            f"step {learner.step}, {seconds:.0f} s, lr {lr:.2e}, loss {loss:.4f}, {rate:.0f} crops/s, PSNR {values} "
            f"(average over {best})"
        )
        self.mark = time.monotonic()

    @torch.no_grad()
    def measured(self, net: nn.Module) -> list[float]:
        """Mean PSNR in dB at SIGMAS over the photographs to measure on, in float32; always the same noise."""
        denoiser = Natural(net, sigma_min=self.learner.levels.low, sigma_max=self.learner.levels.high)
        found: list[float] = []
        for sigma in SIGMAS:
            s, values = sigma * 2.0 / 255.0, []
            for k, pictures in enumerate(self.pictures):
                noise = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(1000 * k + sigma))
                x = pictures.to(self.learner.device)
                values += psnr(denoiser.denoise(x + s * noise.to(x), s), x).tolist()
            found.append(fmean(values))
        return found

    def write(self, best: str, values: Sequence[float]) -> None:
        """The prior and the log, each whole or not at all."""
        first = self.rows[0]
        others = " or ".join({*AVERAGES} - {best})
        metadata = {
            **network_facts(self.config, self.learner.levels),
            "steps": str(self.learner.step),
            "seconds": str(self.rows[-1]["seconds"]),
            "crops": str(self.learner.num_crops),
            "average": f"over {best} of the run, better on the photographs to measure on than over {others}",
            "recipe": json.dumps(asdict(self.plan)),
            "device": describe(self.learner.device),
            "versions": json.dumps({"dmps": dmps_cli.__version__, "torch": torch.__version__}),
            **self.facts,
            **{f"psnr_{s}": f"{value:.3f}" for s, value in zip(SIGMAS, values, strict=True)},
            **{f"psnr_{s}_at_first": str(first[f"psnr_{s} {best}"]) for s in SIGMAS},
        }
        path = self.out / PRIOR
        write_safetensors(path, stored(self.learner.averages[best].state_dict()), metadata, where=PRIOR)
        lines = [",".join(self.rows[0]), *(",".join(map(str, row.values())) for row in self.rows)]
        atomic_write(self.out / LOG, "\n".join([*lines, ""]).encode(), overwrite=True)
        if self.part_bytes:
            self.write_parts(path.read_bytes())

    def write_parts(self, content: bytes) -> None:
        """The prior in pieces, named by the step; those of the step before go once they are whole."""
        old = set(self.out.glob(f"{PRIOR}.step*"))
        cuts = [*range(0, len(content), self.part_bytes), len(content)]
        for k, (begin, end) in enumerate(pairwise(cuts), start=1):
            path = self.out / f"{PRIOR}.step{self.learner.step}.{k}of{len(cuts) - 1}"
            atomic_write(path, content[begin:end], overwrite=True)
            old.discard(path)
        for path in old:
            path.unlink()


def grouped(photos: Sequence[Tensor]) -> list[Tensor]:
    """Photographs (H, W, 3) of uint8 as batches of equal sizes on [-1, 1]: (n, 3, H, W)."""
    alike: dict[torch.Size, list[Tensor]] = {}
    for photo in photos:
        alike.setdefault(photo.shape, []).append(photo.permute(2, 0, 1).float() / 127.5 - 1.0)
    return [batch for group in alike.values() for batch in torch.stack(group).split(VALIDATION_BATCH)]


def stop_asked() -> Callable[[], bool]:
    """Whether SIGTERM or Ctrl-C came since."""
    asked: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: asked.append(number))
    return lambda: bool(asked)


def prepared(options: argparse.Namespace, is_stopped: Callable[[], bool]) -> GpuRun:
    """Reads everything, finds the batch, compiles. Raises DmpsError."""
    device = resolve_device(options.device)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    path = options.data / PHOTOGRAPHS
    if not path.is_file():
        raise InputError(f"{path} is not there; make the folder with benchmarks/pack_gpu.py and name it with --data")
    training, measured = (read_zip(path, part, note) for part in ("training", "validation"))
    if not training or not measured:
        raise InputError(f"{path} has {len(training)} photographs to train on and {len(measured)} to measure on")
    with_facts = json.loads(zipfile.Path(path, "facts.json").read_text("utf-8"))
    state, said = load_plain(options.init)
    config = SIZES[options.size]
    net = grown(state, config, options.seed, str(options.init))
    steps = f", {said['steps']} steps" if "steps" in said else ""
    facts = {**with_facts, "initial_weights": f"{options.init.name}{steps}, terms: {said.get('licence', 'not stated')}"}
    is_compiling = options.compile if options.compile is not None else device.type == "cuda"
    learner = Learner(net, device, compiled if is_compiling else None)
    photos = DevicePhotos.of(training, device)
    plan = Plan(
        size=options.size,
        minutes=options.minutes,
        steps=options.steps,
        lr=options.lr,
        seed=options.seed,
        crop=options.crop,
        batch=options.batch or LEAST_BATCH,
    )
    note(
        f"{options.size}, {sum(p.numel() for p in net.parameters()):,} values; {describe(device)}; {len(training)} "
        f"photographs to train on, {len(measured)} to measure on"
    )
    begun = learner.state()
    if not options.batch:
        with learner.compiled.off():
            plan = replace(plan, batch=batch_that_pays(learner, photos, plan))
    if is_compiling and not is_stopped():
        compile_what_pays(learner, photos, plan)
    learner.restore(begun)
    learner.begin()
    return GpuRun(
        learner=learner,
        photos=photos,
        pictures=grouped(measured),
        plan=plan,
        out=options.out,
        config=config,
        facts=facts,
        report_seconds=options.report,
        part_bytes=int(options.part_mib * 2**20),
        is_stopped=is_stopped,
    )


def main() -> int:
    """Reads the command line; 0 once trained, 130 if it was asked to end before."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT, help="folder with photographs.zip (default: this one)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the prior and the log")
    parser.add_argument("--minutes", type=float, default=8.0, help="of training (default: 8)")
    parser.add_argument("--steps", type=int, help="so many steps in place of minutes")
    parser.add_argument("--size", choices=SIZES, default="large", help="of the network (default: large)")
    parser.add_argument("--init", type=Path, default=BUNDLED, help="weights to begin with (default: the bundled ones)")
    parser.add_argument("--lr", type=float, default=2e-3, help="highest learning rate (default: 0.002)")
    parser.add_argument("--crop", type=int, default=128, help="px; twice that in a quarter of the steps (default: 128)")
    parser.add_argument("--batch", type=int, help="crops a step (default: measured)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--report", type=float, default=60.0, help="seconds between checkpoints (default: 60)")
    parser.add_argument("--part-mib", type=float, default=0.0, help="write the prior in pieces of so many MiB as well")
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, help="default: on a GPU")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--started", type=float, help="Unix time at which the command began (default: now)")
    options = parser.parse_args()
    late = max(time.time() - options.started, 0.0) if options.started else 0.0
    end = time.monotonic() - late + START_SECONDS + 60.0 * options.minutes - FINISH_SECONDS
    is_stopped = stop_asked()
    tune_allocator()
    options.out.mkdir(parents=True, exist_ok=True)
    try:
        run = prepared(options, is_stopped)
        run.train(end)
    except DmpsError as exc:
        print(f"train_gpu: error: {exc}", file=sys.stderr)
        return exc.exit_code
    note(str(options.out / PRIOR))
    return 130 if is_stopped() else 0


if __name__ == "__main__":
    sys.exit(main())
