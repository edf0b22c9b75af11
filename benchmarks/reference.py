"""Writes docs/reference/*.md from the tables of the program: commands, tasks, operators, methods, priors, formats.

python benchmarks/reference.py            # writes
python benchmarks/reference.py --check    # fails where a page is not what the program says
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from typer.main import get_command

from dmps_cli import errors
from dmps_cli.checks import flag
from dmps_cli.cli import guard
from dmps_cli.cli.main import app
from dmps_cli.files import suffixes
from dmps_cli.methods.defaults import DEFAULTS, FAVOURS, PRESETS, TASK_DEFAULTS
from dmps_cli.methods.knobs import KNOBS
from dmps_cli.methods.table import METHODS, takers
from dmps_cli.metrics.table import METRICS
from dmps_cli.tasks.purposes import PURPOSES
from dmps_cli.tasks.rows import OF_FILES, OWN, TASKS
from dmps_cli.units import GREY_LEVELS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "dmps_cli"
FOLDER = ROOT / "docs" / "reference"
NOTE = "<!-- Written by benchmarks/reference.py from the program: change that, and run it again. -->"

VARIABLES = {
    "DMPS_CACHE": "folder of downloads, data sets and hashes; without it `XDG_CACHE_HOME/dmps`, else `~/.cache/dmps`",
    "XDG_CACHE_HOME": "where caches lie, if `DMPS_CACHE` names none",
    "DMPS_WEIGHTS": "a table of checkpoints of your own, added to the built-in one (`--weights-file` goes before it)",
    "DMPS_DATASETS": "a table of data sets of your own, added to the built-in one",
    "DMPS_MAX_PIXELS": "the most pixels that are read of one picture; 268435456 unless set",
    "HF_ENDPOINT": "address of a mirror of the Hugging Face Hub",
    "HF_TOKEN": "your token on the Hub, for what is not public",
    "HF_HUB_OFFLINE": "1: download nothing, as `--offline`",
    "GOMP_SPINCOUNT": "how long OpenMP's threads spin; set to 2000 unless you set it (docs/speed.md)",
    "TORCHELASTIC_RUN_ID": "set by `torchrun`: processes share the work",
    "TORCHELASTIC_RESTART_COUNT": "set by `torchrun`: how often it has started killed processes again",
    "COLUMNS": "width of tables and help, where it is a number",
    "NO_COLOR": "any value: no colour on the terminal",
}
"""A variable that the program reads and that is not here makes `--check` fail."""

READ_BY_LIBRARIES = {"HF_TOKEN", "NO_COLOR", "COLUMNS"}
_READ = re.compile(r"\b(?:DMPS|HF|XDG|GOMP|TORCHELASTIC)_[A-Z_]+[A-Z]\b")
NO_VARIABLES = {"DMPS_TEST_DEVICE"}

Row = Sequence[object]


def table(heads: Row, rows: Iterable[Row]) -> str:
    """Returns a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).replace("|", r"\|").split())


def code(text: object) -> str:
    """Returns it as code; nothing for nothing."""
    return f"`{text}`" if str(text) else ""


def value(default: Any) -> str:
    """Returns a value as it would be typed; empty for none."""
    if isinstance(default, (list, tuple)):
        return ",".join(value(each) for each in default)
    if isinstance(default, float):
        return f"{default:.4g}"
    return "" if default is None or default is False else str(default)


# --- Commands
def commands() -> Iterator[tuple[str, Any]]:
    """Yields every command with its words, groups of commands left out."""

    def of(group: Any, words: list[str]) -> Iterator[tuple[str, Any]]:
        for name, command in group.commands.items():
            if getattr(command, "commands", None):
                yield from of(command, [*words, name])
            else:
                yield " ".join([*words, name]), command

    yield from of(get_command(app), ["dmps"])


def _option(parameter: Any) -> Row:
    names = ", ".join(code(name) for name in (*parameter.opts, *parameter.secondary_opts))
    default = parameter.default if parameter.show_default and not callable(parameter.default) else None
    return names, code(parameter.metavar or ""), parameter.help or "", code(value(default))


