"""Tasks by name: what options resolve to, and the operator that they build. No torch until one is built.

A chain, "blur(gauss:1.6) | decimate(2)", is a task too (`tasks.chain`): its parameters are those of its links, each
with the name of its task.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli.checks import flag
from dmps_cli.errors import InputError, UsageError, unknown_name
from dmps_cli.files.measurements import decode_mask, encode_mask
from dmps_cli.tasks import kernels
from dmps_cli.tasks.chain import is_chain, normal, parsed
from dmps_cli.tasks.options import PATTERNS, RULES, VALID, OperatorOptions
from dmps_cli.tasks.purposes import Purpose, meant_by
from dmps_cli.tasks.rows import ALPHA_MASK, OF_FILES, OWN, TASKS, Params, Shape3, Site, Task

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from dmps_cli.operators.base import LinearOperator
    from dmps_cli.operators.kernels import Kernel


LINKS = "links"
"""The one parameter of a chain: those of its links, each with its `task`."""

IN_CHAINS = {"mask": "inpaint"}
"""Other names that links may have."""


def task(name: str, command: str | None = None) -> Task:
    """Returns the row of that name. Raises UsageError otherwise, with what such a name stands for.

    command: as it was typed, without the task; then the error says what to type. Of a chain the row is made of those
    of its links; --boundary is the one option that it takes, for those that have none of their own.
    """
    if row := TASKS.get(name) or OWN.get(name) or OF_FILES.get(name):
        return row
    if is_chain(name):
        return _row_of([task(link) for link, _ in links_of(name)])
    purposes = meant_by(name, TASKS)
    if not purposes:
        raise unknown_name("task", name, TASKS)
    likely = " or ".join(
        f"'{one}'{_explained([each for each in purposes if each.task == one], command)}"
        for one in dict.fromkeys(each.task for each in purposes)
    )
    raise UsageError(f"unknown task '{name}'; did you mean {likely}?")


def _row_of(rows: Sequence[Task]) -> Task:
    """Returns what is true of tasks one after another. It is built link by link (`build`)."""
    boundaries = [row.params["boundary"] for row in rows if "boundary" in row.params]
    return Task(
        help="several tasks, one after another",
        sigma_y=min(row.sigma_y for row in rows),
        params={"boundary": boundaries[0]} if boundaries else {},
        build=rows[-1].build,
        is_picture=rows[-1].is_picture,
        needs_colour=any(row.needs_colour for row in rows),
    )


def links_of(name: str) -> list[tuple[str, OperatorOptions]]:
    """Returns (task, its options as typed) of each link of a chain. Raises UsageError for one that cannot be."""
    links = []
    known = {field.name for field in fields(OperatorOptions)}
    for link in parsed(name):
        row = task(of := IN_CHAINS.get(link.name, link.name))
        if unknown := [option for option in link.options if option not in known]:
            raise UsageError(f"'{link.name}' in '{name}' takes no {unknown[0]}; it takes {', '.join(row.params)}")
        if link.main is not None and (row.main is None or row.main in link.options):
            raise UsageError(
                f"'{link.name}' in '{name}' takes no bare value, and '{link.main}' is one; it takes "
                f"{', '.join(f'{option}=..' for option in row.params) or 'nothing'}"
            )
        given = link.options | ({} if link.main is None else {row.main or "": link.main})
        values: dict[str, Any] = {option: _of_text(value) for option, value in given.items()}
        links.append((of, OperatorOptions(**values)))
    return links


def _of_text(value: str) -> str | bool:
    return {"true": True, "false": False}.get(value.lower(), value)


def parts(name: str, params: Params) -> list[tuple[str, Params]]:
    """Returns (task, its parameters) of each link of a chain; of any other task itself alone."""
    links = params.get(LINKS)
    return [(name, params)] if links is None else [(link["task"], link) for link in links]


def named(name: str | None, options: OperatorOptions) -> str | None:
    """Returns the task that is meant: the name, or the one that --matrix or --operator stands for; None for neither.

    Raises UsageError for both, and for --image-shape without an operator of one's own.
    """
    stands_for = next((own for own in OWN if getattr(options, own) is not None), None)
    if options.own is None:
        if options.image_shape is not None:
            raise UsageError("--image-shape belongs to --matrix and --operator")
        if name in OWN:
            raise UsageError(f"the task '{name}' is named by {flag(name or '')}")
        return name if name is None else normal(name)
    if name not in (None, stands_for):
        raise UsageError(
            f"{flag(stands_for or '')} stands in place of a task, and '{name}' is one; leave one of them out"
        )
    return stands_for


def given_parts(name: str, options: OperatorOptions) -> list[tuple[str, OperatorOptions]]:
    """Returns (task, what it is given) of each link of a chain; of any other task itself alone, with the options."""
    return links_of(name) if is_chain(name) else [(name, options)]


def like(name: str | None) -> str | None:
    """Returns the plain task whose defaults a task has: of a chain its first blur, or else what is no mere noise."""
    if name is None or not is_chain(name):
        return name
    names = [link for link, _ in links_of(name)]
    blurs = [link for link in names if task(link).kernel is not None]
    return next(iter([*blurs, *(link for link in names if link != "denoise")]), names[0])


def files_of(name: str | None, options: OperatorOptions) -> list[Path]:
    """Returns the files that a task's options name, those of a chain's links among them."""
    links = links_of(name) if name is not None and is_chain(name) else []
    return [file for given in (options, *(link for _, link in links)) for file in given.files()]


def _explained(purposes: Sequence[Purpose], command: str | None) -> str:
    """Says for a name that was not known what its task is for, and what to type, of each purpose."""
    typed = [None if command is None else f"{command} {purpose.arguments}" for purpose in purposes]
    texts = [": ".join(filter(None, (purpose.fault, text))) for purpose, text in zip(purposes, typed, strict=True)]
    return f" ({'; '.join(texts)})" if any(texts) else ""


def resolve(name: str, options: OperatorOptions) -> dict[str, Any]:
    """Returns the complete parameters of a task, JSON-able: its defaults, with the options given.

    A kernel's file is read, of a chain a mask's too. Raises UsageError for an unknown task, an option that it does not
    take or that its name contradicts, and a value out of range; InputError for a kernel that cannot be one.
    """
    if not is_chain(name):
        return _resolved(name, options)
    row, shared = task(name), options.given()
    if foreign := [option for option in shared if option not in row.params]:
        raise UsageError(f"{flag(foreign[0])} beside '{name}': what a task of several is given stands in parentheses")
    links = []
    for link, given in links_of(name):
        open_ones = {key: value for key, value in shared.items() if key in task(link).params}
        links.append({"task": link, **_with_mask_read(_resolved(link, OperatorOptions(**open_ones | given.given())))})
    return {LINKS: links}


def _with_mask_read(params: dict[str, Any]) -> dict[str, Any]:
    """Returns parameters with a mask's pixels in place of its file, so that a sidecar needs no other place for them."""
    if not isinstance(params.get("mask"), str):
        return params
    from dmps_cli.files.masks import load_mask

    if params["mask"] == ALPHA_MASK:
        raise UsageError(f"mask({ALPHA_MASK}) is each picture's own; in a chain a mask is a file")
    keep, _ = load_mask(Path(params["mask"]), invert=params["invert_mask"])
    return params | {"mask": {"size": list(keep.shape), "png": encode_mask(keep)}, "invert_mask": False}


