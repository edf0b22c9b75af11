"""How often a fit is called unusual, of right and of wrong input; and what a raised sigma saves of a wrong kernel.

    python benchmarks/fit_rates.py PHOTOS BUNDLED MORE --form "dmps x_t ddpm" --nfe 30

Folders of photographs on which no range was recorded; all of the first ones are taken, and of the last what is missing
of 40, spread over it. Prints for each input how many of them were remarked, why, and the gain over the
picture as it was, dB; then the same of blurs whose estimated sigma is searched.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import torch
from fit_ranges import SIZE, Case, blur, middle, sampling_of
from torch import Tensor

from dmps_cli.files.images import load_rgb
from dmps_cli.files.inputs import pictures_in
from dmps_cli.jobs.fit import OVER, fits_of, judged, usual
from dmps_cli.jobs.noise_estimate import estimate_sigma
from dmps_cli.jobs.raised_sigma import Raised, fitting_sigma, own_excess
from dmps_cli.operators.base import LinearOperator
from dmps_cli.operators.measurement import Measurement
from dmps_cli.operators.pointwise import Mask
from dmps_cli.pipeline import FILE_KEY, restore
from dmps_cli.priors import Prior
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.units import GREY_LEVELS
from dmps_cli.weights.loading import load_prior

NUMBER = 40
MODEL = "natural"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What is said of input that a case made. levels: the noise claimed; used: the model claimed, by its case."""

    label: str
    made: Case
    used: Case


def claims(label: str, made: Case, **said: Case) -> list[Claim]:
    """Right, the noise halved and doubled, and what else is said of it."""
    half, double = (replace(made, levels=factor * made.levels) for factor in (0.5, 2.0))
    all_said = {"right": made, "sigma halved": half, "sigma doubled": double, **said}
    return [Claim(label=f"{label}, {what}", made=made, used=used) for what, used in all_said.items()]


CLAIMS = [
    *claims("denoise 12", Case(task="denoise", options=OperatorOptions(), levels=12.0)),
    *claims("inpaint, half, 6", Case(task="inpaint", options=OperatorOptions(fraction=0.5), levels=6.0)),
    *claims(
        "blur uniform:9, 2",
        blur("uniform:9", 2.0),
        **{
            "periodic": replace(
                blur("uniform:9", 2.0), options=OperatorOptions(kernel="uniform:9", boundary="circular")
            ),
            "uniform:7": blur("uniform:7", 2.0),
        },
    ),
    *claims("blur gauss:2.5, 2", blur("gauss:2.5", 2.0), **{"gauss:3": blur("gauss:3", 2.0)})[0::3],
    *claims("blur defocus:4.3, 2", blur("defocus:4.3", 2.0), **{"uniform:9": blur("uniform:9", 2.0)})[0::3],
    *claims("blur motion:15,30, 2", blur("motion:15,30", 2.0), **{"20 degrees off": blur("motion:15,50", 2.0)})[0::3],
]

SEARCHED = [claim for claim in CLAIMS if claim.made.task == "blur" and "sigma" not in claim.label]


def psnr(x: Tensor, truth: Tensor) -> float:
    """dB, clipped."""
    return float(-10 * torch.log10(((x.clamp(-1, 1) - truth) ** 2).mean() / 4))


def with_scratches(y: Tensor, op: LinearOperator) -> Tensor:
    """A measurement through a mask, three rows of it black: damage that the mask keeps."""
    picture = op.to_image(y).clone()
    picture[..., 20:23, :] = -1.0
    return op.from_image(picture)