def command_page() -> str:
    """Returns every option of every command."""
    parts = [
        "# Commands",
        "`dmps COMMAND --help` prints the same. Defaults that depend on method or task are in the words.",
    ]
    for name, command in commands():
        *text, example = inspect.cleandoc(command.help).split("\n\n")
        parts += [f"## {name}", *text, f"```sh\n{example.removeprefix('Example: ')}\n```"]
        panels: dict[str, list[Row]] = {}
        for parameter in command.params:
            if parameter.opts[0].startswith("-"):
                panels.setdefault(getattr(parameter, "rich_help_panel", None) or "Options", []).append(
                    _option(parameter)
                )
            else:
                panels.setdefault("Arguments", []).append(
                    (code(parameter.metavar or parameter.name), "", parameter.help or "", "")
                )
        for panel, rows in panels.items():
            parts += [f"**{panel}**", table(["option", "value", "what", "default"], rows)]
    return page(parts)


# --- Tasks, operators
def task_page() -> str:
    """Returns every task, and the words that people have for it."""
    tasks = [
        (
            code(name),
            row.help,
            f"{row.sigma_y:g} = {row.sigma_y * GREY_LEVELS:g} of 255",
            "<br>".join(
                code(f"{flag(key)} {value(default)}".strip())
                for key, default in row.params.items()
                if key not in row.fixed
            ),
        )
        for name, row in TASKS.items()
    ]
    own = [
        *((code(name), row.help, code(flag(name))) for name, row in OWN.items()),
        *((code(name), row.help, code(f"--task {name}")) for name, row in OF_FILES.items()),
    ]
    faults = [(purpose.fault, code(purpose.arguments), purpose.note) for purpose in PURPOSES]
    return page(
        [
            "# Tasks",
            "What can be undone. sigma_y is what `degrade` and `eval` add unless `--sigma` says otherwise. Options are "
            "shown "
            "with their defaults; one without a value does nothing until it is given. Kernels, borders and chains: "
            "[tasks.md](../tasks.md).",
            table(["task", "A", "sigma_y", "options"], tasks),
            "## By a matrix, by code, by the file itself",
            table(["task", "A", "option"], own),
            "[own_operator.md](../own_operator.md), [jpeg.md](../jpeg.md).",
            "## By what is wrong with a picture",
            "`dmps restore photo.png` without a task says which of these fit it.",
            table(["what you see", "options", "numbers in them"], faults),
        ]
    )


