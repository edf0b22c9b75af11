"""Training of the network "natural" on photographs: EDM's loss, an average of the weights, files to go on from.

[EDM] Karras et al. 2022. Learning rate and end depend on the share of the time that is used up, over all calls; what a
step sees depends on (seed, step) alone. So a run that was interrupted goes on as if it had not been.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from dmps_cli.checkpoints import read_checkpoint, read_safetensors, write_safetensors
from dmps_cli.crops import Batch, Collection, Loader, Photo, Shapes, decode, draw_batch
from dmps_cli.curves import draw
from dmps_cli.device import has_fast_bfloat16
from dmps_cli.errors import InputError, NumericsError, OutputError, UsageError, WeightsError
from dmps_cli.files import atomic_write
from dmps_cli.images import from_uint8, png_bytes
from dmps_cli.measurements import versions
from dmps_cli.nets.natural import Natural, NaturalConfig, NaturalNet
from dmps_cli.noise_levels import LevelLosses, NoiseLevels
from dmps_cli.optimizers import MuonAdamW, moments_of
from dmps_cli.report import csv_text
from dmps_cli.sampling import Noise
from dmps_cli.weights import Card, card

ARCHITECTURE = "natural"
SIZES = {"base": NaturalConfig(), "small": NaturalConfig(widths=(32, 48, 64, 96))}
"""Sizes by name: that of the bundled prior (5.7 M values), and a quarter of its cost (1.4 M)."""

WARM_UP = 100  # steps, of the learning rate
LR_OF_WEIGHTS = 1e-3
"""Highest learning rate where given weights begin: that of new ones would undo part of what they know."""

LARGEST_NORM = 1.0  # of the gradient
AVERAGE = 0.9995
AVERAGE_START = 10
MOST_BAD_STEPS = 50

SIGMAS = (15, 25, 50)
"""Noise of the validation, in grey levels of 255."""

VALIDATION_SIDE, VALIDATION_PHOTOS = 192, 16
"""Of at most so many photographs the middle square of so many px."""

SAVE_SECONDS, LEAST_SAVES, ROWS_PER_SAVE, SAVE_SHARE = 180.0, 6, 6, 0.08
"""Seconds between checkpoints; so many in a short run; log rows between two; share of the time they may take."""

STATE_FORMAT = "dmps training state 3"

Row = dict[str, Any]
Clock = Callable[[int], float]
"""Seconds by a clock of any zero, asked before and after each step, with the number of steps done."""


def wall_clock(step: int) -> float:
    """The machine's monotonic clock."""
    del step
    return time.monotonic()


# --- The mathematics


def edm_loss(
    net: Callable[[Tensor, Tensor], Tensor], x: Tensor, s: Tensor, eps: Tensor, sigma_data: float = 0.5
) -> Tensor:
    """(B,): mean over each image's pixels of lambda(s) (D(z; s) - x)^2 ([EDM], Table 1).

        z = x + s eps,  lambda(s) = v / (s sigma_data)^2,  v = s^2 + sigma_data^2

    With D = (sigma_data^2 / v) z + (sigma_data s / sqrt(v)) F this is the mean of (F - target)^2,

        target = (s x - sigma_data^2 eps) / (sigma_data sqrt(v)),

    where small s cancels nothing. x, eps: (B, C, H, W); s: (B,); F = net(z / sqrt(v), ln(s) / 4).
    """
    level = s[:, None, None, None]
    root = (level**2 + sigma_data**2).sqrt()
    f = net(((x + level * eps) / root).contiguous(memory_format=torch.channels_last), s.log() / 4.0)
    target = (level * x - sigma_data**2 * eps) / (sigma_data * root)
    return (f.to(target.dtype) - target).square().mean((1, 2, 3))


