"""Which tensors of a file are a network's: found by names and shapes, whatever a trainer wrote around them.

In a group of tensors any beginning of names may be a prefix (`module.`, `model.net.`, `ema_model.`): where the rest are
the network's names and the shapes agree, its weights are found. The averaged ones (EMA) go first.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from dmps_cli.errors import WeightsError
from dmps_cli.nets.loading import differences
from dmps_cli.weights.groups import Group, entry_of, groups_of, is_average

Tensors = Mapping[str, Tensor]


class MismatchError(WeightsError):
    """A checkpoint, but of another network."""


@dataclass(frozen=True, kw_only=True)
class Network:
    """shapes: of all its tensors by name; trainable: the parameters that training changes, in their order."""

    shapes: Mapping[str, tuple[int, ...]]
    trainable: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Sought:
    """What a file must hold to be a network's.

    known: names of tensors that every such network has. network: the one that these tensors are of, if its sizes are
    theirs; raises WeightsError if there is none. unused: names that files may hold beside. renamed: the present name
    of a tensor of an old file.
    """

    known: frozenset[str]
    network: Callable[[Tensors], Network]
    unused: frozenset[str] = frozenset()
    renamed: Callable[[str], str] = str


@dataclass(frozen=True, kw_only=True)
class Found:
    """Weights in a file. entry, prefix: their place, as weights.toml names it. left: other weights that fit too."""

    tensors: Tensors
    entry: str
    prefix: str
    is_average: bool
    left: tuple[str, ...] = ()

    @property
    def place(self) -> str:
        """Where they lie, in words."""
        parts = [f"entry '{self.entry}'" if self.entry else "", f"prefix '{self.prefix}'" if self.prefix else ""]
        return ", ".join(filter(None, parts)) or "no entry or prefix"

    @property
    def said(self) -> str:
        """What a person should know of the choice that was made among several weights; nothing where there is none."""
        left = f"; those of {' and of '.join(self.left)} are left" if self.left else ""
        if self.is_average:
            return f"its averaged weights (EMA) are read, of {self.place}{left}"
        return f"its weights of {self.place} are read{left}" if left else ""


def find(content: object, sought: Sought, where: str, *, entry: str | None = None, prefix: str | None = None) -> Found:
    """Returns the network's weights in what a file held, the averaged ones first.

    What averages lack (buffers) is taken from the other weights. entry, prefix: where alone to look, of a table. Raises
    MismatchError if nothing fits, with what is wrong with the nearest, WeightsError if there is no such entry.
    """
    groups = groups_of(content)
    plain = [found for found in _named(groups, sought) if not found.is_average]
    rest = next((found.tensors for found in plain if not _problem(found.tensors, sought)), {})
    if entry:
        groups = groups_of(entry_of(content, entry, where), entry)
    found = [*_named(groups, sought), *_undotted(groups, rest), *_ordered(groups, rest, sought, where)]
    if prefix is not None:
        found = [weights for weights in found if weights.prefix.rstrip(".") == prefix.rstrip(".")]
    whole = [_completed(weights, rest, sought) for weights in found]
    wrong = {id(weights): problem for weights in whole if (problem := _problem(weights.tensors, sought))}
    right = [weights for weights in whole if id(weights) not in wrong]
    averages = [weights for weights in whole if weights.is_average]
    right_averages = [weights for weights in right if weights.is_average]
    if not right or (averages and not right_averages):
        raise _mismatch(
            [(weights, wrong[id(weights)]) for weights in averages or whole], content, groups, where, prefix
        )
    chosen = (right_averages or right)[0]
    left = tuple(weights.place for weights in right if weights is not chosen)
    return replace(chosen, tensors=_used(chosen.tensors, sought), left=left)


def _named(groups: Sequence[Group], sought: Sought) -> Iterator[Found]:
    """Yields what of each group has names of the network behind a prefix."""
    for group in groups:
        tensors = {sought.renamed(name): value for name, value in group.tensors.items()}
        prefixes = _prefixes(tensors, sought.known)
        for prefix in prefixes:
            longer = tuple(other for other in prefixes if other != prefix and other.startswith(prefix))
            own = {
                name.removeprefix(prefix): value
                for name, value in tensors.items()
                if name.startswith(prefix) and not name.startswith(longer)
            }
            weights = {
                name: value for name, value in own.items() if name in sought.known or not _is_counter(name, value)
            }
            averaged = group.is_last or is_average(f"{group.entry}/{prefix}")
            yield Found(tensors=weights, entry=group.entry, prefix=prefix, is_average=averaged)


def _prefixes(names: Collection[str], known: Collection[str]) -> list[str]:
    """Returns what stands before the known names, where it does so for many of them."""
    deepest = 1 + max((name.count(".") for name in known), default=0)
    found: Counter[str] = Counter()
    for name in names:
        parts = name.split(".")
        for start in range(max(0, len(parts) - deepest), len(parts)):
            if ".".join(parts[start:]) in known:
                found[".".join([*parts[:start], ""])] += 1
    most = max(found.values(), default=0)
    return [prefix for prefix, count in found.items() if 2 * count >= most]


def _is_counter(name: str, value: Tensor) -> bool:
    """Returns whether this is what a wrapper counts beside the weights: `step`, `n_averaged`, `decay`."""
    return "." not in name and value.numel() == 1


def _undotted(groups: Sequence[Group], rest: Tensors) -> Iterator[Found]:
    """Yields averages under names without dots, as latent diffusion has them (`model_ema.input_blocks00weight`)."""
    names = {name.replace(".", ""): name for name in rest}
    if not names or len(names) < len(rest):
        return
    anchor = max(names, key=len)
    for group in groups:
        for prefix in [name.removesuffix(anchor) for name in group.tensors if name.endswith(anchor)]:
            own = {name: group.tensors.get(f"{prefix}{bare}") for bare, name in names.items()}
            weights = {name: value for name, value in own.items() if value is not None}
            if is_average(f"{group.entry}/{prefix}"):
                yield Found(tensors=weights, entry=group.entry, prefix=prefix, is_average=True)


def _ordered(groups: Sequence[Group], rest: Tensors, sought: Sought, where: str) -> Iterator[Found]:
    """Yields averages that are a list in the order of the parameters, as Rectified Flow and diffusers keep them.

    Raises MismatchError if there are more or fewer.
    """
    for group in [group for group in groups if group.ordered is not None]:
        try:
            trainable, values = sought.network(rest).trainable, group.ordered or ()
        except WeightsError as exc:
            raise MismatchError(str(exc)) from exc
        if len(values) != len(trainable):
            raise MismatchError(
                f"{where}: {len(values)} averaged tensors for {len(trainable)} trainable parameters; "
                "check that the model's configuration and the file belong together"
            )
        pairs = zip(trainable, values, strict=True)
        weights = {name: value for name, value in pairs if isinstance(value, Tensor)}
        yield Found(tensors=weights, entry=group.entry, prefix="", is_average=True)


def _completed(found: Found, rest: Tensors, sought: Sought) -> Found:
    """Returns averages of all parameters with what nobody averages; others as they are."""
    if not found.is_average or not rest:
        return found
    if any(name not in found.tensors for name in sought.network(rest).trainable):
        return found
    return replace(found, tensors={**rest, **found.tensors})


def _used(tensors: Tensors, sought: Sought) -> Tensors:
    return {name: value for name, value in tensors.items() if name not in sought.unused}


def _problem(tensors: Tensors, sought: Sought) -> str:
    """Returns in what way these are not the network's tensors; nothing if they are."""
    try:
        network = sought.network(tensors)
    except WeightsError as exc:
        return str(exc)
    return "; ".join(differences(network.shapes, _used(tensors, sought)))


def _mismatch(
    wrong: list[tuple[Found, str]], content: object, groups: Sequence[Group], where: str, prefix: str | None
) -> MismatchError:
    """Returns the error that says what is wrong with the nearest of several weights, or what there is instead."""
    if wrong:
        nearest, problem = max(wrong, key=lambda pair: len(pair[0].tensors))
        kind = "averaged weights (EMA)" if nearest.is_average else "weights"
        return MismatchError(
            f"{where}: its {kind} of {nearest.place} are not those of this architecture: {problem}; "
            "check that the model's configuration and the file belong together"
        )
    largest = max(groups, key=lambda group: len(group.tensors), default=None)
    there = [*largest.tensors] if largest else [*map(str, content)] if isinstance(content, Mapping) else []
    beside = f" behind the prefix '{prefix}'" if prefix is not None else ""
    return MismatchError(
        f"{where}: no weights of this architecture found in it{beside}, only {', '.join(there[:3]) or 'nothing'}; "
        "is it the right file?"
    )