def docstrings(folder: Path) -> Iterator[tuple[str, ast.ClassDef]]:
    """Yields the public classes of a folder's modules: module and class, nothing imported."""
    for path in sorted(folder.glob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                yield path.stem, node


def operator_page() -> str:
    """Returns every class of operators with what its docstring says first."""
    found = list(docstrings(PACKAGE / "operators"))
    bases = {node.name: {base.id for base in node.bases if isinstance(base, ast.Name)} for _, node in found}

    def is_operator(name: str) -> bool:
        return name == "LinearOperator" or any(
            map(is_operator, bases.get(name, {"LinearOperator"} if name[0] == "_" else ()))
        )

    rows = [
        (code(node.name), code(f"operators/{module}.py"), (ast.get_docstring(node) or "").split("\n\n")[0])
        for module, node in found
        if is_operator(node.name)
    ]
    return page(
        [
            "# Operators",
            "Classes of A, in `src/dmps_cli/operators/`. Each has `A`, `At`, `solve`, `pinv` and `norm`; all agree "
            "with the dense matrix in float64 (a test). `dmps_cli.operator` builds one by the name of a "
            "[task](tasks.md); [python.md](../python.md) shows one of your own.",
            table(["class", "module", "what"], rows),
        ]
    )


# --- Methods
def _knobs(values: Mapping[str, Any]) -> str:
    shown = {name: each for name, each in values.items() if each is not None}
    return "<br>".join(
        code(f"{KNOBS[name].option if name in KNOBS else flag(name)} {value(each)}") for name, each in shown.items()
    )


def method_page() -> str:
    """Returns methods, their defaults, presets, and every knob with the methods that take it."""
    methods = [
        (
            code(name),
            row.help,
            "yes" if row.back_propagates else "no",
            "yes" if row.needs_modes else "no",
            *(_knobs(DEFAULTS.get((name, sampler), {})) or "does not run" for sampler in ("ddpm", "flow")),
        )
        for name, row in METHODS.items()
    ]
    by_task: dict[tuple[str, str], list[str]] = {}
    for (method, sampler, task), set_there in TASK_DEFAULTS.items():
        by_task.setdefault((f"{code(method)}, {sampler} levels", _knobs(set_there)), []).append(code(task))
    knobs = [
        (code(knob.option), code(knob.metavar), knob.help, ", ".join(code(name) for name in takers(key)))
        for key, knob in KNOBS.items()
    ]
    choices = [
        *((code(f"--preset {name}"), preset.help) for name, preset in PRESETS.items()),
        *((code(f"--favour {name}"), favour.help) for name, favour in FAVOURS.items()),
    ]
    return page(
        [
            "# Methods and knobs",
            "`--method` of `restore`, `--methods` of `eval` and `time`. Where they come from: "
            "[baselines.md](../baselines.md), [mathematics.md](../mathematics.md); why these numbers: "
            "[defaults.md](../defaults.md).",
            table(["method", "what", "back-propagates", "needs an SVD", "on DDPM levels", "on flow levels"], methods),
            "## Where a task has other defaults",
            table(
                ["method", "tasks", "defaults"],
                [(at, ", ".join(tasks), set_there) for (at, set_there), tasks in by_task.items()],
            ),
            "## Knobs",
            table(["option", "value", "what", "methods"], knobs),
            "## Presets",
            table(["option", "what"], choices),
        ]
    )


# --- Priors
def prior_page() -> str:
    """Returns the checkpoints of weights.toml."""
    rows = []
    for name, card in tomllib.loads((ROOT / "weights.toml").read_text(encoding="utf-8")).items():
        bundled = PACKAGE / "data" / card.get("bundled", "")
        size = bundled.stat().st_size if bundled.is_file() else card.get("size", card.get("megabytes", 0) * 10**6)
        side = card.get("image_size")
        rows.append(
            (
                code(name),
                card["about"],
                code(card["architecture"]),
                card.get("sampler", "ddpm"),
                f"{side} x {side}" if side else "any",
                round(size / 1e6) or "",
                card.get("licence", "not stated"),
            )
        )
    return page(
        [
            "# Priors",
            "`--model NAME` takes one of these, downloaded when it is first used; `--model PATH` one of yours. "
            "`dmps models list` says which are here. Files, hashes, tables of your own: "
            "[checkpoints.md](../checkpoints.md).",
            table(["name", "what", "network", "levels", "px", "MB", "licence"], rows),
        ]
    )


# --- Files, codes, variables
def _fields(record: str) -> list[Row]:
    """Returns keys, types and whether a key must be there of a class of that name, anywhere in the package."""
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py")))
    node = next(node for tree in trees for node in tree.body if isinstance(node, ast.ClassDef) and node.name == record)
    return [
        (code(line.target.id), code(ast.unparse(line.annotation)), "no" if line.value else "yes")
        for line in node.body
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name)
    ]


