"""Denoisers out of diffusers folders: an unconditional UNet2DModel on pixels and its noise schedule.

The network is that of the `diffusers` package, an optional extra: its blocks are many, its files name which.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import torch
from msgspec import Meta, Struct
from torch import Tensor, nn

from dmps_cli.errors import WeightsError
from dmps_cli.files.reading import decoding, read_bytes
from dmps_cli.files.records import RecordError, as_record, one_of, parse_json
from dmps_cli.levels import ddpm_time
from dmps_cli.nets.layers import clipped
from dmps_cli.nets.loading import load_state
from dmps_cli.nets.options import MAX_BLOCKS, MAX_LEVELS, MAX_WIDTH

T = TypeVar("T")
PREDICTIONS = ("epsilon", "v_prediction", "sample")
CLIPPING_SCHEDULERS = ("DDPMScheduler", "DDIMScheduler")
"""Those of diffusers that clip x0 unless their configuration says otherwise."""

MAX_STEPS = 100_000
Width = Annotated[int, Meta(ge=1, le=MAX_WIDTH)]
Beta = Annotated[float, Meta(gt=0.0, lt=1.0)]


class Schedule(Struct, frozen=True, kw_only=True, rename={"class_name": "_class_name"}):
    """What is read of a scheduler_config.json, with diffusers' own defaults."""

    class_name: str = "DDPMScheduler"
    prediction_type: Annotated[str, one_of(PREDICTIONS)] = "epsilon"
    beta_schedule: str | None = "linear"
    num_train_timesteps: Annotated[int, Meta(ge=1, le=MAX_STEPS)] = 1000
    beta_start: Beta = 1e-4
    beta_end: Beta = 0.02
    trained_betas: Annotated[list[Beta], Meta(min_length=1, max_length=MAX_STEPS)] | None = None
    rescale_betas_zero_snr: bool | None = None
    thresholding: bool | None = None
    clip_sample: bool | None = None
    clip_sample_range: Annotated[float, Meta(gt=0.0, le=1e4)] = 1.0

    @property
    def clip(self) -> float | None:
        """The bound of |x0|, if there is one."""
        clips = self.class_name in CLIPPING_SCHEDULERS if self.clip_sample is None else self.clip_sample
        return self.clip_sample_range if clips else None


class Network(Struct, frozen=True, kw_only=True, rename={"class_name": "_class_name"}):
    """What is checked of a network's config.json before diffusers builds it."""

    class_name: str = ""
    sample_size: Width | list[Width] | None = None
    in_channels: Width = 3
    out_channels: Width = 3
    layers_per_block: Annotated[int, Meta(ge=1, le=MAX_BLOCKS)] = 2
    block_out_channels: Annotated[list[Width], Meta(min_length=1, max_length=MAX_LEVELS)] | None = None
    attention_head_dim: Width | None = 8
    norm_num_groups: Width = 32
    time_embedding_type: str = "positional"
    class_embed_type: str | None = None
    num_class_embeds: int | None = None


