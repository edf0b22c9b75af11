"""Readers of names, options, environment variables and answers of hosts."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz.mutations import (
    LONG,
    NUMBERS,
    TEXTS,
    toml_of,
)
from tests.fuzz.sound import DEGRADE, FAST, GOOD, build_large_pictures, build_pictures
from tests.fuzz.tables import DATA, TABLE
from tests.fuzz.trials import Command, Reader, Trial

# --- Names


def spoil_names(trial: Trial, rng: Random) -> None:
    stem = rng.choice(
        (*TEXTS, "=cmd", "-rf", "--help", "*", "[a]", "a b", "\x1b]0;t\x07", "\udcff\udcfe", "good_restored")
    )[:200]
    name = (stem.replace("/", "_").replace("\0", "") or "x") + rng.choice((".png", ".PNG", ".jpg", ""))
    try:
        Path("in/bad.png").rename(Path("in") / os.fsdecode(os.fsencode(name)))
    except (OSError, UnicodeEncodeError):
        return
    named = str(Path("in") / name)
    trial.arguments = [named if argument == "in/bad.png" else argument for argument in trial.arguments]


NAMES = Reader(
    name="name",
    build=build_pictures,
    commands=(
        Command(f"degrade in/bad.png {GOOD} {DEGRADE} -o out/"),
        Command(f"degrade in {DEGRADE} -o out/"),
        Command(f"restore in --task denoise {FAST} --reference in -o out/"),
        Command(f"eval --dataset in --tasks denoise {FAST} --out out/run", keeps=("out/run/restored",)),
    ),
    spoil=spoil_names,
)


# --- Options and environment

BARE = (
    f"degrade {GOOD} -o out/y.png --task sr4",
    f"degrade {GOOD} -o out/y.png --task denoise",
    f"degrade {GOOD} -o out/y.png --task inpaint --fraction 0.5",
    f"restore {GOOD} -o out/x.png --task denoise {FAST}",
    f"restore {GOOD} -o out/x.png --task deblur {FAST}",
    f"eval --dataset in --tasks sr2,denoise {FAST} --out out/run",
    "time --image-size 32 --nfe 1 --repeats 1",
    "models list",
    "models show natural",
    "models path natural",
    "models verify natural",
    "models fetch natural",
    "train in -o out/t.safetensors --steps 2 --size small --batch 1 --crop 32",
    "tasks",
    "doctor",
    "demo -o out/demo --nfe 1",
)
SMALL_TEXTS = tuple(text for text in TEXTS if "\0" not in text and len(text) < 100_000)


def _options(command: str) -> list[Any]:
    """The options of a command, as Typer has them."""
    import typer

    from dmps_cli.cli.main import app

    group: Any = typer.main.get_command(app)
    words = command.split()
    found = group.commands[words[0]]
    found = found.commands[words[1]] if hasattr(found, "commands") else found
    return [
        option
        for option in found.params
        if option.param_type_name == "option" and option.name not in ("help", "minutes", "steps")
    ]


def spoil_options(trial: Trial, rng: Random) -> None:
    options = _options(" ".join(trial.arguments))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if not options:
            break
        option = rng.choice(options)
        value = rng.choice(
            (
                *SMALL_TEXTS,
                *(str(n) if n != LONG else "9" * 5000 for n in NUMBERS if (n != LONG and abs(n) < 10**31) or n == LONG),
            )
        )
        value = (
            value.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")
            if "\ud800" not in value
            else "x"
        )
        is_flag = getattr(option, "is_flag", False)
        trial.may_write_anywhere |= option.name in ("output", "out")
        trial.arguments += [option.opts[0]] if is_flag else [option.opts[0], value]
    if rng.random() < 0.1:
        trial.arguments.insert(rng.randrange(len(trial.arguments) + 1), rng.choice(SMALL_TEXTS).replace("\ud800", ""))


OPTIONS = Reader(
    name="option",
    build=build_large_pictures,
    commands=tuple(Command(line) for line in BARE if not line.startswith(("doctor", "demo"))),
    spoil=spoil_options,
    weight=3.0,
)

VARIABLES = (
    *("DMPS_CACHE", "DMPS_WEIGHTS", "DMPS_DATASETS", "DMPS_MAX_PIXELS", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_TOKEN"),
    *("HF_HOME", "HOME", "XDG_CACHE_HOME", "TMPDIR", "TORCH_HOME", "COLUMNS", "LINES", "TERM", "NO_COLOR", "LANG"),
    *("FORCE_COLOR", "http_proxy", "https_proxy", "all_proxy", "no_proxy", "RANK", "WORLD_SIZE", "LOCAL_RANK"),
    *("TORCHELASTIC_RESTART_COUNT", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "GOMP_SPINCOUNT"),
)


def spoil_environment(trial: Trial, rng: Random) -> None:
    for _ in range(rng.choice((1, 1, 2))):
        value = rng.choice(
            (*SMALL_TEXTS, "1", "2", "out/new", "/proc/self/nothing", "in/good.png", "http://127.0.0.1:9")
        ).replace("\ud800", "")
        trial.environment[rng.choice(VARIABLES)] = value
    if "WORLD_SIZE" not in trial.environment and rng.random() < 0.2:
        trial.environment["TORCHELASTIC_RUN_ID"] = "x"


ENVIRONMENTS = Reader(
    name="environment",
    build=build_pictures,
    commands=(
        Command(f"degrade {GOOD} -o out/y.png --task sr4"),
        Command(f"restore {GOOD} -o out/x.png --task denoise {FAST} --model natural"),
        Command(f"eval --dataset in --tasks sr2 {FAST} --out out/run"),
        Command("models list"),
        Command("models path natural"),
        Command("models show natural"),
    ),
    spoil=spoil_environment,
)


# --- Hosts


def build_host() -> None:
    build_pictures()
    Path("w.toml").write_bytes(toml_of({"x": {**TABLE["x"], "path": "in/good.png"}}))
    Path("d.toml").write_bytes(toml_of(DATA))


def spoil_host(trial: Trial, rng: Random) -> None:
    seed, host = rng.randrange(10**9), f"http://127.0.0.1:{os.environ['FUZZ_PORT']}"
    name = rng.choice(("x.pt", "x\u00e9.pt", "..", "x%2f..%2fy.pt", "x?a=/../y"))
    sources = [{"url": f"{host}/{seed}/{name}"}, {"repo": f"a/b{seed}", "file": "y.pt"}]
    rng.shuffle(sources)
    table = {key: value for key, value in TABLE["x"].items() if key != "path"}
    folder = {
        "about": "c",
        "architecture": "diffusers",
        "sources": [{"repo": f"a/b{seed}"}],
        "files": ["config.json", "x.safetensors"],
    }
    Path("w.toml").write_bytes(toml_of({"x": {**table, "sources": sources[: rng.choice((1, 2))]}, "folder": folder}))
    Path("d.toml").write_bytes(toml_of({"small": {**DATA["small"], "repo": f"owner/small{seed}"}}))
    trial.environment |= {"HF_ENDPOINT": host, "HF_HUB_OFFLINE": "0", "DMPS_DATASETS": "d.toml"}
    line = rng.choice(
        (
            "models fetch x --weights-file w.toml",
            "models fetch x --weights-file w.toml",
            "models fetch folder --weights-file w.toml",
            f"eval --dataset small --tasks denoise --limit 1 {FAST} --out out/run",
        )
    )
    trial.arguments = line.split()


HOSTS = Reader(
    name="host",
    build=build_host,
    commands=(Command("models list --weights-file w.toml"),),
    spoil=spoil_host,
    weight=2.0,
)
