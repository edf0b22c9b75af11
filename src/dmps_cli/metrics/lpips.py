"""LPIPS and its networks."""

from __future__ import annotations

import pickle
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.resources import files
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from dmps_cli.errors import WeightsError, interrupts
from dmps_cli.files.network import UNREACHABLE, is_silent

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dmps_cli.metrics.table import Value


_ALEXNET = Path(str(files("dmps_cli"))) / "data" / "lpips_alexnet.safetensors"


@dataclass(frozen=True, kw_only=True)
class LpipsBackbone:
    """A backbone of LPIPS. torchvision: its entry there, whose file is fetched; None for the one in the package."""

    min_px: int
    torchvision: str | None


LPIPS_NETS = {
    "alex": LpipsBackbone(min_px=31, torchvision=None),
    "vgg": LpipsBackbone(min_px=16, torchvision="VGG16_Weights.IMAGENET1K_V1"),
    "squeeze": LpipsBackbone(min_px=17, torchvision="SqueezeNet1_1_Weights.IMAGENET1K_V1"),
}

DEFAULT_LPIPS_NET = "alex"


def lpips(lpips_net: str, device: torch.device) -> Value:
    """Returns LPIPS v0.1 (Zhang et al. 2018): the linear heads and the forward pass of the `lpips` package.

    A greyscale picture stands for three equal channels. Raises WeightsError naming the file, its address and its place
    if the backbone is neither here nor to be had.
    """
    import torch

    net = _lpips_network(lpips_net).to(device)

    @torch.no_grad()
    def value(x: Tensor, reference: Tensor) -> float:
        return float(net(x.to(device).expand(-1, 3, -1, -1), reference.to(device).expand(-1, 3, -1, -1)))

    return value


def _lpips_network(name: str) -> torch.nn.Module:
    """Returns the `lpips` package's network in evaluation mode, its backbone taken from our file or torchvision's."""
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
    """Hides what torchvision does first: it draws random weights, and warns of `pretrained`."""
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
    """Returns (file, weights) of torchvision's entry, from torch.hub's folder or fetched into it.

    Raises WeightsError.
    """
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
