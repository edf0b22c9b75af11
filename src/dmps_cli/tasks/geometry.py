"""Sizes: of x by what a degraded picture has, of what is restored by what an image has; of chains link by link."""

from __future__ import annotations

import math

from dmps_cli.errors import InputError
from dmps_cli.tasks.options import VALID
from dmps_cli.tasks.rows import Params, Shape3
from dmps_cli.tasks.table import check_kernel, kernel_of, parts


def factor(params: Params) -> int:
    """Returns the pixels of x per pixel of y along each axis: the product of all scales, 1 where there is none."""
    return math.prod(int(link.get("scale", 1)) for _, link in parts("", params))


def share_measured(params: Params) -> float:
    """Returns the numbers of y per number of x as the parameters say it, a mask's picture left out."""
    kept: float = math.prod(
        (1.0 - (link.get("fraction") or 0.0)) / link.get("ratio", 1) for _, link in parts("", params)
    )
    return kept / factor(params) ** 2


def margin(name: str, params: Params) -> tuple[int, int]:
    """Returns (rows, columns) px by which x, a scene that goes on, is larger than the picture that is restored.

    What a blur after others needs around it counts in pixels of x: times the scales before it.
    """
    rows = cols = 0
    scale = 1
    for part, link in parts(name, params):
        kernel = kernel_of(part, link)
        if kernel is not None and link["boundary"] == VALID:
            rows, cols = (have + scale * (side - 1) for have, side in zip((rows, cols), kernel.size, strict=True))
        scale *= int(link.get("scale", 1))
    return rows, cols


def source_shape(name: str, params: Params, picture_size: tuple[int, int], channels: int = 3) -> Shape3:
    """Returns (channels, H, W) of x that a degraded picture of (h, w) implies.

    Raises InputError if the kernel is larger.
    """
    if params.get("image_shape"):
        return tuple(params["image_shape"])
    check_kernel(name, params, picture_size)
    h, w = picture_size
    return scene_shape(name, params, (h * factor(params), w * factor(params)), channels)


def scene_shape(name: str, params: Params, picture_size: tuple[int, int], channels: int = 3) -> Shape3:
    """Returns (channels, H, W) of x of which a restored picture of (h, w) is all, or the part within the frame."""
    (h, w), (rows, cols) = picture_size, margin(name, params)
    return channels, h + rows, w + cols


def crop_box(name: str, params: Params, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Returns (left, top, width, height) px: the central part of an image of (H, W) that the task can take.

    The whole image, but for super-resolution, whose H and W, less a scene's margin, are multiples of the scale. Raises
    InputError if nothing is left.
    """
    if shape := params.get("image_shape"):
        return _middle(size, (shape[1], shape[2]))
    scale = factor(params)
    around = margin(name, params) if scale > 1 else (0, 0)
    height, width = (side - (side - beyond) % scale for side, beyond in zip(size, around, strict=True))
    if height <= around[0] or width <= around[1]:
        raise InputError(f"the picture is {size[1]} x {size[0]} px, smaller than the scale {scale}")
    return (size[1] - width) // 2, (size[0] - height) // 2, width, height


def _middle(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int, int, int]:
    """Returns the central part of an image of (H, W) of the wanted size. Raises InputError where it is smaller."""
    (H, W), (height, width) = size, wanted
    if height > H or width > W:
        raise InputError(f"the picture is {W} x {H} px, smaller than --image-shape, {width} x {height}")
    return (W - width) // 2, (H - height) // 2, width, height


def shown_size(name: str, params: Params, size: tuple[int, int]) -> tuple[int, int]:
    """Returns (H, W) px that are restored of an image of (H, W).

    Less than `crop_box` where x is a scene around them.
    """
    (_, _, width, height), (rows, cols) = crop_box(name, params, size), margin(name, params)
    return height - rows, width - cols
