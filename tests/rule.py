"""The weight rule of the golden data: deterministic weights for any network, from the names of its parameters."""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
from torch import Tensor, nn


def rule_tensor(key: str, shape: tuple[int, ...]) -> Tensor:
    """Normal draws seeded by the name; matrices scaled by 1 / sqrt(fan-in), scales 1 + 0.1 n, offsets 0.1 n."""
    n = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
    if len(shape) >= 2:
        n = n / math.sqrt(math.prod(shape[1:]))
    elif key.endswith(".weight"):
        n = 1 + 0.1 * n
    else:
        n = 0.1 * n
    return torch.from_numpy(n.astype(np.float32))


def rule_weights(module: nn.Module) -> dict[str, Tensor]:
    """The rule's tensors for every parameter of a module."""
    return {key: rule_tensor(key, tuple(parameter.shape)) for key, parameter in module.named_parameters()}
