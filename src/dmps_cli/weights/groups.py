"""What a checkpoint holds: groups of tensors in mappings and lists of any nesting, each with its place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from dmps_cli.errors import WeightsError

MAX_DEPTH = 6
"""Mappings and lists around the weights."""

AVERAGES, LAST_STEPS = {"ema", "average", "averaged", "avg", "shadow", "swa"}, {"online", "raw", "student"}
"""Words in the names of entries and prefixes; the last of them counts (`ema/online_model.` is not averaged)."""

SHADOW = "shadow_params"
"""Of training states that keep averages as a list, in the order of the parameters."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Tensors by name in a mapping of a file, or in a list by order (`ordered`).

    entry: the keys and places around it, with / between. is_last: whether it ends a list of such groups.
    """

    entry: str
    tensors: Mapping[str, Tensor]
    ordered: Sequence[object] | None = None
    is_last: bool = False


def groups_of(content: object, entry: str = "") -> list[Group]:
    """Returns the groups of a file or a part of it, in its order. entry: where that part lies."""
    return [*_walk(content, entry, set(), is_last=False)]


def _walk(content: object, entry: str, seen: set[int], *, is_last: bool) -> Iterator[Group]:
    if not isinstance(content, Mapping | list | tuple) or id(content) in seen or entry.count("/") >= MAX_DEPTH:
        return
    seen.add(id(content))  # a pickle can hold a mapping that holds itself
    if isinstance(content, Mapping):
        if tensors := _tensors(content):
            yield Group(entry=entry, tensors=tensors, is_last=is_last)
        if isinstance(shadow := content.get(SHADOW), list):
            yield Group(entry=_below(entry, SHADOW), tensors={}, ordered=shadow)
    groups = [] if isinstance(content, Mapping) else [item for item in content if _tensors(item)]
    for key, item in content.items() if isinstance(content, Mapping) else enumerate(content):
        ends_list = len(groups) > 1 and item is groups[-1] and item is content[-1]
        yield from _walk(item, _below(entry, str(key)), seen, is_last=ends_list)


def _tensors(content: object) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        return {}
    return {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}


def _below(entry: str, name: str) -> str:
    return f"{entry}/{name}" if entry else name


def entry_of(content: object, entry: str, where: str) -> object:
    """Returns what lies at an entry: keys of mappings and places in lists, -1 the last, with / between.

    Raises WeightsError, saying what there is.
    """
    for part in entry.split("/"):
        if isinstance(content, Mapping):
            found = {str(key): value for key, value in content.items()}
        elif isinstance(content, list | tuple):
            places = range(-len(content), len(content))
            found = {str(place): content[place] for place in places}
        else:
            found = {}
        if part not in found:
            there = ", ".join([*found][:8]) or "nothing"
            raise WeightsError(f"{where} has no entry '{entry}': where '{part}' is expected, there is {there}")
        content = found[part]
    return content


def is_average(place: str) -> bool:
    """Returns whether an entry and a prefix speak of averaged weights (EMA)."""
    words = [word for word in re.split(r"[^a-z]+", place.lower()) if word in AVERAGES | LAST_STEPS]
    return bool(words) and words[-1] in AVERAGES
