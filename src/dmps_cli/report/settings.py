"""What a row was computed with: the columns worth a place in a table, the rest as sentences, a name for each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dmps_cli.metrics.protocol import OF_SAMPLES
from dmps_cli.metrics.table import METRICS
from dmps_cli.report.tables import CI, SOURCE, STD, TableRow, Value, cell_text, column_names, grouped
from dmps_cli.tasks.chain import slug

_KEY = ("task", "sigma_y", "method", "sampler", "nfe")
_NO_SETTING = {*_KEY, SOURCE, "image", "sample", "n", "seed", "model_sha256", "seconds", *METRICS, *OF_SAMPLES}


def setting_names(rows: Sequence[TableRow]) -> list[str]:
    """Returns the columns that say how: spacing of the levels, knobs. Not task, noise, method, sampler, evaluations."""
    names = column_names(rows)
    plain = [name.removesuffix(STD).removesuffix(CI) for name in names]
    return [name for name, bare in zip(names, plain, strict=True) if bare not in _NO_SETTING]


def varies_within(rows: Sequence[TableRow], name: str, by: Sequence[str] = _KEY) -> bool:
    """Returns whether a column differs between rows that agree in the columns `by`."""
    return any(len({row.get(name) for row in same}) > 1 for _, same in grouped(rows, by))


def compact(rows: Sequence[TableRow]) -> list[dict[str, Value]]:
    """Returns the rows without the settings that follow from task, method, sampler and evaluations.

    See `setting_notes`.

    Sampler, noise level and source are left out where all rows agree in them.
    """
    ours = [row for row in rows if not row.get(SOURCE)]
    hidden = {name for name in setting_names(ours) if not varies_within(ours, name)}
    hidden |= {name for name in ("sampler", "sigma_y", SOURCE) if len({row.get(name) for row in rows}) == 1}
    return [{name: value for name, value in row.items() if name not in hidden} for row in rows]


def setting_notes(rows: Sequence[TableRow]) -> list[str]:
    """Returns a sentence per method and sampler on what `compact` left out.

    'dmps, ddpm levels: lambda 1.75 (deblur: 1)'.
    """
    ours = [row for row in rows if not row.get(SOURCE)]
    notes = []
    for key, members in grouped(ours, ["method", "sampler"]):
        parts = []
        for name in setting_names(members):
            if varies_within(ours, name) or all(row.get(name) is None for row in members):
                continue
            parts.append(f"{name} {_by_case(members, name)}")
        if parts:
            notes.append(f"{key['method']}, {key['sampler']} levels: {'; '.join(parts)}")
    return notes


def _by_case(rows: Sequence[TableRow], name: str) -> str:
    """Returns the value, or each with the tasks and evaluations that it belongs to, the most frequent without."""
    by_value = grouped(rows, [name])
    by_value.sort(key=lambda group: -len(group[1]))
    texts = []
    for place, (key, members) in enumerate(by_value):
        text = "none" if key[name] is None else cell_text(name, key[name])
        texts.append(text if place == 0 else f"{text} ({_cases(rows, members)})")
    return ", ".join(texts)


def _cases(rows: Sequence[TableRow], members: Sequence[TableRow]) -> str:
    """Returns the tasks of the members, or where these do not tell them apart, each task with its evaluations."""
    tasks = [*dict.fromkeys(str(row.get("task")) for row in members)]
    others = {str(row.get("task")) for row in rows if row not in members}
    if not others & set(tasks):
        return ", ".join(tasks)
    return ", ".join(f"{row.get('task')} at {row.get('nfe')}" for row in members)


def problem_name(rows: Sequence[TableRow]) -> Callable[[TableRow], str]:
    """Returns row -> its task, with the noise level if the task has several among the rows."""
    levels: dict[str, set[Value]] = {}
    for row in rows:
        levels.setdefault(str(row.get("task")), set()).add(row.get("sigma_y"))

    def name(row: TableRow) -> str:
        task = str(row.get("task"))
        return task if len(levels[task]) == 1 else f"{task}, sigma_y {cell_text('sigma_y', row.get('sigma_y'))}"

    return name


def file_stem(problem: str) -> str:
    """Returns a name of `problem_name` as files have it: 'sr4_0.05'."""
    task, _, noise = problem.partition(", sigma_y ")
    return "_".join(filter(None, (slug(task), noise)))


def method_name(rows: Sequence[TableRow]) -> Callable[[TableRow], str]:
    """Returns row -> its method, with whatever tells it from the method's other rows of the same problem.

    'dmps, NFE 20'.
    """
    settings = setting_names(rows)
    varying = {
        key["method"]: [
            name for name in ("sampler", "nfe", *settings) if varies_within(same, name, ("task", "sigma_y", "image"))
        ]
        for key, same in grouped(rows, ["method"])
    }

    def name(row: TableRow) -> str:
        return label({"method": row.get("method"), **{n: row.get(n) for n in varying[row.get("method")]}})

    return name


def label(values: Mapping[str, Value]) -> str:
    """Returns 'dmps, flow, NFE 20, lambda 1.75': method and sampler by their names alone, None left out."""
    names = {"nfe": "NFE"}
    return ", ".join(
        cell_text(name, value) if name in ("method", "sampler") else f"{names.get(name, name)} {cell_text(name, value)}"
        for name, value in values.items()
        if value is not None
    )
