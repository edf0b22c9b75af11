"""PSNR, SSIM and LPIPS of restored pictures, one number per image; METRICS is the table of them.

Pictures are float32 (B, C, H, W) on [-1, 1], C = 1 or 3, and are clipped to that range before anything is measured. An
image is scored alone, whatever batch it comes in, so that it gets the same bits in any company.
"""

from __future__ import annotations

import hashlib
import pickle
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli.errors import NumericsError, WeightsError, interrupts, unknown_name
from dmps_cli.network import UNREACHABLE, is_silent

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    Value = Callable[[Tensor, Tensor], float]

SSIM_WINDOW, SSIM_STD = 11, 1.5  # px
PSNR_CEILING = 80.0  # dB; piq adds 1e-8 to the mean squared error
GREY_LEVELS = 127.5  # one unit of [-1, 1] in grey levels of 255
MIN_SIGMA = 1e-9  # of measurement noise that is not 0: its square must be a number in float32, and times another one
MAX_SIGMA = 10.0  # of measurement noise on [-1, 1]; beyond it a number was meant in grey levels
_ALEXNET = Path(str(files("dmps_cli"))) / "data" / "lpips_alexnet.safetensors"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A row of METRICS: build(lpips_net, device) gives value(x, reference) of one image (1, C, H, W) each.

    build loads what the metric needs and may raise WeightsError. min_px(lpips_net): the least side of a picture that
    has a value. about: how it is measured, for the line under a table.
    """

    label: str
    unit: str
    digits: int
    higher_is_better: bool
    about: str
    min_px: Callable[[str], int]
    build: Callable[[str, torch.device], Value]

    def text(self, value: float) -> str:
        """The value as tables show it."""
        return f"{value:.{self.digits}f}"


@dataclass(frozen=True, kw_only=True)
class LpipsNet:
    """A backbone of LPIPS. torchvision: its entry there, whose file is fetched; None for the one in the package."""

    min_px: int
    torchvision: str | None


LPIPS_NETS = {
    "alex": LpipsNet(min_px=31, torchvision=None),
    "vgg": LpipsNet(min_px=16, torchvision="VGG16_Weights.IMAGENET1K_V1"),
    "squeeze": LpipsNet(min_px=17, torchvision="SqueezeNet1_1_Weights.IMAGENET1K_V1"),
}
DEFAULT_LPIPS_NET = "alex"


def psnr(x: Tensor, reference: Tensor) -> float:
    """-10 log10(mean((x - reference)^2) + 1e-8) in dB, pictures mapped to [0, 1].

    x, reference: (1, C, H, W) on [-1, 1]. piq's 1e-8 makes 80 dB of identical pictures, so no value is infinite; it
    costs 0.0004 dB at 40 dB, 0.004 dB at 50 dB and 0.04 dB at 60 dB.
    """
    import piq

    return float(piq.psnr(_unit_range(x), _unit_range(reference), data_range=1.0, reduction="none"))


def ssim(x: Tensor, reference: Tensor) -> float:
    """Structural similarity (Wang et al. 2004), Gaussian window 11 px, std 1.5 px, K1 = 0.01, K2 = 0.03, L = 1.

    Mean over the places where the window lies inside, then over channels, at full size: piq would by default halve a
    picture from 385 px on. x, reference: (1, C, H, W) on [-1, 1], at least 11 px.
    """
    import piq

    values = piq.ssim(
        _unit_range(x),
        _unit_range(reference),
        kernel_size=SSIM_WINDOW,
        kernel_sigma=SSIM_STD,
        data_range=1.0,
        downsample=False,
        reduction="none",
    )
    return float(values)


def _unit_range(x: Tensor) -> Tensor:
    # float64: on smooth bright pictures E[x^2] - E[x]^2 in float32 costs SSIM 2e-6. On the CPU: MPS has no float64.
    return ((x.cpu().double() + 1) / 2).clamp(0, 1)


def lpips(lpips_net: str, device: torch.device) -> Value:
    """LPIPS v0.1 (Zhang et al. 2018): the linear heads and the forward pass of the `lpips` package.

    A greyscale picture stands for three equal channels. Raises WeightsError naming the file, its address and its place
    if the backbone is neither here nor to be had.
    """
    import torch

    net = _lpips_network(lpips_net).to(device)

    @torch.no_grad()
    def value(x: Tensor, reference: Tensor) -> float:
        return float(net(x.to(device).expand(-1, 3, -1, -1), reference.to(device).expand(-1, 3, -1, -1)))

    return value


METRICS = {
    "psnr": Metric(
        label="PSNR",
        unit="dB",
        digits=2,
        higher_is_better=True,
        about=f"PSNR in dB (at most {PSNR_CEILING:g})",
        min_px=lambda lpips_net: 1,
        build=lambda lpips_net, device: psnr,
    ),
    "ssim": Metric(
        label="SSIM",
        unit="",
        digits=4,
        higher_is_better=True,
        about=f"SSIM with Gaussian window {SSIM_WINDOW}, std {SSIM_STD}, at full size",
        min_px=lambda lpips_net: SSIM_WINDOW,
        build=lambda lpips_net, device: ssim,
    ),
    "lpips": Metric(
        label="LPIPS",
        unit="",
        digits=4,
        higher_is_better=False,
        about="LPIPS v0.1 ({lpips_net})",
        min_px=lambda lpips_net: LPIPS_NETS[lpips_net].min_px,
        build=lpips,
    ),
}


OF_SAMPLES = {
    "psnr_of_mean": "PSNR dB of the mean",
    "std": "std of samples",
    "coverage": "coverage of the 90 % Gaussian interval (mean ± 1.645 std)",
}
"""Headings of the columns over all samples of an image: PSNR of their mean, their standard deviation on [-1, 1], and
coverage of its 90 % interval, that of a Gaussian with the samples' mean and standard deviation."""

