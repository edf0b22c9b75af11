"""Networks that a training begins with: new ones, and larger ones that compute what a smaller one does."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dmps_cli.errors import WeightsError
from dmps_cli.nets.natural import NaturalConfig, NaturalNet

BRANCH_ENDS = (".c2.", "attention.proj.", "out.")
"""In the names of the layers that begin at 0: residual branches add nothing then, and the output is 0."""


def initialised(config: NaturalConfig, seed: int) -> NaturalNet:
    """Returns a network to begin with.

    Torch's own draws, but residual branches and output begin at 0, so that F = 0.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = NaturalNet(config)
    for name, parameter in net.named_parameters():
        if any(part in f".{name}" for part in BRANCH_ENDS):
            nn.init.zeros_(parameter)
    return net


@torch.no_grad()
def grown(state: Mapping[str, Tensor], config: NaturalConfig, seed: int, where: str) -> NaturalNet:
    """Returns a network of these sizes, none below those of `state`, that computes what a network with `state` does.

    What is new is drawn as for a new network, but nothing that the old layers see of it is other than 0:

        blocks and attention that are new   add nothing
        new channels between blocks         are written at random from the picture; no old channel is computed from them
        new channels inside a block         begin at 0, and what reads them is random

    The norm of a block is a mean over all channels, of which w of W are other than 0: with r = sqrt(w / W) the old rows
    of c1 are divided by r, so that the mean is what it was, and 1 + p is multiplied by r.

    state: in any precision. Raises WeightsError if `state` has another embedding or number of levels, or a larger size.
    """
    old = NaturalConfig.from_state(state, where)
    _check(old, config, where)
    net = initialised(config, seed)
    for name, parameter in net.named_parameters():
        if name in state:
            parameter.copy_(_grown_tensor(name, state[name].float(), parameter))
    net.fr.copy_(state["fr"])
    return net


def _check(old: NaturalConfig, new: NaturalConfig, where: str) -> None:
    kept = [getattr(config, name) for name in ("channels", "emb_width", "num_frequencies") for config in (old, new)]
    pairs = [*zip(old.widths, new.widths, strict=False), *zip(old.blocks, new.blocks, strict=False)]
    if (
        kept[::2] != kept[1::2]
        or len(old.widths) != len(new.widths)
        or any(before > after for before, after in pairs)
        or old.has_attention > (new.has_attention and old.widths[-1] == new.widths[-1])  # heads are norms of their own
    ):
        raise WeightsError(f"{where}: a network of its sizes, {old}, cannot grow to {new}")


def _grown_tensor(name: str, old: Tensor, fresh: Tensor) -> Tensor:
    """Returns a parameter of the larger network. fresh: as it was drawn."""
    stage, _, kind = name.removesuffix(".weight").removesuffix(".bias").rpartition(".")
    is_block = stage.startswith(("enc.", "mid.", "dec."))
    if is_block and kind == "aff":
        return _modulation(old, fresh, is_bias=name.endswith(".bias"))
    if is_block and kind == "c1":
        return _placed(old / math.sqrt(len(old) / len(fresh)), fresh)
    if is_block and kind == "c2":
        grown = _placed(old, fresh)
        if fresh.ndim > 1:  # fresh is 0 here
            bound = 1.0 / math.sqrt(fresh[0].numel())
            nn.init.uniform_(grown[: len(old), old.shape[1] :], -bound, bound)
        return grown
    if stage == "up" and fresh.ndim > 1:  # (in, out, 2, 2)
        return _placed(old, fresh)
    return _placed(old, fresh, keep_rows=True)


def _placed(old: Tensor, fresh: Tensor, *, keep_rows: bool = False) -> Tensor:
    """Returns the old values in the first corner.

    Beside them 0, so that nothing new is read; below them 0, or what is fresh.

    old, fresh: (rows, ..) or (rows, columns, ..).
    """
    grown = fresh.clone() if keep_rows else torch.zeros_like(fresh)
    grown[: len(old)] = 0.0
    if old.ndim == 1:
        grown[: len(old)] = old
    else:
        grown[: len(old), : old.shape[1]] = old
    return grown


def _modulation(old: Tensor, fresh: Tensor, *, is_bias: bool) -> Tensor:
    """Returns a block's `aff`: 1 + p' = r (1 + p) for the old channels, p as drawn for new ones; q' = q, and 0.

    old: (2 w, ..), p and q one below the other.
    """
    (p, q), (new_p, new_q) = old.chunk(2), fresh.chunk(2)
    r = math.sqrt(len(p) / len(new_p))
    return torch.cat([_placed(r * p + (r - 1.0 if is_bias else 0.0), new_p, keep_rows=True), _placed(q, new_q)])
