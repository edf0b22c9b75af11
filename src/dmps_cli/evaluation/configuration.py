"""The configuration of an evaluation: all that a number depends on, as config.json holds it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from dmps_cli.checks import SAMPLES, SIGMA
from dmps_cli.errors import InputError, UsageError
from dmps_cli.evaluation.rows import KnownTask
from dmps_cli.files.atomic import atomic_write, sha256_bytes
from dmps_cli.files.measurements import EVALUATION_KIND, Side, json_bytes, versions
from dmps_cli.files.reading import read_bytes
from dmps_cli.files.records import RecordError, as_record, one_of, parse_json
from dmps_cli.methods.choice import as_typed, of_today
from dmps_cli.metrics.lpips import LPIPS_NETS
from dmps_cli.metrics.table import METRICS
from dmps_cli.tasks.table import resolve_recorded

CONFIG = "config.json"
FORMAT = 1

Count = Annotated[int, Meta(ge=0, le=10**9)]

_DIFFERENCES_SAID = 3
_HASH = re.compile("[0-9a-f]{64}")


class ProblemRecord(Struct, frozen=True, kw_only=True):
    """A task of a configuration, its noise, the ways in which it is solved."""

    task: KnownTask
    operator: dict[str, Any]
    sigma_y: float
    samplings: list[dict[str, str | float | None]]

    def __post_init__(self) -> None:
        SIGMA("sigma_y", self.sigma_y, ValueError)
        try:
            resolve_recorded(self.task, self.operator)
        except (InputError, UsageError, TypeError) as exc:
            raise ValueError(f"no operator: {exc}") from exc


class Configuration(Struct, frozen=True, kw_only=True):
    """What reports read of a configuration; results depend on all of it."""

    num_images: Count
    image_size: Side | None
    prepared: str
    model_sha256: str
    channels: Literal[1, 3]
    samples: int
    metrics: list[Annotated[str, one_of(METRICS)]]
    lpips_net: Annotated[str, one_of(LPIPS_NETS)]
    problems: list[ProblemRecord]

    def __post_init__(self) -> None:
        SAMPLES("samples", self.samples, ValueError)


class RunFile(Struct, frozen=True, kw_only=True):
    """What config.json holds; facts: what is worth knowing but changes no result."""

    kind: Literal["dmps evaluation"]
    format: int
    config_sha256: str
    config: dict[str, Any]
    facts: dict[str, Any]
    versions: dict[str, Any]


def config_hash(config: Mapping[str, Any]) -> str:
    """Returns sha256 of a configuration, whatever the order of its keys."""
    return sha256_bytes(json.dumps(config, sort_keys=True).encode())


def differences(one: object, other: object, name: str = "") -> Iterator[tuple[str, object, object]]:
    """Yields (name, value in one, value in the other) of what differs between two configurations."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys((*one, *other)):
            yield from differences(one.get(key), other.get(key), key)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for left, right in zip(one, other, strict=True):
            yield from differences(left, right, name)
    elif isinstance(one, list) and isinstance(other, list):
        yield f"the number of {name}", len(one), len(other)
    elif one != other:
        yield name, one, other


def how_they_differ(one: object, other: object, places: tuple[str, str]) -> str:
    """Returns 'seed is 0 there, 1 here; ...', a long list cut short. places: what is said for 'there' and 'here'."""
    found = [*dict.fromkeys(_difference(*difference, places) for difference in differences(one, other))]
    more = f" and {len(found) - _DIFFERENCES_SAID} more" if len(found) > _DIFFERENCES_SAID else ""
    return "; ".join(found[:_DIFFERENCES_SAID]) + more


def _difference(name: str, one: object, other: object, places: tuple[str, str]) -> str:
    """Returns what differs and how; of two hashes only what they are of."""
    if all(isinstance(value, str) and _HASH.fullmatch(value) for value in (one, other)):
        return f"not the same {name.removesuffix('_sha256')}"
    return f"{name} is {as_typed(one)} {places[0]}, {as_typed(other)} {places[1]}"


def read_config(folder: Path) -> RunFile | None:
    """Returns what config.json of a folder says; None if there is none. Raises InputError if it is not ours."""
    path = folder / CONFIG
    try:
        content = as_record(parse_json(read_bytes(path)), RunFile)
        if content.format != FORMAT:
            raise InputError(f"{path} has format {content.format}; this version reads format {FORMAT}: upgrade dmps")
        if content.config_sha256 != config_hash(content.config):
            raise RecordError("config_sha256 is not that of its config")
        as_record(content.config, Configuration)
        for problem in content.config["problems"]:
            problem["samplings"] = [of_today(sampling) for sampling in problem["samplings"]]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}") from exc
    except RecordError as exc:
        raise InputError(f"{path} is not of dmps eval, or damaged ({exc}); choose another --out") from exc
    return content


def write_config(folder: Path, config: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    """Writes config.json. facts: what is worth knowing but changes no result. Raises OutputError."""
    head = {"kind": EVALUATION_KIND, "format": FORMAT, "config_sha256": config_hash(config)}
    written = {**head, "config": dict(config), "facts": dict(facts), "versions": versions()}
    atomic_write(folder / CONFIG, json_bytes(written), overwrite=True)