WEIGHTS_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_ATTENTION_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Names of attention layers in files of diffusers before 0.15, and since."""


class DiffusersDenoiser(nn.Module):
    """D(z; s) = E[x0 | x0 + s eps = z] from a network of a variance-preserving chain, whatever its schedule.

        x = a z,  a = 1 / sqrt(1 + s^2),  b = s a,  at the (fractional) step t of equal sigma / alpha
        epsilon: z - s net(x, t);  v_prediction: a x - b net(x, t);  sample: net(x, t)

    clip: bound of |x0|, or None.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        bars: Sequence[float],
        prediction: str,
        clip: float | None,
        channels: int,
        multiple: int,
    ) -> None:
        super().__init__()
        self.net, self.channels, self.multiple = net, channels, multiple
        self.bars, self.prediction, self.clip = tuple(bars), prediction, clip

    def denoise(self, z: Tensor, s: float) -> Tensor:
        """Returns D(z; s). z: (B, channels, H, W), H and W divisible by `multiple`; result: like z.

        Raises ValueError for other sizes and for negative s.
        """
        if s < 0.0:
            raise ValueError(f"s is {s}; a noise level is not negative")
        if z.shape[2] % self.multiple or z.shape[3] % self.multiple:
            raise ValueError(f"an image of {z.shape[2]} x {z.shape[3]} is not divisible by {self.multiple}")
        a = 1.0 / math.sqrt(1.0 + s**2)
        x = a * z
        time = x.new_full((x.shape[0],), ddpm_time(s, self.bars) if s > 0.0 else 0.0, dtype=torch.float32)
        output: Tensor = self.net(x.to(next(self.net.parameters()).dtype), time, return_dict=False)[0].to(z.dtype)
        if self.prediction == "epsilon":
            x0 = z - s * output
        else:
            x0 = output if self.prediction == "sample" else a * x - s * a * output
        return x0 if self.clip is None else clipped(x0, self.clip)

    forward = denoise