def learning_rate(highest: float, share: float, step: int) -> float:
    """highest (1 + cos(pi share)) / 2, rising linearly over the first WARM_UP steps. share: of the time, 0 to 1."""
    return highest * min(1.0, (step + 1) / WARM_UP) * 0.5 * (1.0 + math.cos(math.pi * min(max(share, 0.0), 1.0)))


def average_decay(step: int) -> float:
    """min(0.9995, (1 + k) / (10 + k)) at the k-th update: an average over the last tenth of a short run at first."""
    return min(AVERAGE, (1 + step) / (AVERAGE_START + step))


def initialised(config: NaturalConfig, seed: int) -> NaturalNet:
    """A network to begin with: torch's own draws, but residual branches and output begin at 0, so that F = 0."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = NaturalNet(config)
    for name, parameter in net.named_parameters():
        if ".c2." in name or name.startswith("out."):
            nn.init.zeros_(parameter)
    return net


# --- What is trained


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a prior is trained; kept with the training state. minutes: over all calls; lr: the highest learning rate."""

    minutes: float = 120.0
    batch: int = 12
    crop: int = 96
    lr: float = 3e-3
    seed: int = 0
    licence: str = "not stated"

    @property
    def seconds(self) -> float:
        """Of all calls."""
        return 60.0 * self.minutes

    @property
    def shapes(self) -> Shapes:
        """Of the crops."""
        return Shapes.around(self.batch, self.crop)


class Trainer:
    """The network, the average of its weights and the optimizer on a device, with the count of steps and seconds."""

    def __init__(self, net: NaturalNet, config: NaturalConfig, recipe: Recipe, device: torch.device) -> None:
        self.config, self.recipe, self.device = config, recipe, device
        self.net = net.to(device).to(memory_format=torch.channels_last).train().requires_grad_(True)
        self.ema = copy.deepcopy(self.net).eval().requires_grad_(False)
        self.levels = NoiseLevels()
        self.losses = LevelLosses(self.levels)
        self.denoiser = Natural(self.ema, sigma_min=self.levels.low, sigma_max=self.levels.high)
        self.optimizer = MuonAdamW(self.net, fused=device.type in ("cpu", "cuda"))
        self.step, self.bad_steps, self.seconds = 0, 0, 0.0
        self.rows: list[Row] = []

    @property
    def share(self) -> float:
        """Of the time, used up."""
        return self.seconds / self.recipe.seconds

    @property
    def lr(self) -> float:
        """The learning rate now."""
        return learning_rate(self.recipe.lr, self.share, self.step)

    def autocast(self) -> AbstractContextManager[object]:
        """bfloat16 where the device is fast in it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=has_fast_bfloat16(self.device))

    @torch.enable_grad()
    def take_step(self, batch: Batch) -> float:
        """One step of the optimizer, or none where the gradient is not finite; the mean loss, not weighted."""
        x = batch.x.to(self.device).float() / 127.5 - 1.0
        with self.autocast():
            losses = edm_loss(self.net, x, batch.s.to(self.device), batch.eps.to(self.device), self.denoiser.sigma_data)
        (losses * self.losses.weights(batch.s).to(self.device)).mean().backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.net.parameters(), LARGEST_NORM)
        if math.isfinite(float(norm)):
            self.optimizer.step(self.lr)
            self.losses.update(batch.s, losses.detach())
            self._update_average()
        else:
            self.bad_steps += 1
        self.net.zero_grad(set_to_none=True)
        self.step += 1
        return float(losses.detach().mean())

    @torch.no_grad()
    def _update_average(self) -> None:
        weight = 1.0 - average_decay(self.step - self.bad_steps)
        torch._foreach_lerp_([*self.ema.parameters()], [*self.net.parameters()], weight)

    @torch.no_grad()
    def validate(self, pictures: Sequence[tuple[int, Tensor]]) -> dict[str, float]:
        """psnr_15, psnr_25, psnr_50: mean PSNR in dB of the clipped estimates, of noise that is not clipped.

        pictures: (key of its noise, (1, C, H, W)).
        """
        sums = dict.fromkeys(map(_psnr_name, SIGMAS), 0.0)
        for key, x in pictures:
            for sigma in SIGMAS:
                s = sigma * 2.0 / 255.0
                noisy = (x + s * Noise(0, Noise.MEASUREMENT, [(key, sigma)]).like(x)).to(self.device)
                with self.autocast():
                    x0 = self.denoiser.denoise(noisy, s).clamp(-1.0, 1.0).cpu()
                sums[_psnr_name(sigma)] += 10.0 * math.log10(4.0 / max(float((x0 - x).square().mean()), 1e-12))
        return {name: total / len(pictures) for name, total in sums.items()} if pictures else {}

    def tensors(self) -> dict[str, Tensor]:
        """All tensors of the training state, on the CPU."""
        parts = {"net": self.net, "ema": self.ema}
        found = {f"{part}.{name}": p for part, net in parts.items() for name, p in net.named_parameters()}
        return {name: value.detach().cpu() for name, value in (found | dict(self.optimizer.moments())).items()}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Takes up a training state where it was saved."""
        averages = dict(self.ema.named_parameters())
        self.step, self.bad_steps, self.seconds = facts["step"], facts["bad_steps"], facts["seconds"]
        self.losses = LevelLosses(self.levels, facts["level_losses"])
        self.rows = list(facts["rows"])
        for name, parameter in self.net.named_parameters():
            parameter.copy_(tensors[f"net.{name}"])
            averages[name].copy_(tensors[f"ema.{name}"])
        if (count := self.step - self.bad_steps) > 0:
            self.optimizer.restore(tensors, count)

    def prior_tensors(self, *, full: bool) -> dict[str, Tensor]:
        """The averaged weights as a prior's file has them: matrices and kernels in half precision unless `full`."""
        state = {name: value.detach().cpu() for name, value in self.ema.state_dict().items()}
        return {name: value if full or value.ndim < 2 else value.half() for name, value in sorted(state.items())}