def _resolved(name: str, options: OperatorOptions) -> dict[str, Any]:
    """Returns the parameters of one task."""
    row, given = task(name), options.given()
    params = dict(row.params)
    for option, value in given.items():
        if option not in params:
            takers = [other for other, candidate in TASKS.items() if option in candidate.params]
            raise UsageError(f"task '{name}' takes no {flag(option)}; it belongs to {', '.join(takers)}")
        checked = RULES[option](flag(option), value)
        if option in row.fixed and checked != params[option]:
            others = [other for other, candidate in TASKS.items() if option in {*candidate.params} - {*candidate.fixed}]
            raise UsageError(
                f"task '{name}' has {flag(option)} {params[option]}, not {checked}; {' or '.join(others)} takes any"
            )
        params[option] = checked
    if "taps" in params and params["taps"] is None:
        params["taps"] = 2 * math.ceil(5 * params["blur_std"]) + 1  # 31 at std 3, as in the authors' code
    if "kernel" in params:
        kernels.check_sum(params["kernel"], as_is=params["kernel_as_is"])
    return _one_pattern(params, given) if name == "inpaint" else params


def resolve_recorded(name: str, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the complete parameters of a task as a file has them, None for those not given; opens no file of a name.

    Such files hold the numbers of a kernel, not where they were. Raises as `resolve`, InputError for a kernel's file,
    TypeError for an option that there is not.
    """
    if not is_chain(name):
        return _resolved_recorded(name, recorded)
    names = [link for link, _ in links_of(name)]
    links = recorded.get(LINKS)
    if not isinstance(links, list) or [isinstance(link, dict) and link.get("task") for link in links] != names:
        raise InputError(f"its parameters are not those of '{name}'")
    return {LINKS: [{"task": link["task"], **_resolved_link(link)} for link in links]}


def _resolved_link(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters of a link as a file has them: its mask by its pixels."""
    mask = recorded.get("mask")
    if mask is None:
        return _resolved_recorded(recorded["task"], {k: v for k, v in recorded.items() if k != "task"})
    if not (isinstance(mask, dict) and isinstance(mask.get("png"), str) and isinstance(mask.get("size"), list)):
        raise InputError("the mask of a link is no picture of its pixels")
    return dict(TASKS[recorded["task"]].params) | {"fraction": None, "operator_seed": None, "mask": mask}


def _resolved_recorded(name: str, recorded: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters of one task as a file has them."""
    given = {option: value for option, value in recorded.items() if value is not None}
    for own in OWN:
        if isinstance(given.get(own), str):
            raise InputError(f"the {own} '{given[own]}' has no name and hash")
    kernel = given.get("kernel")
    if isinstance(kernel, str) and not kernels.is_formula(kernel):
        raise InputError(f"the kernel '{kernel}' is neither numbers nor one of {kernels.USAGES}")
    return resolve(name, OperatorOptions(**given))


def _one_pattern(params: dict[str, Any], given: Params) -> dict[str, Any]:
    """Returns the one given of the ways to say which pixels are missing; the random half if none is."""
    chosen = [name for name in PATTERNS if name in given]
    if len(chosen) > 1:
        raise UsageError(f"{' and '.join(map(flag, chosen))} exclude each other")
    if given.get("invert_mask") and "mask" not in given:
        raise UsageError("--invert-mask belongs to a --mask; name it")
    if chosen:
        params.update({name: None for name in PATTERNS if name not in chosen})
    if params["fraction"] is None:
        if "operator_seed" in given:
            raise UsageError(f"--operator-seed draws random pixels; {flag(chosen[0])} leaves nothing to draw")
        params["operator_seed"] = None
    return params


def check_told(name: str, options: OperatorOptions) -> None:
    """Raises UsageError if nothing says what a picture that was not degraded here went through (`Task.told`)."""
    for part, given in given_parts(name, options):
        told = task(part).told
        if told and not set(told) & given.given().keys():
            raise UsageError(f"task '{part}': say what was done to the picture with {' or '.join(map(flag, told))}")


def of_found_picture(name: str, options: OperatorOptions) -> OperatorOptions:
    """Returns the options for a picture that was not degraded here.

    Its scene goes on beyond the frame, unless they say not.
    """
    if options.boundary is None and "boundary" in task(name).params:
        return replace(options, boundary=VALID)
    return options


def build(
    name: str,
    params: Params,
    in_shape: Shape3,
    *,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    mask: Tensor | None = None,
    own: str | None = None,
) -> LinearOperator:
    """Returns the operator of a task for images of shape (C, H, W).

    params: as `resolve` gives them; mask: (H, W) of bool, True = kept, where params name a mask file. Raises InputError
    for a size or a number of channels that the operator cannot have, ValueError if the mask is missing.
    """
    check_channels(name, in_shape[0])
    op: LinearOperator | None = None
    shape = in_shape
    chain = parts(name, params)
    for place, (part, values) in enumerate(chain):
        with _named(part, name):
            made = _built(part, values, shape, dtype=dtype, device=device, mask=mask, own=own)
            shape = _after(made, is_last=place == len(chain) - 1)
        op = made if op is None else op | made
    assert op is not None
    op.task = name
    return op


@contextmanager
def _named(part: str, name: str) -> Iterator[None]:
    """Says what cannot be of a link's operator with its name."""
    try:
        yield
    except InputError as exc:
        if part == name:
            raise
        raise InputError(f"'{part}' in '{name}': {exc}") from exc


def _after(op: LinearOperator, *, is_last: bool) -> Shape3:
    """Returns the shape of what the next link takes. Raises InputError where that is no picture."""
    from dmps_cli.operators.pointwise import Mask

    shape = op.in_shape if isinstance(op, Mask) else op.out_shape
    if len(shape) != 3 and not is_last:
        raise InputError("it gives no picture, so it can only be the last")
    return shape  # type: ignore[return-value] # of the last one nobody asks


def _built(
    name: str,
    params: Params,
    in_shape: Shape3,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
    mask: Tensor | None,
    own: str | None,
) -> LinearOperator:
    """Returns the operator of one task."""
    row = task(name)
    if row.is_own and own is None:
        raise InputError(f"'{name}' is an operator of one's own; name it with {flag(name)}")
    if isinstance(params.get("mask"), Mapping):
        mask = decode_mask(params["mask"]["png"])
    if params.get("mask") is not None and mask is None:
        raise ValueError(f"task '{name}' was resolved with the mask {params['mask']}, which was not given")
    if row.needs_colour and in_shape[0] == 1:
        raise InputError("it takes a picture in colour, and gets one of one channel")
    check_kernel(name, params, in_shape[1:])
    scale = params.get("scale", 1)
    if in_shape[1] % scale or in_shape[2] % scale:
        raise InputError(
            f"the picture is {in_shape[2]} x {in_shape[1]} px, not a multiple of the scale {scale}; crop it first"
        )
    blur = kernel_of(name, params)
    op = row.build(Site(in_shape=in_shape, params=params, dtype=dtype, device=device, mask=mask, kernel=blur, own=own))
    op.task = name
    return op


def check_channels(name: str, channels: int) -> None:
    """Raises InputError if pictures of so many channels cannot be restored from that task."""
    if task(name).needs_colour and channels == 1:
        raise InputError(f"task '{name}' restores colour, and the prior is of grey pictures; choose one of colour")


def kernel_of(name: str, params: Params) -> Kernel | None:
    """Returns what a blur convolves with; None for other tasks. Raises InputError for numbers that make no kernel."""
    value = task(name).kernel
    return None if value is None else kernels.build(value(params), as_is=params.get("kernel_as_is", False))


def check_kernel(name: str, params: Params, size: tuple[int, int]) -> None:
    """Raises InputError if a picture of (h, w) is smaller than the kernel that was given for it."""
    if "kernel" in params and (kernel := kernel_of(name, params)):
        kernel.check_fits(size)