HOTTEST = 0.25  # standard deviation on [-1, 1] that is white in a map of it


def _lpips_network(name: str) -> torch.nn.Module:
    """The `lpips` package's network in evaluation mode, its backbone taken from our file or torchvision's."""
    import torch

    source = LPIPS_NETS[name].torchvision
    path, features = _bundled_features() if source is None else _torchvision_features(name, source)
    with _quiet_construction():
        try:
            import lpips
        except (ImportError, RuntimeError) as exc:  # torchvision's own check of its torch is a RuntimeError
            if interrupts:
                raise KeyboardInterrupt from exc
            raise WeightsError(
                f"LPIPS needs a torchvision that fits torch {torch.__version__} ({exc}); install both from one index: "
                "pip install --force-reinstall torch torchvision"
            ) from exc
        net: torch.nn.Module = lpips.LPIPS(net=name, version="0.1", pnet_rand=True, verbose=False)
    backbone = net.get_submodule("net")
    try:
        # 'slice2.3.weight' there is 'features.3.weight' in the files; the classifier's layers are not used
        state = {key: features["features." + key.split(".", maxsplit=1)[1]] for key in backbone.state_dict()}
        backbone.load_state_dict(state)
    except (KeyError, RuntimeError) as exc:
        raise WeightsError(f"{path} does not hold the features of LPIPS's {name} net; delete it and try again") from exc
    return net.eval().requires_grad_(False)


@contextmanager
def _quiet_construction() -> Iterator[None]:
    """What torchvision does first must not show: it draws random weights, and warns of `pretrained`."""
    import torch

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _bundled_features() -> tuple[Path, Mapping[str, Tensor]]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return _ALEXNET, load_file(_ALEXNET)
    except (OSError, SafetensorError) as exc:
        raise WeightsError(f"cannot read the features of LPIPS at {_ALEXNET}: {exc}; reinstall the package") from exc