def outcomes(
    claim: Claim, photographs: Sequence[Path], prior: Prior, form: str, nfe: int, *, is_searched: bool, damage: bool
) -> Iterator[tuple[str, float]]:
    """(what was unusual, the gain in dB) of each photograph."""
    made, used = claim.made.operator(), claim.used.operator()
    going_on = (
        replace(claim.used, options=replace(claim.used.options, boundary="valid")).operator() if is_searched else used
    )
    for photograph in photographs:
        pair = claim.made.measured(photograph, made)
        assert pair is not None
        y, truth = pair
        before = psnr(made.to_image(y), truth)
        if damage and isinstance(made, Mask):
            y = with_scratches(y, made)
        sigma_y, search, op = claim.used.levels / GREY_LEVELS, "", used
        if is_searched:
            estimate = estimate_sigma(y[0]).sigma_y
            beyond = None if used.frame is not None else (y, going_on)
            found = fitting_sigma((y, used), beyond, prior, estimate, claim.used.task, MODEL, seed=0)
            sigma_y, op = found.sigma_y, going_on if found.is_beyond else used
            search = searched(found)
        sampling = sampling_of(form, claim.used.task, nfe)
        x = restore(Measurement(y, op, sigma_y), prior, sampling, seed=0, keys=[FILE_KEY])
        (fit,) = fits_of(y, op, x, sigma_y, is_clipped=prior.clips_x0)
        is_asked = claim.used.task == "blur" and (fit.excess or 0.0) > OVER
        own = own_excess((y, op), prior, claim.used.task, seed=0) if is_asked else None
        verdict = judged(fit, usual(sampling, claim.used.task, MODEL), sigma_y, own=own)
        names = {
            "chi2 high": verdict.noise_is_more,
            "chi2 low": verdict.noise_is_less,
            "excess": verdict.leaves_the_scale,
        }
        text = search or " and ".join(name for name, holds in names.items() if holds)
        yield text, psnr(op.picture(x), truth) - before


def searched(found: Raised) -> str:
    """What a search says; nothing where it changed nothing."""
    noise = "no sigma" if not found.fits else "raised" if found.sigma_y > found.before else ""
    return " and ".join(part for part in (noise, "valid" if found.is_beyond else "") if part)


def report(label: str, found: Sequence[tuple[str, float]]) -> None:
    """One line: how many were remarked, for what, and the gains."""
    gains = sorted(gain for _, gain in found)
    reasons = {text: sum(other == text for other, _ in found) for text in sorted({text for text, _ in found if text})}
    remarked = sum(reasons.values())
    worse = sum(gain < -0.2 for gain in gains)
    unsaid = sum(gain < -0.2 for text, gain in found if not text)
    print(
        f"{label}: {remarked} of {len(found)} {reasons or ''}; gain least {gains[0]:+.2f}, median "
        f"{gains[len(gains) // 2]:+.2f} dB; below -0.2 dB {worse}, of these unsaid {unsaid}",
        flush=True,
    )


def main() -> None:
    """Prints the rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, nargs="+")
    parser.add_argument("--form", default="dmps x_t ddpm")
    parser.add_argument("--nfe", type=int, default=30)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--only", default="", help="part of a label")
    parser.add_argument("--part", choices=("both", "fit", "search"), default="both")
    arguments = parser.parse_args()
    photographs = chosen(arguments.photographs)
    prior = load_prior(MODEL, torch.device("cpu"), arguments.dtype).prior
    parts = {"fit": (CLAIMS, False), "search": (SEARCHED, True)}
    for part, (listed, is_searched) in parts.items():
        for claim in listed if arguments.part in ("both", part) else []:
            if arguments.only in claim.label:
                found = outcomes(
                    claim, photographs, prior, arguments.form, arguments.nfe, is_searched=is_searched, damage=False
                )
                report(f"{'search, ' if is_searched else ''}{claim.label}", [*found])
    if arguments.part != "search" and arguments.only in "inpaint, scratches kept":
        right = next(claim for claim in CLAIMS if claim.made.task == "inpaint")
        found = outcomes(right, photographs, prior, arguments.form, arguments.nfe, is_searched=False, damage=True)
        report("inpaint, scratches kept", [*found])


def chosen(folders: Sequence[Path]) -> list[Path]:
    """NUMBER photographs of enough pixels: all of the first folders, of the last what is missing, spread over it."""
    *first, last = (pictures_in(folder) for folder in folders)
    all_of = [path for paths in first for path in paths if is_large(path)]
    missing = NUMBER - len(all_of)
    spread = (path for path in last[:: max(1, len(last) // (2 * missing))] if is_large(path))
    return [*all_of, *islice(spread, missing)]


def is_large(photograph: Path) -> bool:
    """Whether the middle and a kernel around it can be cut out."""
    return middle(load_rgb(photograph).pixels, (SIZE + 32, SIZE + 32)) is not None


if __name__ == "__main__":
    main()
