"""Networks of every architecture, from their tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dmps_cli.errors import OptionsError, WeightsError
from dmps_cli.nets.adm import ADM, ADMConfig
from dmps_cli.nets.diffusers_unet import Schedule, alpha_bars, current_name, folder_denoiser, read_config
from dmps_cli.nets.loading import load_state
from dmps_cli.nets.natural import NaturalConfig
from dmps_cli.nets.natural_state import natural_from_state, natural_on_meta
from dmps_cli.nets.ncsnpp import UNUSED_BUFFERS, NCSNpp, NCSNppConfig
from dmps_cli.priors import DDPMPrior, DenoiserPrior, FlowPrior, Prior
from dmps_cli.weights.finding import Found, MismatchError, Network, Sought, find
from dmps_cli.weights.reading import read_content


# Building
@dataclass(frozen=True, kw_only=True)
class Architecture:
    """How the network of a checkpoint is made, and the prior that it is."""

    build: Callable[[Mapping[str, object], str], nn.Module]
    prior: Callable[[nn.Module, bool], Prior]  # of the network, whether x0 is clipped
    unused: frozenset[str] = frozenset()  # entries of published files that are dropped


def _adm_prior(network: nn.Module, clip_denoised: bool) -> Prior:
    assert isinstance(network, ADM)
    channels, out_channels = network.config.channels, network.config.out_channels
    return DDPMPrior(
        network, learned_range=out_channels == 2 * channels, clip_denoised=clip_denoised, channels=channels
    )


def _flow_prior(network: nn.Module, clip_denoised: bool) -> Prior:
    assert isinstance(network, NCSNpp)
    return FlowPrior(network, channels=network.config.channels)  # rectified flow is sampled unclipped


ARCHITECTURES = {
    "adm": Architecture(
        build=lambda config, where: ADM(ADMConfig.from_reference(config, where)),
        prior=_adm_prior,
    ),
    "ncsnpp": Architecture(
        build=lambda config, where: NCSNpp(NCSNppConfig.from_reference(config, where)),
        prior=_flow_prior,
        unused=UNUSED_BUFFERS,
    ),
}
"""Networks whose sizes a configuration gives. `natural` reads its own off the file; `diffusers` is a folder."""


def on_meta(architecture: str, config: Mapping[str, object], where: str) -> nn.Module:
    """Returns the network without storage, so that nothing is initialised in vain. Raises WeightsError."""
    if architecture not in ARCHITECTURES:
        known = ", ".join(sorted([*ARCHITECTURES, "natural"]))
        raise WeightsError(f"{where}: unknown architecture '{architecture}'; choose one of {known}")
    try:
        with torch.device("meta"):
            return ARCHITECTURES[architecture].build(config, where)
    except (ValueError, RuntimeError, ZeroDivisionError, IndexError) as exc:  # torch's words for sizes that cannot be
        raise OptionsError(f"{where}: these options make no {architecture} network: {exc}") from exc


def sought(architecture: str, config: Mapping[str, object], where: str) -> Sought:
    """Returns what a file must hold to be that network's. Raises OptionsError, WeightsError as `on_meta`."""
    if architecture == "natural":
        return Sought(
            known=frozenset({"inp.weight"}), network=lambda tensors: network_of(natural_on_meta(tensors, where))
        )
    network = network_of(on_meta(architecture, config, where))
    unused = ARCHITECTURES[architecture].unused
    return Sought(known=frozenset(network.shapes) | unused, network=lambda _: network, unused=unused)


def network_of(module: nn.Module) -> Network:
    """Returns the names and shapes of a network's tensors."""
    return Network(
        shapes={name: tuple(value.shape) for name, value in module.state_dict().items()},
        trainable=[name for name, parameter in module.named_parameters() if parameter.requires_grad],
    )