def _torchvision_features(net: str, entry: str) -> tuple[Path, Mapping[str, Tensor]]:
    """(file, weights) of torchvision's entry, from torch.hub's folder or fetched into it. Raises WeightsError."""
    import torch
    from torchvision.models import get_weight

    url = get_weight(entry).url
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rsplit("/", maxsplit=1)[1]
    try:
        if not path.exists() and is_silent(url, UNREACHABLE):
            raise OSError(f"no connection within {UNREACHABLE:g} s")
        with _progress_on_terminals_only() as progress:
            state: Mapping[str, Tensor] = torch.hub.load_state_dict_from_url(
                url, map_location="cpu", check_hash=True, progress=progress, weights_only=True
            )
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as exc:  # no network; hash; damaged file
        reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise WeightsError(
            f"LPIPS with the {net} net needs {path}, which is missing or damaged ({reason}); "
            f"download {url} to that place, or take --lpips-net {DEFAULT_LPIPS_NET}"
        ) from exc
    return path, state


@contextmanager
def _progress_on_terminals_only() -> Iterator[bool]:
    """Keeps torch.hub from announcing its downloads on stdout; yields whether it may show progress.

    On a terminal all that it says goes to stderr, elsewhere nowhere.
    """
    on_terminal = sys.stderr.isatty()
    sink = sys.stderr if on_terminal else StringIO()
    with redirect_stdout(sink), redirect_stderr(sink):
        yield on_terminal


class Scorer:
    """The metrics of that name, with the networks they need: loaded when first used, then kept.

    Raises UsageError for an unknown metric or LPIPS net.
    """

    def __init__(
        self,
        names: Iterable[str] = tuple(METRICS),
        *,
        lpips_net: str = DEFAULT_LPIPS_NET,
        device: torch.device | str = "cpu",
    ) -> None:
        self.wanted = tuple(names)
        for name in self.wanted:
            if name not in METRICS:
                raise unknown_name("metric", name, METRICS)
        if lpips_net not in LPIPS_NETS:
            raise unknown_name("LPIPS net", lpips_net, LPIPS_NETS)
        self.lpips_net = lpips_net
        self._device = device

    @cached_property
    def _loaded(self) -> tuple[dict[str, Value], dict[str, str]]:
        """(values by name, reasons by the name of a metric that cannot be had)."""
        import torch

        values, missing = {}, {}
        for name in self.wanted:
            try:
                values[name] = METRICS[name].build(self.lpips_net, torch.device(self._device))
            except WeightsError as exc:
                missing[name] = str(exc)
        return values, missing

    @property
    def names(self) -> tuple[str, ...]:
        """The metrics that `score` returns: those wanted and not missing."""
        return tuple(self._loaded[0])

    @property
    def missing(self) -> dict[str, str]:
        """Metric -> why it cannot be had (a file to fetch). It has no column; nothing takes its place."""
        return dict(self._loaded[1])

    def protocol(
        self, rows: Sequence[Mapping[str, object]], sigmas: Iterable[float], images: Iterable[str], channels: int = 3
    ) -> Protocol:
        """How a table of these rows came about. sigmas: on [-1, 1], in any order, repeated or not."""
        return Protocol(
            metrics=measured(self.names, rows),
            lpips_net=self.lpips_net,
            sigma_y=tuple(sorted(set(sigmas))),
            images=tuple(images),
            channels=channels,
        )

    def score(self, x: Tensor, reference: Tensor) -> list[dict[str, float]]:
        """One dict of finite numbers per image, keys as in `names`, without the metrics that need a larger picture.

        x, reference: (B, C, H, W) on [-1, 1], C = 1 or 3. Raises NumericsError for NaN or infinity.
        """
        if x.shape != reference.shape or x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ValueError(
                f"x {tuple(x.shape)} and reference {tuple(reference.shape)} must be equal (B, 1 or 3, H, W)"
            )
        return [self._score_one(_alone(x, i), _alone(reference, i)) for i in range(len(x))]

    def _score_one(self, x: Tensor, reference: Tensor) -> dict[str, float]:
        side = min(x.shape[2:])
        fitting = {n: value for n, value in self._loaded[0].items() if side >= METRICS[n].min_px(self.lpips_net)}
        return {name: value(x, reference) for name, value in fitting.items()}