def format_page() -> str:
    """Returns picture formats, and the schema of the files that dmps writes and reads again."""
    writing = suffixes.WRITTEN
    pictures = [
        (name, " ".join(map(code, ends)), ", ".join(label for label, has in _abilities(ends, writing).items() if has))
        for name, ends in suffixes.READ.items()
    ]
    heads = ["key", "type", "must be there"]
    return page(
        [
            "# File formats",
            "What they mean in use: [files.md](../files.md).",
            "## Pictures",
            table(["format", "suffixes", "beside reading"], pictures),
            "## A measurement: y.png, y.npy, y.json",
            "`y.png` is to look at, `y.npy` holds the exact floats (float32, on [-1, 1]), `y.json` says what was done. "
            'Keys of the last, beside `"kind": "dmps measurement"`, `format` and `sigma_y_255`:',
            table(heads, _fields("Sidecar")),
            "`source` has",
            table(heads, _fields("OriginalFile")),
            "## A run: config.json and rows.jsonl",
            "`eval --out` keeps the configuration, and a row for each restoration, one JSON object a line. "
            "Keys of `config.json`:",
            table(heads, _fields("Configuration")),
            "## A table of checkpoints: weights.toml",
            "One table for each, named by its heading ([checkpoints.md](../checkpoints.md) says what each key means):",
            table(heads, _fields("Table")),
            "## A table of data sets: datasets.toml",
            "One table for each ([datasets.md](../datasets.md)):",
            table(heads, _fields("DataTable")),
            "## Metrics in tables",
            table(
                ["column", "unit", "better", "how"],
                [
                    (
                        metric.label,
                        metric.unit,
                        "higher" if metric.higher_is_better else "lower",
                        metric.about.format(lpips_net="alex"),
                    )
                    for metric in METRICS.values()
                ],
            ),
        ]
    )


def _abilities(ends: Sequence[str], writing: Mapping[str, Sequence[str]]) -> dict[str, bool]:
    name = next((name for name, known in writing.items() if known[0] in ends), "")
    return {
        "written": bool(name),
        "16 bits": name in suffixes.DEEP,
        "opacity": name in suffixes.WITH_ALPHA,
        "--quality": name in suffixes.WITH_QUALITY,
    }


def environment_page() -> str:
    """Returns exit codes, with the errors that give them, and environment variables. SystemExit for an unknown one."""
    unknown = variables_read() - VARIABLES.keys() - NO_VARIABLES
    unread = VARIABLES.keys() - variables_read() - READ_BY_LIBRARIES
    if unknown or unread:
        sys.exit(f"benchmarks/reference.py: VARIABLES lacks {sorted(unknown)}, and nothing reads {sorted(unread)}")
    kinds = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.DmpsError)]
    faults = [(code(kind.__name__), kind.exit_code, (kind.__doc__ or "").split(" Exit code")[0]) for kind in kinds]
    codes = [
        (0, "done"),
        (errors.DmpsError.exit_code, "something could not be done; the rest is"),
        (errors.UsageError.exit_code, "the command line is wrong; nothing was done"),
        (guard.INTERRUPTED, "interrupted (Ctrl-C); finished files are kept"),
        (guard.READER_LEFT, "whoever read the output has left, as in `dmps ... \\| head`"),
    ]
    return page(
        [
            "# Exit codes, errors, environment",
            "## Exit codes",
            table(["code", "what"], codes).replace(r"\\|", r"\|"),
            "stdout holds results alone (paths, tables, or one JSON object), stderr everything else.",
            "## Errors in Python",
            "All in `dmps_cli.errors`; each carries one sentence.",
            table(["class", "exit code", "what"], faults),
            "## Environment variables",
            table(["name", "what"], [(code(name), text) for name, text in VARIABLES.items()]),
            "Proxies are taken from `HTTPS_PROXY` and its kin.",
        ]
    )


def variables_read() -> set[str]:
    """Returns the names of environment variables in the package's code."""
    names: set[str] = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _READ.fullmatch(node.value):
                names.add(node.value)
    return names


def page(parts: Iterable[str]) -> str:
    """Returns the page of these paragraphs."""
    return "\n\n".join([NOTE, *parts]) + "\n"


PAGES = {
    "commands.md": command_page,
    "tasks.md": task_page,
    "operators.md": operator_page,
    "methods.md": method_page,
    "priors.md": prior_page,
    "formats.md": format_page,
    "environment.md": environment_page,
}


def main() -> None:
    """Writes the pages, or says which are stale."""
    texts = {FOLDER / name: make() for name, make in PAGES.items()}
    stale = [path for path, text in texts.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    if "--check" in sys.argv[1:]:
        if stale:
            sys.exit(
                f"stale: {', '.join(path.name for path in stale)}; python benchmarks/reference.py writes them anew"
            )
        return
    FOLDER.mkdir(exist_ok=True)
    for path in stale:
        path.write_text(texts[path], encoding="utf-8")


if __name__ == "__main__":
    main()
