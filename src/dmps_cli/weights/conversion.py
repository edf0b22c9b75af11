"""Copies of checkpoints that are mapped into memory."""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from dmps_cli import __version__
from dmps_cli.errors import OutputError, WeightsError
from dmps_cli.files.atomic import remove_left_overs, sha256_file
from dmps_cli.files.tensors import tensor_bytes, write_safetensors
from dmps_cli.nets.loading import check_state
from dmps_cli.weights.building import ARCHITECTURES, on_meta, trainable_names, used
from dmps_cli.weights.reading import MismatchError, kind_of, read_checkpoint, safetensors_of

CONVERSION = "1"
"""Version of what `convert` writes; a file of another version is made again."""


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
    state = used(architecture, read_checkpoint(source, trainable_names(architecture, config, str(source))))
    if architecture in ARCHITECTURES:
        check_state(on_meta(architecture, config, str(source)), state, str(source))
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


def _data_sha256(state: Mapping[str, Tensor]) -> str:
    """Returns the hexadecimal sha256 of the tensors' bytes, one after the other."""
    digest = hashlib.sha256()
    for value in state.values():
        digest.update(tensor_bytes(value))
    return digest.hexdigest()


def verify_converted(path: Path) -> str:
    """Returns the sha256 of the tensors that `convert` wrote, read through and compared. Raises WeightsError."""
    tensors, metadata = safetensors_of(path)
    found = _data_sha256({name: tensors[name] for name in _in_file_order(path)})
    if found != metadata.get("data_sha256"):
        raise WeightsError(f"{path}: its tensors' sha256 is {found}, not {metadata.get('data_sha256')}; delete it")
    return found


def _in_file_order(path: Path) -> list[str]:
    """Returns the names of a safetensors file's tensors, in the order of their bytes."""
    with path.open("rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    header.pop("__metadata__", None)
    return sorted(header, key=lambda name: header[name]["data_offsets"][0])


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The tensors of a checkpoint, mapped into memory. sha256: of the published file; where: for messages."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]
    sha256: str
    where: str


def load_converted(path: Path, *, architecture: str, sha256: str = "") -> Weights:
    """Returns what `convert` wrote, from the file with this sha256 if one is given.

    Raises WeightsError if it is not that.

    A short or malformed file is noticed; single bits that a disk has turned are not (reading all of it would take
    longer than everything else).
    """
    tensors, metadata = safetensors_of(path)
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
    """Returns the weights of `source`, mapped from its conversion `target`, made if it is absent, stale or damaged.

    sha256: the source's, if known; a fitting conversion then serves without the source. Unknown, it is computed, but
    not for a source of the size and time of change that the conversion was made from. A safetensors source is mapped
    itself. Where the target cannot be written the source is read. Raises WeightsError.
    """
    if source.exists() and kind_of(source) == "safetensors":
        tensors, metadata = safetensors_of(source)
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
    """Returns the sha256 of a source that has the size and time that its conversion noted; '' for another."""
    try:
        stat, metadata = source.stat(), safetensors_of(target)[1]
    except (OSError, WeightsError):
        return ""
    noted = (metadata.get("source_size"), metadata.get("source_mtime_ns"))
    return metadata.get("source_sha256", "") if noted == (str(stat.st_size), str(stat.st_mtime_ns)) else ""


def fits(path: Path, architecture: str, config: Mapping[str, object]) -> bool:
    """Returns whether a file holds the weights of that network: all of its tensors, of its shapes, and no others.

    Raises WeightsError for a file that is no checkpoint at all, or must not be read.
    """
    if architecture == "natural":
        return kind_of(path) == "safetensors" and "inp.weight" in safetensors_of(path)[0]
    network = on_meta(architecture, config, str(path))
    shapes = {name: value.shape for name, value in network.state_dict().items()}
    try:
        state = used(architecture, read_checkpoint(path, trainable_names(architecture, config, str(path))))
    except MismatchError:
        return False
    return {name: value.shape for name, value in state.items()} == shapes


def _sha256_of(source: Path) -> str:
    if not source.is_file():
        raise WeightsError(f"{source} does not exist")
    return sha256_file(source)