def _alone(x: Tensor, index: int) -> Tensor:
    """Image `index` as (1, C, H, W), clipped, in memory of its own: the layout of the batch must not matter."""
    image = x[index : index + 1]
    if not image.isfinite().all():
        raise NumericsError(
            f"picture {index + 1} of {len(x)} to be scored holds NaN or infinity; it has no PSNR or SSIM"
        )
    return image.float().clamp(-1, 1).contiguous()


def both_scales(sigma_y: float) -> str:
    """sigma_y on [-1, 1] and in grey levels of 255, for every text that names it."""
    return f"{sigma_y:g} on [-1, 1] = {sigma_y * GREY_LEVELS:.4g} of 255"


def list_hash(images: Iterable[str]) -> str:
    """sha256 (hexadecimal) of the images' names, sorted, one a line in UTF-8: equal for tables over the same list."""
    return hashlib.sha256("".join(f"{name}\n" for name in sorted(images)).encode(errors="surrogateescape")).hexdigest()


def measured(names: Iterable[str], rows: Sequence[Mapping[str, object]]) -> tuple[str, ...]:
    """Those of the metrics that some row has; all of them before there are rows."""
    return tuple(name for name in names if not rows or any(row.get(name) is not None for row in rows))


def size_notes(names: Iterable[str], rows: Sequence[Mapping[str, object]], lpips_net: str) -> list[str]:
    """A sentence for each of the metrics that some row has not: its picture was too small."""
    counts = {name: sum(row.get(name) is None for row in rows) for name in names}
    return [
        f"{METRICS[name].label} needs pictures of at least {METRICS[name].min_px(lpips_net)} px a side; "
        f"{count} of {len(rows)} restorations have none"
        for name, count in counts.items()
        if count
    ]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How the numbers of a table came about; every table names it.

    metrics: those that have a column; sigma_y: every noise level in the table, on [-1, 1]; images: names of the files
    scored, one per image (not per sample); channels: 1 or 3; prepared: what of them is used, if not all; samples:
    posterior samples of each.
    """

    metrics: tuple[str, ...]
    lpips_net: str
    sigma_y: tuple[float, ...]
    images: tuple[str, ...]
    channels: int = 3
    prepared: str = ""
    samples: int = 1

    @property
    def _colour(self) -> str:
        return "RGB" if self.channels == 3 else "greyscale"

    def as_dict(self) -> dict[str, Any]:
        """For JSON: the hash in full, sigma_y on both scales."""
        return {
            "metrics": list(self.metrics),
            "lpips_net": self.lpips_net if "lpips" in self.metrics else None,
            "lpips_version": "0.1" if "lpips" in self.metrics else None,
            "colour_space": self._colour,
            "clipped_to": [-1, 1],
            "sigma_y": list(self.sigma_y),
            "sigma_y_255": [sigma * GREY_LEVELS for sigma in self.sigma_y],
            "num_images": len(self.images),
            "samples": self.samples,
            "images_sha256": list_hash(self.images),
            "prepared": self.prepared or None,
        }

    def line(self) -> str:
        """The sentence under a table."""
        measured = ", ".join(METRICS[name].about.format(lpips_net=self.lpips_net) for name in self.metrics)
        noise = ", ".join(map(both_scales, self.sigma_y))
        count = f"{len(self.images)} image" + ("" if len(self.images) == 1 else "s")
        count += f", {self.prepared}" if self.prepared else ""
        count += f", {self.samples} posterior samples of each" if self.samples > 1 else ""
        return (
            f"{measured}; {self._colour}, clipped to [-1, 1], per image, then averaged; "
            f"sigma_y {noise}; {count}, list sha256 {list_hash(self.images)[:12]}"
        )
