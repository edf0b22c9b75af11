"""Options by other names: what a person who types `--radius` or `--steps` is after."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping

_NEAR = 0.8

_WORDS = {
    "--kernel defocus:R": "radius blur-radius defocus disk disc bokeh out-of-focus",
    "--kernel gauss:STD": "gauss gaussian blur blur-sigma kernel-std kernel-sigma psf-sigma",
    "--kernel FILE": "psf kernel-file kernel-path filter",
    "--width N": "kernel-size ksize box-size blur-size",
    "--length N": "motion motion-length distance",
    "--angle DEG": "direction orientation degrees",
    "--sigma STD": "noise noise-level noise-std noise-sigma sigma-y sigma-noise std stddev",
    "--lambda X": "strength guidance guidance-scale guidance-weight likelihood-weight weight lam lamda fidelity",
    "--nfe N": "steps num-steps n-steps timesteps num-timesteps iterations iters num-iter n-iter evaluations nfes",
    "--spacing NAME": "timestep-respacing skip-type timestep-spacing",
    "--sampler NAME": "scheduler schedule ladder levels",
    "--method NAME": "solver algorithm algo algorithm-name",
    "--samplers A,B": "schedulers",
    "--device cuda": "gpu cuda gpus gpu-id accelerator",
    "--device cpu": "cpu no-gpu no-cuda",
    "--dtype float16": "fp16 half precision amp bf16 mixed-precision",
    "--batch-size N": "batch bs batchsize",
    "--tile PX": "tile-size patch patch-size window chunk",
    "--model NAME|PATH": "checkpoint ckpt prior network net pretrained model-path weights-path",
    "-o PATH": "out outdir out-dir output-dir output-folder output-path save save-dir save-path dest destination",
    "--out FOLDER": "output outdir out-dir output-dir output-folder save save-dir results result-dir",
    "--task NAME": "degradation deg problem operator restore-task",
    "--tasks A,B": "task degradation problem",
    "--task sr --scale N": "upscale factor scale-factor zoom sr upsample",
    "--task inpaint --mask FILE": "mask-file mask-path inpaint hole missing",
    "--box X,Y,W,H": "region bbox rect rectangle roi",
    "--mask FILE": "mask-file mask-path",
    "--boundary NAME": "padding pad border edge edges boundary-condition pad-mode",
    "--reference PATH": "truth gt ground-truth ref target hr clean original",
    "--dataset NAME|FOLDER": "data images input input-dir data-dir photos folder photographs",
    "--limit N": "num max max-images count n num-images subset",
    "--samples K": "num-samples n-samples draws",
    "--seed N": "random-seed rand-seed rng manual-seed",
    "--image-size N": "size resolution resize img-size height",
    "--overwrite": "force yes replace clobber",
    "--skip-existing": "resume continue skip skip-done",
    "--resume OUT": "continue restart",
    "--recursive": "recurse subfolders subdirs tree",
    "--format NAME": "ext extension type fmt file-format",
    "--bit-depth 8|16": "depth bits bitdepth bit",
    "--metadata keep": "exif icc keep-metadata keep-exif meta profile",
    "--alpha keep|white": "transparency opacity keep-alpha background",
    "--quiet": "silent no-progress",
    "--json": "as-json json-output",
    "--minutes N": "time duration max-time hours epochs",
    "--crop N": "shave border crop-border",
    "--y-channel": "test-y-channel y luma ycbcr",
}
"""What to type -> other names of it, without hyphens in front."""

MEANT: Mapping[str, tuple[str, ...]] = {
    word: tuple(typed for typed, words in _WORDS.items() if word in words.split())
    for word in {word for words in _WORDS.values() for word in words.split()}
}
"""Another name -> what may be meant by it."""


def suggestion(typed: str, command: str, options: Mapping[str, Collection[str]]) -> str | None:
    """Returns what to type in the place of an unknown option, or None where nobody can tell.

    typed: as it was typed, --radius; options: those of every command by its name.
    """
    own, word = options[command], typed.lstrip("-").lower().replace("_", "-")
    if f"--{word}" in own:
        return f"for it there is --{word}"
    if meant := [text for text in MEANT.get(word, ()) if text.split()[0] in own]:
        return f"for it there is {' or '.join(meant)}"
    if having := [name for name, names in options.items() if f"--{word}" in names]:
        return f"it belongs to dmps {', '.join(having)}"
    names = [name.lstrip("-") for name in own]
    if word in MEANT or difflib.get_close_matches(word, names, cutoff=_NEAR):  # a slip, which Typer's guesses name
        return None
    near = difflib.get_close_matches(word, MEANT, n=1, cutoff=_NEAR)
    return suggestion(f"--{near[0]}", command, options) if near else None