def folder_denoiser(folder: Path, read: Callable[[Path, nn.Module], Mapping[str, Tensor]]) -> DiffusersDenoiser:
    """Returns the denoiser of a folder `config.json`, `scheduler_config.json`, `diffusion_pytorch_model.*`, on the CPU.

    Pipelines keep them in `unet/` and `scheduler/`. read: gives the tensors of a network out of a weights file.
    Raises WeightsError for what is missing, conditional, latent, or of a schedule that is not known here.
    """
    if not folder.is_dir():
        raise WeightsError(f"{folder} is not a folder")
    home, config = _home(folder), read_config(folder)
    _check_unconditional(folder, config)
    candidates = (folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json")
    schedule_file = next((path for path in candidates if path.is_file()), candidates[1])
    schedule = schedule_of(_json(schedule_file), str(schedule_file))
    bars = alpha_bars(schedule, str(schedule_file))
    net = _network(config, home, read)
    return DiffusersDenoiser(
        net,
        bars=bars,
        prediction=schedule.prediction_type,
        clip=schedule.clip,
        channels=int(net.config["in_channels"]),
        multiple=2 ** (len(net.config["block_out_channels"]) - 1),
    )


def _home(folder: Path) -> Path:
    """Returns where the network lies: pipelines keep it in `unet/`."""
    return folder / "unet" if (folder / "unet" / "config.json").is_file() else folder


def read_config(folder: Path) -> dict[str, Any]:
    """Returns the network's configuration. Raises WeightsError."""
    return _json(_home(folder) / "config.json")


def weights_path(folder: Path) -> Path:
    """Returns the weights file of such a folder. Raises WeightsError if there is none."""
    home = _home(folder)
    for name in WEIGHTS_FILES:
        if (home / name).is_file():
            return home / name
    raise WeightsError(f"{home} holds no {' or '.join(WEIGHTS_FILES)}")


def schedule_of(content: Mapping[str, Any], where: str) -> Schedule:
    """Returns the noise schedule that a scheduler_config.json describes. Raises WeightsError."""
    return _parsed(content, Schedule, where)


def alpha_bars(schedule: Schedule, where: str) -> list[float]:
    """Returns alpha_bar_t of a scheduler_config.json, in float64.

    Raises WeightsError for schedules that are not known here.
    """
    betas = schedule.trained_betas or _betas(schedule, where)
    for option in ("rescale_betas_zero_snr", "thresholding"):
        if getattr(schedule, option):
            raise WeightsError(f"{where}: {option} is not supported")
    bars, product = [], 1.0
    for beta in betas:
        product *= 1.0 - beta
        bars.append(product)
    if not all(0.0 < beta < 1.0 for beta in betas):
        raise WeightsError(f"{where}: its betas do not lie between 0 and 1")
    return bars


def _betas(schedule: Schedule, where: str) -> list[float]:
    """Returns beta_t: linear (Ho et al. 2020), linear in sqrt(beta), or Nichol & Dhariwal's cosine, eq. (17)."""
    kind, count = schedule.beta_schedule, schedule.num_train_timesteps
    first, last = schedule.beta_start, schedule.beta_end

    def line(start: float, end: float) -> list[float]:
        return [start + (end - start) * t / max(count - 1, 1) for t in range(count)]

    if kind == "linear":
        return line(first, last)
    if kind == "scaled_linear":
        return [root**2 for root in line(math.sqrt(first), math.sqrt(last))]
    if kind == "squaredcos_cap_v2":
        cosine = [math.cos((t / count + 0.008) / 1.008 * math.pi / 2.0) ** 2 for t in range(count + 1)]
        return [min(1.0 - cosine[t + 1] / cosine[t], 0.999) for t in range(count)]
    raise WeightsError(
        f"{where}: {schedule.class_name} with beta_schedule '{kind}' is not supported; "
        "known are linear, scaled_linear, squaredcos_cap_v2 and trained_betas"
    )


def _json(path: Path) -> dict[str, Any]:
    """Returns a configuration file's object. Raises WeightsError."""
    try:
        content = parse_json(read_bytes(path))
    except OSError as exc:
        raise WeightsError(f"cannot read {path}: {exc.strerror}; a diffusers folder needs it") from exc
    except RecordError as exc:
        raise WeightsError(f"{path} is {exc}") from exc
    if not isinstance(content, dict):
        raise WeightsError(f"{path} holds no JSON object")
    return content


def _parsed(content: Mapping[str, Any], kind: type[T], where: str) -> T:
    """Returns what is read of a configuration, as a record. Raises WeightsError."""
    try:
        return as_record(dict(content), kind)
    except RecordError as exc:
        raise WeightsError(f"{where}: {exc}") from exc


def _check_unconditional(folder: Path, config: Mapping[str, Any]) -> None:
    """Raises WeightsError unless this is a UNet2DModel that takes an image's pixels and a step, no more."""
    network = _parsed(config, Network, str(_home(folder) / "config.json"))
    if network.class_name != "UNet2DModel":
        name = network.class_name or "none"
        raise WeightsError(f"{folder}: its network is {name}; only unconditional UNet2DModel networks are supported")
    for option in ("class_embed_type", "num_class_embeds"):
        if getattr(network, option) is not None:
            raise WeightsError(
                f"{folder}: {option} is {getattr(network, option)}; conditional networks are not supported"
            )
    if network.time_embedding_type != "positional":
        raise WeightsError(f"{folder}: time_embedding_type '{network.time_embedding_type}' is not supported")
    if network.in_channels != network.out_channels:
        raise WeightsError(f"{folder}: its network takes and gives different numbers of channels")
    if latent := [name for name in ("vae", "vqvae") if (folder / name).is_dir()]:
        raise WeightsError(f"{folder}: its network works on codes of a {latent[0]}; only those on pixels are supported")


def _network(config: Mapping[str, Any], home: Path, read: Callable[[Path, nn.Module], Mapping[str, Tensor]]) -> Any:
    """Returns the UNet2DModel with its weights, made on the meta device and frozen."""
    weights = weights_path(home)
    try:
        from diffusers import UNet2DModel
    except ImportError as exc:
        raise WeightsError(f"{home} needs the package diffusers: pip install dmps-cli[diffusers]") from exc
    try:
        with decoding(home, WeightsError), torch.device("meta"):
            net = UNet2DModel.from_config(dict(config))
    except WeightsError as exc:
        raise WeightsError(f"{home}: diffusers cannot build this network: {exc.__cause__}") from exc
    load_state(net, read(weights, net), str(weights))
    return net


def current_name(name: str) -> str:
    """Returns the present name of a tensor, whose attention layer may have an old one."""
    return re.sub(
        r"(?<=\.attentions\.)(\d+)\.(query|key|value|proj_attn)\.",
        lambda match: f"{match[1]}.{_ATTENTION_NAMES[match[2]]}.",
        name,
    )