def _psnr_name(sigma: int) -> str:
    return f"psnr_{sigma}"


PSNR_NAMES = tuple(map(_psnr_name, SIGMAS))


# --- Beginnings


def initial_network(name: str, channels: int | None) -> tuple[NaturalNet, NaturalConfig, str]:
    """(a network with the weights of a prior, its sizes, the prior's licence). name: a checkpoint's name or path.

    Raises WeightsError for another architecture, UsageError for another number of channels.
    """
    entry = card(name)
    if entry.architecture not in (ARCHITECTURE, ""):
        raise WeightsError(f"'{name}' is of the architecture {entry.architecture}; only {ARCHITECTURE} can be trained")
    if not entry.location.exists():
        raise WeightsError(f"the weights of '{name}' are not at {entry.location}")
    if entry.location.is_dir():
        raise WeightsError(f"{name} is a folder; name a prior's file")
    state = read_checkpoint(entry.location)
    config = NaturalConfig.from_state(state, str(entry.location))
    if channels not in (None, config.channels):
        raise UsageError(f"{name} has {config.channels} channels, not {channels}; leave out --channels, or --init")
    net = initialised(config, 0)
    expected = net.state_dict()
    if {key: value.shape for key, value in state.items()} != {key: value.shape for key, value in expected.items()}:
        raise WeightsError(f"{entry.location}: its tensors are not those of a '{ARCHITECTURE}' of its sizes")
    net.load_state_dict({key: value.float() for key, value in state.items()})
    return net, config, _licence(entry)


def _licence(entry: Card) -> str:
    """What the file itself says, else its card."""
    metadata = read_safetensors(entry.location)[1] if entry.location.suffix == ".safetensors" else {}
    return metadata.get("licence", entry.licence)