def random_state(architecture: str, config: Mapping[str, object], where: str) -> dict[str, Tensor]:
    """Returns weights of the architecture's shapes without a file: normal with variance 1 / fan-in, norms 1, biases 0.

    Of fixed seed. Enough to time a network: its numbers stay finite, its pictures mean nothing. Raises OptionsError,
    WeightsError for an architecture whose sizes only a file gives.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(name: str, shape: torch.Size) -> Tensor:
        if len(shape) > 1:
            return torch.randn(shape, generator=generator).div(float(shape[1:].numel()) ** 0.5)
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)

    state = on_meta(architecture, config, where).state_dict()
    return {name: draw(name, value.shape) for name, value in state.items()}


def read_weights(
    path: Path,
    architecture: str,
    config: Mapping[str, object],
    *,
    entry: str | None = None,
    prefix: str | None = None,
) -> Found:
    """Returns the network's weights in a file, mapped where they can be, the averaged ones first (`weights.finding`).

    Raises WeightsError.
    """
    wanted = sought(architecture, config, str(path))
    return find(read_content(path), wanted, str(path), entry=entry, prefix=prefix)


def fits(content: object, architecture: str, config: Mapping[str, object], where: str) -> bool:
    """Returns whether what a file holds (`read_content`) has that network's weights: all of its tensors and no others.

    Raises OptionsError for a network that cannot be.
    """
    try:
        find(content, sought(architecture, config, where), where)
    except MismatchError:
        return False
    return True


def used(architecture: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the entries that the architecture reads."""
    unused = ARCHITECTURES[architecture].unused if architecture in ARCHITECTURES else frozenset()
    return {name: value for name, value in state.items() if name not in unused}


def build_prior(
    architecture: str,
    config: Mapping[str, object],
    state: Mapping[str, Tensor],
    *,
    where: str,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    clip_denoised: bool = True,
    schedule: str = "linear",
    metadata: Mapping[str, str] | None = None,
) -> Prior:
    """Returns the prior of a checkpoint.

    Its network on `device` (absent: the CPU), its weights in `dtype` and channels_last.

    config: of `adm` the arguments of the reference's `create_model`, of `ncsnpp` the options of its configuration
    file, of `natural` nothing. where: the file, for messages. clip_denoised, schedule: of `adm`, whether x0 is clipped
    to [-1, 1], and the chain that it was trained on (`nets.diffusers_unet.alpha_bars`).
    metadata: of `natural`. Raises WeightsError if these are not the architecture's weights, all of them.
    """
    if architecture == "natural":
        denoiser = natural_from_state(state, where, metadata).to(device=device, dtype=dtype)
        return DenoiserPrior(denoiser.denoise, NaturalConfig.from_state(state, where).channels)
    network = on_meta(architecture, config, where)
    load_state(network, used(architecture, state), where)
    network.to(device=device, dtype=dtype).to(memory_format=torch.channels_last)
    prior = ARCHITECTURES[architecture].prior(network, clip_denoised)
    prior.multiple = int(network.multiple)  # type: ignore[arg-type]
    if isinstance(prior, DDPMPrior) and schedule != "linear":
        prior.bars = alpha_bars(Schedule(beta_schedule=schedule), where)
    return prior


def load_diffusers(
    folder: Path,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    entry: str | None = None,
    prefix: str | None = None,
) -> tuple[Prior, Found]:
    """Returns the prior of a local diffusers folder, and where its weights were found.

    An unconditional UNet2DModel on pixels and its noise schedule; the network may lie in `unet/`, the schedule in
    `scheduler/`. Raises WeightsError, also if diffusers is missing.
    """
    found: list[Found] = []

    def read(path: Path, net: nn.Module) -> Mapping[str, Tensor]:
        network = network_of(net)
        wanted = Sought(known=frozenset(network.shapes), network=lambda _: network, renamed=current_name)
        found.append(find(read_content(path), wanted, str(path), entry=entry, prefix=prefix))
        return found[0].tensors

    denoiser = folder_denoiser(folder, read)
    denoiser.to(device=device, dtype=dtype).to(memory_format=torch.channels_last)
    prior = DenoiserPrior(denoiser.denoise, denoiser.channels)
    prior.multiple = denoiser.multiple
    return prior, found[0]


def folder_size(folder: Path) -> int | None:
    """Returns the side, px, of the pictures that a diffusers folder's network was made for, if it says so.

    Raises WeightsError.
    """
    size = read_config(folder).get("sample_size")
    return size if isinstance(size, int) and size > 0 else None
