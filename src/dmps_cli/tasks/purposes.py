"""What is wrong with a picture, in the words that people have for it, and what to type: for those who know no task."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace

MAX_SCALE = 64


@dataclass(frozen=True, kw_only=True)
class Purpose:
    """A row of PURPOSES.

    fault: what a person sees; arguments: the options that undo it; note: what the numbers in them are; words: other
    names for it, as people type them for a task, without hyphens, spaces between.
    """

    fault: str
    arguments: str
    note: str = ""
    words: str = ""

    @property
    def task(self) -> str:
        """The task that the arguments name."""
        return self.arguments.split()[1]


NOISE = Purpose(
    fault="noise, grain",
    arguments="--task denoise",
    words=(
        "noise noisy denoising denoised denoiser removenoise noiseremoval noisereduction grain degrain "
        "despeckle gaussiannoise dn nr cleanup"
    ),
)

SMALL = Purpose(
    fault="too few pixels",
    arguments="--task sr4",
    note="sr2, sr8, sr --scale N",
    words=(
        "upscale upscaling upscaler upsample upsampling enlarge enlargement superresolution superres "
        "resolution highresolution hires lowres resize zoom magnify bigger bicubic sisr pixelated "
        "unpixelate x times"
    ),
)

SOFT = Purpose(
    fault="soft all over",
    arguments="--task blur --kernel gauss:2",
    note="standard deviation of the blur, px",
    words="gaussian gauss gaussianblur gaussiandeblur gaussdeblur soft softness",
)

DEFOCUS = Purpose(
    fault="out of focus",
    arguments="--task blur --kernel defocus:4.5",
    note="radius of a blurred point, px",
    words="defocus outoffocus refocus focus defocusblur lensblur lens bokeh disc disk uniform box boxblur",
)

MOVED = Purpose(
    fault="camera or subject moved",
    arguments="--task blur --kernel motion:15,30",
    note="length px, degrees counter-clockwise from horizontal",
    words="motionblur motiondeblur motiondeblurring deblurmotion shake camerashake handshake moved movement",
)

DAMAGED = Purpose(
    fault="scratches, stains, holes",
    arguments="--task inpaint --mask mask.png",
    note="black where the picture is damaged, white where it is kept",
    words=(
        "inpainting fill filling fillin holes hole missing missingpixels scratch scratches stains dust "
        "heal repair retouch mask complete completion removeobject objectremoval erase watermark "
        "descratch"
    ),
)

TRANSPARENT = Purpose(fault="transparent where it is damaged", arguments="--task inpaint --mask alpha")

GREY = Purpose(
    fault="black and white",
    arguments="--task colorize",
    words=(
        "colourize colorise colourise colorization colourization colorisation colourisation colorizing "
        "color colour recolor recolour addcolor blackandwhite bw grey gray"
    ),
)

BLOCKS = Purpose(
    fault="blocks, rings around edges (a JPEG file)",
    arguments="--task jpeg",
    note="no noise and no kernel to choose",
    words="jpg jfif dejpeg blocks blocky blocking blockiness deblock deblocking artifacts artefacts ringing decompress",
)

COMPRESSED = Purpose(
    fault="Walsh-Hadamard coefficients, as a .npy file",
    arguments="--task cs",
    words="compressedsensing compressivesensing hadamard walshhadamard singlepixel",
)

OF_A_PICTURE = (NOISE, SMALL, DEFOCUS, MOVED, SOFT, BLOCKS, DAMAGED, GREY)
PURPOSES = (*OF_A_PICTURE, COMPRESSED)

OF_ANY_BLUR = (
    "unblur blurs blurry blurred deblurring blurremoval removeblur deconvolve deconvolution "
    "sharpen sharpening sharper sharp unsharp unsharpmask"
)

_WORDS: dict[str, tuple[Purpose, ...]] = {
    **{word: (purpose,) for purpose in PURPOSES for word in purpose.words.split()},
    **dict.fromkeys(OF_ANY_BLUR.split(), (DEFOCUS, MOVED, SOFT)),
    **dict.fromkeys(("compressed", "compression"), (BLOCKS, COMPRESSED)),
}

_NEAR = 0.8  # of difflib: 'denoize' is near, 'denmark' is not


def near(name: str, choices: Iterable[str]) -> str | None:
    """Returns the choice that a name is a slip of the finger from; None if there is none."""
    return next(iter(difflib.get_close_matches(name.lower(), choices, n=1, cutoff=_NEAR)), None)


def meant_by(name: str, tasks: Collection[str]) -> tuple[Purpose, ...]:
    """Returns what a name that is no task's may stand for, one slip of the finger allowed; empty if nobody can tell.

    An enlargement may have its factor: `x3`, `upscale-2x`, `sr16`. tasks: the names that there are.
    """
    letters, number = re.sub(r"[^a-z]", "", name.lower()), re.search(r"\d+", name)
    if number and letters in ("sr", "srx"):
        return (enlarged(int(number[0]), tasks),)
    if task := near(name, tasks):
        return tuple(each for each in PURPOSES if each.task == task) or (Purpose(fault="", arguments=f"--task {task}"),)
    purposes = _WORDS.get(letters) or _WORDS.get(near(letters, _WORDS) or "", ())
    return (enlarged(int(number[0]), tasks),) if number and purposes == (SMALL,) else purposes


def enlarged(scale: int, tasks: Collection[str]) -> Purpose:
    """Returns SMALL, by that factor."""
    if not 2 <= scale <= MAX_SCALE:
        return SMALL
    arguments = f"--task sr{scale}" if f"sr{scale}" in tasks else f"--task sr --scale {scale}"
    return replace(SMALL, arguments=arguments, note="")