@dataclass(frozen=True, kw_only=True)
class Files:
    """What a run writes: the prior, and beside it the state to go on from, the log, the picture of the log."""

    prior: Path

    def _beside(self, suffix: str) -> Path:
        return self.prior.with_name(self.prior.name + suffix)

    @property
    def state(self) -> Path:
        """Of the training."""
        return self._beside(".state")

    @property
    def log(self) -> Path:
        """CSV."""
        return self._beside(".csv")

    @property
    def picture(self) -> Path:
        """PNG."""
        return self._beside(".png")

    @property
    def all(self) -> tuple[Path, ...]:
        """Every one of them."""
        return self.prior, self.state, self.log, self.picture


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A training state as it was read: its tensors (mapped), sizes, recipe and the other facts."""

    tensors: Mapping[str, Tensor]
    config: NaturalConfig
    recipe: Recipe
    facts: Mapping[str, Any]


def read_state(files: Files) -> Saved:
    """The training state of a run. Raises WeightsError if there is none, naming what to do."""
    if not files.state.exists():
        if not files.prior.exists():
            raise WeightsError(f"there is no {files.state} to go on from, nor {files.prior}")
        NaturalConfig.from_state(read_checkpoint(files.prior), str(files.prior))
        raise WeightsError(f"{files.state} is missing; --init {files.prior} starts from the weights alone")
    tensors, metadata = read_safetensors(files.state)
    if metadata.get("format") != STATE_FORMAT:
        raise WeightsError(
            f"{files.state} is no training state that this version of dmps reads; --init {files.prior} starts from the "
            "weights alone"
        )
    try:
        facts = json.loads(metadata["facts"])
        config = NaturalConfig(**{**facts["config"], "widths": tuple(facts["config"]["widths"])})
        parameters = dict(NaturalNet(config).named_parameters())
        expected = {f"{part}.{n}" for n, p in parameters.items() for part in ("net", "ema", *moments_of(n, p))}
        if expected != tensors.keys():
            raise ValueError("its tensors are not those of its sizes")
        return Saved(tensors=tensors, config=config, recipe=Recipe(**facts["recipe"]), facts=facts)
    except (KeyError, TypeError, ValueError) as exc:
        raise WeightsError(f"{files.state} is damaged ({exc}); --init {files.prior} starts from the weights") from exc


def validation_pictures(photos: Sequence[Photo], channels: int) -> list[tuple[int, Tensor]]:
    """(key, the middle (1, C, h, w)) of the first readable ones by the hash of their names."""
    pictures: list[tuple[int, Tensor]] = []
    for photo in sorted(photos, key=lambda photo: photo.key):
        if len(pictures) == VALIDATION_PHOTOS:
            break
        try:
            pixels = decode(photo.path, channels)
        except InputError:
            continue
        height, width = (min(side, VALIDATION_SIDE) for side in pixels.shape[:2])
        top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
        pictures.append((photo.key, from_uint8(pixels[top : top + height, left : left + width])[None]))
    return pictures


# --- The run


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a run stands after a step. loss: the mean since the last row of the log; psnr: the last measured."""

    step: int
    seconds: float
    loss: float
    steps_per_second: float
    psnr: Mapping[str, float]
    is_row: bool = False
    is_saved: bool = False


