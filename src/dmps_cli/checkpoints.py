"""From a published checkpoint file to a prior: reading it safely, keeping a mapped copy, building the network.

A file is data, never a program: pickles are read with `weights_only` and a list of allowed globals that holds what
tensors need and numpy scalars, nothing else.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from dmps_cli import __version__
from dmps_cli.errors import OptionsError, OutputError, WeightsError
from dmps_cli.files import atomic_write, is_unicode, remove_left_overs, sha256_file
from dmps_cli.formats import HEAD, checkpoint_kind, is_markup
from dmps_cli.nets.adm import ADM, ADMConfig
from dmps_cli.nets.diffusers_unet import Schedule, alpha_bars, folder_denoiser, read_config
from dmps_cli.nets.loading import check_state, load_state
from dmps_cli.nets.natural import NaturalConfig, natural_from_state
from dmps_cli.nets.ncsnpp import UNUSED_BUFFERS, NCSNpp, NCSNppConfig
from dmps_cli.priors import DDPMPrior, DenoiserPrior, FlowPrior, Prior
from dmps_cli.reading import check_regular, decoding, open_regular

CONVERSION = "1"
"""Version of what `convert` writes; a file of another version is made again."""

EMA_ENTRIES = ("ema", "ema_state_dict", "ema_model", "model_ema")
MODEL_ENTRIES = ("state_dict", "model_state_dict", "model")
MAX_RATIO = 8
"""Bytes that a checkpoint may hold for each byte of its file; more is meant to fill the memory."""

PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and torch.compile

_NUMPY_SCALAR = np.float64(0.0).__reduce__()[0]
_ALLOWED: list[Any] = [  # a learning rate that numpy computed, as numpy 1 and 2 name it
    (_NUMPY_SCALAR, "numpy.core.multiarray.scalar"),
    (_NUMPY_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    np.dtypes.Float64DType,
]
_SAFETENSORS_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class MismatchError(WeightsError):
    """A checkpoint, but of another network."""


# Reading


def read_checkpoint(path: Path, trainable: Sequence[str] = ()) -> dict[str, Tensor]:
    """The weights of a published file, name -> tensor, mapped into memory where the format allows.

    Safetensors files as they are. Of a pickle (torch.save), the averaged weights where there are any:

    1. an entry `ema`, `ema_state_dict`, `ema_model`, `model_ema` that holds names -> tensors, what it lacks (buffers)
       taken from 3;
    2. `ema` with a list `shadow_params` (Rectified Flow's training state): its tensors are the parameters `trainable`,
       in this order, the others are those of 3;
    3. an entry `state_dict`, `model_state_dict`, `model`;
    4. the mapping itself, if it holds nothing but names -> tensors.

    Prefixes `module.` and `_orig_mod.` that all names share go. Raises WeightsError for whatever else it may be.
    """
    kind = _kind(path)
    if kind == "safetensors":
        return _read_safetensors(path)[0]
    content = _load_pickle(path, mmap=kind == "zip")
    state = _weights(content, trainable, str(path))
    if state is None:
        entries = ", ".join(map(repr, list(content)[:5])) if isinstance(content, Mapping) else type(content).__name__
        raise WeightsError(f"{path}: no weights found in it, only {entries or 'nothing'}; is it the right file?")
    return state


def _kind(path: Path) -> str:
    """'safetensors', 'zip' (torch.save) or 'legacy' (before torch 1.6). Raises WeightsError for anything else."""
    try:
        with open_regular(path) as file:
            head = file.read(HEAD)
            whole = zipfile.is_zipfile(file)
    except OSError as exc:
        raise WeightsError(f"cannot read {path}: {exc.strerror}") from exc
    if not head:
        raise WeightsError(f"{path} is empty; delete it and fetch it again")
    kind = checkpoint_kind(head)
    if kind == "zip" and not whole:
        raise WeightsError(f"{path} is damaged: its end is missing; delete it and fetch it again")
    if kind is not None:
        return kind
    if is_markup(head):
        raise WeightsError(f"{path} is a web page, not a checkpoint; delete it and fetch it again")
    raise WeightsError(f"{path} is not a checkpoint (neither torch.save's format nor safetensors)")


def _check_archive(path: Path) -> None:
    """Raises WeightsError for a zip file that unpacks to far more than it has bytes: torch.save does not compress."""
    with decoding(path, WeightsError), open_regular(path) as file, zipfile.ZipFile(file) as archive:
        unpacked, size = sum(entry.file_size for entry in archive.infolist()), os.fstat(file.fileno()).st_size
    if unpacked > MAX_RATIO * size:
        raise WeightsError(f"{path} has {size} bytes and unpacks to {unpacked}; weights are not compressed: refused")


def _load_pickle(path: Path, *, mmap: bool) -> object:
    if mmap:
        _check_archive(path)
    try:
        with torch.serialization.safe_globals(_ALLOWED):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as exc:
        if asked := re.search(r"GLOBAL ([\w.]+)", str(exc)):
            raise WeightsError(
                f"{path} asks for {asked[1]}, which weights never need: refused, it could run anything on this machine"
            ) from exc
        raise WeightsError(f"{path} is damaged: not a pickle of tensors; delete it and fetch it again") from exc
    except OSError as exc:
        raise WeightsError(f"cannot read {path}: {exc.strerror or exc}") from exc
    except MemoryError:
        raise
    except Exception as exc:  # whatever torch's restricted unpickler meets in damaged bytes
        raise WeightsError(
            f"{path} is damaged or not a checkpoint of torch.save; delete it and fetch it again"
        ) from exc


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata), the tensors mapped."""
    if not is_unicode(str(path)):
        raise WeightsError(f"{path}: safetensors files are opened by names in UTF-8 only; rename it or its folder")
    with decoding(path, WeightsError):
        check_regular(path)
        try:
            with safe_open(path, "pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except SafetensorError as exc:
            raise WeightsError(f"{path} is damaged ({exc}); delete it and fetch it again") from exc


def _weights(content: object, trainable: Sequence[str], where: str, depth: int = 3) -> dict[str, Tensor] | None:
    """The weights in what a pickle held, by the rule of `read_checkpoint`; None if there are none.

    depth: how many mappings deep they may lie (a pickle can hold a mapping that holds itself).
    """
    if not isinstance(content, Mapping) or not content or depth == 0:
        return None
    if all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()):
        return _without_prefixes(content)

    def inner(name: str) -> dict[str, Tensor] | None:
        return _weights(content.get(name), trainable, where, depth - 1)

    model = next((state for name in MODEL_ENTRIES if (state := inner(name))), None)
    for name in EMA_ENTRIES:
        ema = content.get(name)
        if isinstance(ema, Mapping) and isinstance(shadow := ema.get("shadow_params"), list):
            return _with_shadow(model or {}, shadow, trainable, where)
        if state := inner(name):
            return {**(model or {}), **state}
    return model


def _without_prefixes(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state without the prefixes that all of its names share."""
    while prefix := next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in state)), ""):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return dict(state)


def _with_shadow(
    model: Mapping[str, Tensor], shadow: Sequence[object], trainable: Sequence[str], where: str
) -> dict[str, Tensor]:
    """`model` with the averages in place of its trainable parameters. Raises WeightsError if they do not fit."""
    if len(shadow) != len(trainable):
        raise MismatchError(
            f"{where}: {len(shadow)} averaged tensors for {len(trainable)} trainable parameters; "
            "check that the model's configuration and the file belong together"
        )
    state = dict(model)
    for name, value in zip(trainable, shadow, strict=True):
        expected = tuple(model[name].shape) if name in model else "none"
        if not isinstance(value, Tensor) or tuple(value.shape) != expected:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise MismatchError(f"{where}: the averaged {name} is {found}, the model's {expected}; the file is damaged")
        state[name] = value
    return state


# Converting


def convert(source: Path, target: Path, *, architecture: str, config: Mapping[str, object], sha256: str = "") -> None:
    """Writes the weights of a published file (`read_checkpoint`) as safetensors, whole or not at all.

    Types stay as stored; entries that the architecture never reads are left out. The metadata say what was converted:
    `source`, `source_sha256`, `architecture`, `conversion`, `written_by`. Processes that convert at the same time
    write the same file, each under its own temporary name. sha256: what the source must have, if known. Raises
    WeightsError, before anything is written, for the weights of another network; OutputError.
    """
    found = _sha256_of(source)
    if sha256 and found != sha256:
        raise WeightsError(f"{source}: the file's sha256 is {found}, not {sha256}; delete it and fetch it again")
    state = _used(architecture, read_checkpoint(source, trainable_names(architecture, config, str(source))))
    if architecture in ARCHITECTURES:
        check_state(_on_meta(architecture, config, str(source)), state, str(source))
    stat = source.stat()
    metadata = {
        "source": source.name,
        "source_sha256": found,
        "source_size": str(stat.st_size),
        "source_mtime_ns": str(stat.st_mtime_ns),
        "data_sha256": _data_sha256(state),
        "architecture": architecture,
        "conversion": CONVERSION,
        "written_by": f"dmps {__version__}",
    }
    remove_left_overs([target])
    write_safetensors(target, state, metadata, where=str(source))


def write_safetensors(
    target: Path, state: dict[str, Tensor], metadata: Mapping[str, str], *, where: str, overwrite: bool = True
) -> None:
    """Writes tensors of the CPU and strings as a safetensors file, whole or not at all.

    where: what the tensors came from, for messages. Raises OutputError; WeightsError for what is not plain numbers.
    """
    header = _header(state, metadata, where)

    def write(file: BinaryIO) -> None:
        file.write(struct.pack("<Q", len(header)) + header)
        for value in state.values():
            file.write(_bytes(value))

    atomic_write(target, write, overwrite=overwrite)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(tensors, metadata) of a safetensors file, the tensors mapped. Raises WeightsError for any other file."""
    if _kind(path) != "safetensors":
        raise WeightsError(f"{path} is not a safetensors file")
    return _read_safetensors(path)


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file, whatever its name, says of itself; nothing of any other. Raises WeightsError."""
    try:
        is_safetensors = _kind(path) == "safetensors"
    except WeightsError:  # no checkpoint at all: of a download that went wrong its card can still be shown
        return {}
    return _read_safetensors(path)[1] if is_safetensors else {}


def _bytes(value: Tensor) -> memoryview:
    return value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _data_sha256(state: Mapping[str, Tensor]) -> str:
    """Hexadecimal sha256 of the tensors' bytes, one after the other."""
    digest = hashlib.sha256()
    for value in state.values():
        digest.update(_bytes(value))
    return digest.hexdigest()


def verify_converted(path: Path) -> str:
    """The sha256 of the tensors that `convert` wrote, read through and compared. Raises WeightsError."""
    tensors, metadata = _read_safetensors(path)
    found = _data_sha256({name: tensors[name] for name in _in_file_order(path)})
    if found != metadata.get("data_sha256"):
        raise WeightsError(f"{path}: its tensors' sha256 is {found}, not {metadata.get('data_sha256')}; delete it")
    return found


def _in_file_order(path: Path) -> list[str]:
    """The names of a safetensors file's tensors, in the order of their bytes."""
    with path.open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    header.pop("__metadata__", None)
    return sorted(header, key=lambda name: header[name]["data_offsets"][0])


def _header(state: dict[str, Tensor], metadata: Mapping[str, str], where: str) -> bytes:
    """The header of a safetensors file: types, shapes, places; padded with spaces to a multiple of 8.

    Written here and not by the library, whose bytes are either all in memory or under a name of its own.
    """
    said = {key: value.encode(errors="replace").decode() for key, value in metadata.items()}  # no lone surrogates
    table: dict[str, object] = {"__metadata__": said}
    start = 0
    for name, value in state.items():
        if value.dtype not in _SAFETENSORS_NAMES or value.layout != torch.strided:
            raise WeightsError(f"{where}: {name} is {value.dtype}, {value.layout}; weights are plain numbers")
        end = start + value.numel() * value.element_size()
        table[name] = {
            "dtype": _SAFETENSORS_NAMES[value.dtype],
            "shape": list(value.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(table, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The tensors of a checkpoint, mapped into memory. sha256: of the published file; where: for messages."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    sha256: str
    where: str


def load_converted(path: Path, *, architecture: str, sha256: str = "") -> Weights:
    """What `convert` wrote, from the file with this sha256 if one is given. Raises WeightsError if it is not that.

    A short or malformed file is noticed; single bits that a disk has turned are not (reading all of it would take
    longer than everything else).
    """
    tensors, metadata = _read_safetensors(path)
    expected = {"architecture": architecture, "conversion": CONVERSION}
    if sha256:
        expected["source_sha256"] = sha256
    for name, value in expected.items():
        if metadata.get(name) != value:
            raise WeightsError(f"{path}: its {name} is {metadata.get(name)}, not {value}; delete it")
    return Weights(tensors=tensors, metadata=metadata, sha256=metadata.get("source_sha256", ""), where=str(path))


def load_weights(
    source: Path, target: Path, *, architecture: str, config: Mapping[str, object], sha256: str = ""
) -> Weights:
    """The weights of `source`, mapped from its conversion `target`, which is made if it is absent, stale or damaged.

    sha256: the source's, if known; a fitting conversion then serves without the source. Unknown, it is computed, but
    not for a source of the size and time of change that the conversion was made from. A safetensors source is mapped
    itself. Where the target cannot be written the source is read. Raises WeightsError.
    """
    if source.exists() and _kind(source) == "safetensors":
        tensors, metadata = _read_safetensors(source)
        return Weights(tensors=tensors, metadata=metadata, sha256=sha256 or _sha256_of(source), where=str(source))
    sha256 = sha256 or _sha256_unchanged(source, target) or _sha256_of(source)
    with contextlib.suppress(WeightsError):  # of the conversion, which can be made again
        return load_converted(target, architecture=architecture, sha256=sha256)
    try:
        convert(source, target, architecture=architecture, config=config, sha256=sha256)
    except OutputError:  # a shared folder, a full disk: slower, but the same numbers
        tensors = read_checkpoint(source, trainable_names(architecture, config, str(source)))
        return Weights(tensors=tensors, metadata={}, sha256=sha256, where=str(source))
    return load_converted(target, architecture=architecture, sha256=sha256)


def _sha256_unchanged(source: Path, target: Path) -> str:
    """The sha256 of a source that has the size and time that its conversion noted; '' for another."""
    try:
        stat, metadata = source.stat(), _read_safetensors(target)[1]
    except (OSError, WeightsError):
        return ""
    noted = (metadata.get("source_size"), metadata.get("source_mtime_ns"))
    return metadata.get("source_sha256", "") if noted == (str(stat.st_size), str(stat.st_mtime_ns)) else ""


def fits(path: Path, architecture: str, config: Mapping[str, object]) -> bool:
    """Whether a file holds the weights of that network: all of its tensors, of its shapes, and no others.

    Raises WeightsError for a file that is no checkpoint at all, or must not be read.
    """
    if architecture == "natural":
        return _kind(path) == "safetensors" and "inp.weight" in _read_safetensors(path)[0]
    network = _on_meta(architecture, config, str(path))
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    try:
        state = _used(architecture, read_checkpoint(path, trainable_names(architecture, config, str(path))))
    except MismatchError:
        return False
    return {name: value.shape for name, value in state.items()} == shapes


def _sha256_of(source: Path) -> str:
    if not source.is_file():
        raise WeightsError(f"{source} does not exist")
    return sha256_file(source)


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
    del clip_denoised  # rectified flow is sampled unclipped
    return FlowPrior(network, channels=network.config.channels)


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


def _on_meta(architecture: str, config: Mapping[str, object], where: str) -> nn.Module:
    """The network without storage, so that nothing is initialised in vain. Raises WeightsError."""
    if architecture not in ARCHITECTURES:
        known = ", ".join(sorted([*ARCHITECTURES, "natural"]))
        raise WeightsError(f"{where}: unknown architecture '{architecture}'; choose one of {known}")
    try:
        with torch.device("meta"):
            return ARCHITECTURES[architecture].build(config, where)
    except (ValueError, RuntimeError, ZeroDivisionError, IndexError) as exc:  # torch's words for sizes that cannot be
        raise OptionsError(f"{where}: these options make no {architecture} network: {exc}") from exc


def trainable_names(architecture: str, config: Mapping[str, object], where: str) -> list[str]:
    """The parameters that training changes, in the order of the published `model.parameters()`."""
    if architecture == "natural":
        return []
    network = _on_meta(architecture, config, where)
    return [name for name, parameter in network.named_parameters() if parameter.requires_grad]


def random_state(architecture: str, config: Mapping[str, object], where: str) -> dict[str, Tensor]:
    """Weights of the architecture's shapes without a file: normal with variance 1 / fan-in, norms 1, biases 0.

    Of fixed seed. Enough to time a network: its numbers stay finite, its pictures mean nothing. Raises OptionsError,
    WeightsError for an architecture whose sizes only a file gives.
    """
    generator = torch.Generator().manual_seed(0)

    def draw(name: str, shape: torch.Size) -> Tensor:
        if len(shape) > 1:
            return torch.randn(shape, generator=generator).div(float(shape[1:].numel()) ** 0.5)
        return torch.ones(shape) if name.endswith("weight") else torch.zeros(shape)

    state = _on_meta(architecture, config, where).state_dict()
    return {name: draw(name, value.shape) for name, value in state.items()}


def _used(architecture: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries that the architecture reads."""
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
    """The prior of a checkpoint: its network on `device` (absent: the CPU), its weights in `dtype` and channels_last.

    config: of `adm` the arguments of the reference's `create_model`, of `ncsnpp` the options of its configuration
    file, of `natural` nothing. where: the file, for messages. clip_denoised, schedule: of `adm`, whether x0 is clipped
    to [-1, 1], and the chain that it was trained on (`nets.diffusers_unet.alpha_bars`).
    metadata: of `natural`. Raises WeightsError if these are not the architecture's weights, all of them.
    """
    if architecture == "natural":
        denoiser = natural_from_state(state, where, metadata).to(device=device, dtype=dtype)
        return DenoiserPrior(denoiser.denoise, NaturalConfig.from_state(state, where).channels)
    network = _on_meta(architecture, config, where)
    load_state(network, _used(architecture, state), where)
    network.to(device=device, dtype=dtype).to(memory_format=torch.channels_last)
    prior = ARCHITECTURES[architecture].prior(network, clip_denoised)
    prior.multiple = int(network.multiple)  # type: ignore[arg-type]
    if isinstance(prior, DDPMPrior) and schedule != "linear":
        prior.bars = alpha_bars(Schedule(beta_schedule=schedule), where)
    return prior


def load_diffusers(folder: Path, *, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> Prior:
    """The prior of a local diffusers folder: an unconditional UNet2DModel on pixels and its noise schedule.

    The network may lie in `unet/`, the schedule in `scheduler/`. Raises WeightsError, also if diffusers is missing.
    """
    denoiser = folder_denoiser(folder, read_checkpoint)
    denoiser.to(device=device, dtype=dtype).to(memory_format=torch.channels_last)
    prior = DenoiserPrior(denoiser.denoise, denoiser.channels)
    prior.multiple = denoiser.multiple
    return prior


def folder_size(folder: Path) -> int | None:
    """The side, px, of the pictures that a diffusers folder's network was made for, if it says so. WeightsError."""
    size = read_config(folder).get("sample_size")
    return size if isinstance(size, int) and size > 0 else None