@dataclass(kw_only=True)
class Run:
    """One call: trains until the time is used up, or until `stop` says so; saves now and then, and at the end.

    facts: of the photographs, for the metadata. on_progress is told after each step and each row of the log; note what
    went wrong without ending the run.
    """

    trainer: Trainer
    collection: Collection
    pictures: Sequence[tuple[int, Tensor]]
    files: Files
    facts: Mapping[str, str]
    full: bool = False
    clock: Clock = wall_clock
    stop: Callable[[], bool] = lambda: False
    on_progress: Callable[[Progress], object] = lambda progress: None
    note: Callable[[str], object] = lambda text: None
    wait_share: float = 0.0
    loss: float = math.nan
    losses: list[float] = field(default_factory=list)
    psnr: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for row in self.trainer.rows:
            self.psnr |= {name: row[name] for name in PSNR_NAMES if row.get(name) is not None}

    def train(self) -> None:
        """Runs. Raises KeyboardInterrupt, all saved, once `stop` says so; NumericsError if the loss stays infinite.

        OutputError is raised by the first and by the last checkpoint; in between a full disk is noted, and the next
        checkpoint is another chance.
        """
        trainer, recipe = self.trainer, self.trainer.recipe
        if trainer.step == 0:
            self.save()  # a disk without room is better met now
        draw_step = partial(draw_batch, self.collection, recipe.shapes, trainer.levels, recipe.seed)
        start, used, first_step = self.clock(trainer.step), trainer.seconds, trainer.step
        save_every = due_every = min(SAVE_SECONDS, recipe.seconds / LEAST_SAVES)
        saved = rowed = used
        bad_before, is_stopped = trainer.bad_steps, False
        with Loader(draw_step, trainer.step) as loader:
            begun = mark = time.perf_counter()
            waited = 0.0
            while trainer.share < 1.0 and not (is_stopped := self.stop()):
                loss = trainer.take_step(loader.take())
                trainer.seconds = used + self.clock(trainer.step) - start
                if math.isfinite(loss):
                    self.losses.append(loss)
                    bad_before = trainer.bad_steps
                elif trainer.bad_steps - bad_before >= MOST_BAD_STEPS:
                    raise NumericsError(
                        f"the loss was not finite for {MOST_BAD_STEPS} steps; {self.files.prior} holds the last good "
                        "weights; go on with --resume and a smaller --lr"
                    )
                now = time.perf_counter()
                self.wait_share = loader.wait_seconds / max(now - begun, 1e-9)
                rate = (trainer.step - first_step) / max(now - begun, 1e-9)
                if trainer.seconds - saved >= save_every and trainer.share < 1.0:
                    self.add_row(rate, (loader.wait_seconds - waited) / (now - mark), validate=True)
                    self._try_to_save()
                    begun_saving = trainer.seconds
                    saved = rowed = trainer.seconds = used + self.clock(trainer.step) - start
                    save_every = max(due_every, (saved - begun_saving) / SAVE_SHARE)
                elif trainer.seconds - rowed >= save_every / ROWS_PER_SAVE:
                    self.add_row(rate, (loader.wait_seconds - waited) / (now - mark), validate=False)
                    rowed = trainer.seconds
                else:
                    self.on_progress(self._progress(rate))
                    continue
                mark, waited = time.perf_counter(), loader.wait_seconds
        self.add_row(rate if trainer.step > first_step else 0.0, self.wait_share, validate=not is_stopped)
        trainer.seconds = used + self.clock(trainer.step) - start
        self.save()
        if is_stopped:
            raise KeyboardInterrupt
        atomic_write(self.files.picture, png_bytes(draw(trainer.rows, PSNR_NAMES)), overwrite=True)

    def _progress(self, rate: float, *, is_row: bool = False, is_saved: bool = False) -> Progress:
        if self.losses:
            self.loss = sum(self.losses) / len(self.losses)
        return Progress(
            step=self.trainer.step,
            seconds=self.trainer.seconds,
            loss=self.loss,
            steps_per_second=rate,
            psnr=self.psnr,
            is_row=is_row,
            is_saved=is_saved,
        )

    def add_row(self, rate: float, wait_share: float, *, validate: bool) -> None:
        """A row of the log: what the steps since the last one gave; of a row's own step, only what is measured now."""
        trainer = self.trainer
        measured = trainer.validate(self.pictures) if validate else {}
        self.psnr = measured or self.psnr
        progress = self._progress(rate, is_row=True, is_saved=validate)
        row: Row = {"step": trainer.step, "seconds": round(trainer.seconds, 3), "lr": trainer.lr}
        row["loss"] = progress.loss if self.losses else None
        if not (trainer.rows and trainer.rows[-1]["step"] == trainer.step):
            trainer.rows.append(row | dict.fromkeys(PSNR_NAMES) | {"wait_share": wait_share})
        trainer.rows[-1].update(measured)
        self.losses.clear()
        self.on_progress(progress)

    def _try_to_save(self) -> None:
        try:
            self.save()
        except OutputError as exc:
            self.note(f"{exc}; the training goes on, {self.files.prior} is that of the last checkpoint")

    def save(self) -> None:
        """Writes the state, the prior and the log, each whole or not at all. Raises OutputError."""
        trainer = self.trainer
        check_room(self.files, trainer)
        facts = {
            "step": trainer.step,
            "bad_steps": trainer.bad_steps,
            "seconds": trainer.seconds,
            "level_losses": trainer.losses.means,
            "rows": trainer.rows,
            "config": asdict(trainer.config),
            "recipe": asdict(trainer.recipe),
            "photographs": dict(self.facts),
        }
        metadata = {"format": STATE_FORMAT, "facts": json.dumps(facts)}
        write_safetensors(self.files.state, trainer.tensors(), metadata, where=str(self.files.state))
        prior = trainer.prior_tensors(full=self.full)
        write_safetensors(self.files.prior, prior, self.metadata(), where=str(self.files.prior))
        atomic_write(self.files.log, csv_text(trainer.rows or [{"step": 0}]).encode(), overwrite=True)

    def metadata(self) -> dict[str, str]:
        """What the prior's file says of itself."""
        trainer, config = self.trainer, self.trainer.config
        psnr = {name: f"{value:.3f}" for name, value in self.psnr.items()}
        return {
            "architecture": ARCHITECTURE,
            "format_version": "1",
            "channels": str(config.channels),
            "widths": ",".join(map(str, config.widths)),
            "num_blocks": str(config.num_blocks),
            "sigma_data": str(trainer.denoiser.sigma_data),
            "sigma_min": str(trainer.levels.low),
            "sigma_max": str(trainer.levels.high),
            "precision": "float32" if self.full else "matrices and kernels float16, vectors float32",
            "steps": str(trainer.step),
            "skipped_steps": str(trainer.bad_steps),
            "seconds": f"{trainer.seconds:.0f}",
            "recipe": json.dumps({key: value for key, value in asdict(trainer.recipe).items() if key != "licence"}),
            "licence": trainer.recipe.licence,
            "versions": json.dumps(versions()),
            **self.facts,
            **psnr,
        }


def check_room(files: Files, trainer: Trainer) -> None:
    """Raises OutputError if the disk has not the room for a checkpoint, which stands beside the last one a moment."""
    folder = files.prior.parent
    copies = {name: 3 + len(moments_of(name, p)) for name, p in trainer.net.named_parameters()}  # state, and the prior
    needed = sum(4 * copies[name] * p.numel() for name, p in trainer.net.named_parameters())
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"no room on the disk for {files.state}: {needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free; "
            "free some and go on with --resume"
        )


@dataclass(frozen=True, kw_only=True)
class Start:
    """How a run begins: a new network of these sizes, the weights of a prior, or a state."""

    recipe: Recipe
    config: NaturalConfig
    net: NaturalNet | None = None
    saved: Saved | None = None

    @classmethod
    def new(cls, size: str, channels: int, recipe: Recipe) -> Self:
        """From nothing."""
        return cls(recipe=recipe, config=replace(SIZES[size], channels=channels))

    def trainer(self, device: torch.device) -> Trainer:
        """Ready for the next step."""
        net = self.net if self.net is not None else initialised(self.config, self.recipe.seed)
        trainer = Trainer(net, self.config, self.recipe, device)
        if self.saved is not None:
            trainer.restore(self.saved.tensors, self.saved.facts)
        return trainer
