"""The paper's own figures, to stand beside ours; never ranked with them: other priors, other images.

Source: Meng & Kabashima, "Diffusion Model Based Posterior Sampling for Noisy Linear Inverse Problems" (ACML 2024):
Tables 1 and 2 for quality, Figure 3 for seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dmps_cli.errors import UsageError
from dmps_cli.methods.choice import as_typed, resolve_sampling
from dmps_cli.methods.knobs import KNOBS
from dmps_cli.methods.table import family
from dmps_cli.report.tables import SOURCE, TableRow, Value, cell_text, grouped
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.table import resolve

PaperScores = tuple[float, float, float]
PAPER = "paper"  # what --compare takes


def is_compared(compare: str | None) -> bool:
    """Returns whether --compare asks for the paper's figures. Raises UsageError for anything else it may say."""
    if compare not in (None, PAPER):
        raise UsageError(f"--compare is '{compare}'; expected {PAPER}")
    return compare is not None


PAPER_LPIPS_NET = "vgg"
OURS = ""  # in the column `source`


@dataclass(frozen=True, kw_only=True)
class PaperTable:
    """One of the paper's tables. scores: method -> task -> (PSNR dB, SSIM, LPIPS of VGG); seconds: per image, V100."""

    label: str
    data: str
    sampler: str
    nfe: int
    num_images: int
    scores: dict[str, dict[str, PaperScores]]
    seconds: dict[str, float]


def _by_task(tasks: Sequence[str], **methods: Sequence[PaperScores]) -> dict[str, dict[str, PaperScores]]:
    return {name.replace("_", "-"): dict(zip(tasks, scores, strict=True)) for name, scores in methods.items()}


PAPER_TABLES = (
    PaperTable(
        label="paper, Table 1",
        data="FFHQ 256 x 256, DDPM prior",
        sampler="ddpm",
        nfe=1000,
        num_images=1000,
        scores=_by_task(
            ("sr4", "deblur", "colorize", "denoise"),
            dmps=[(27.63, 0.8450, 0.2071), (27.26, 0.7644, 0.2222), (21.09, 0.9592, 0.2738), (27.81, 0.8777, 0.2435)],
            dps=[(26.78, 0.8391, 0.2329), (26.50, 0.8151, 0.2248), (11.53, 0.7923, 0.5755), (27.22, 0.8969, 0.2428)],
            pgdm=[(27.60, 0.8345, 0.2077), (26.65, 0.7458, 0.2196), (12.15, 0.8920, 0.3969), (27.60, 0.8682, 0.2425)],
        ),
        seconds={"dmps": 67.02, "dps": 194.42, "pgdm": 182.35},
    ),
    PaperTable(
        label="paper, Table 2",
        data="CelebA-HQ 256 x 256, rectified flow",
        sampler="flow",
        nfe=50,
        num_images=1000,
        scores=_by_task(
            ("sr4", "deblur-gauss", "colorize", "denoise"),
            dmps=[(28.29, 0.8011, 0.2329), (26.21, 0.7235, 0.2637), (23.31, 0.8861, 0.2901), (29.04, 0.8166, 0.2821)],
            dps=[(28.05, 0.7754, 0.2266), (22.64, 0.5787, 0.3403), (20.92, 0.8061, 0.3335), (27.93, 0.7465, 0.2882)],
            ot_ode=[(27.71, 0.7657, 0.2302), (25.84, 0.7084, 0.2573), (21.67, 0.8696, 0.3094), (22.76, 0.3820, 0.4778)],
        ),
        seconds={"dmps": 4.45, "dps": 8.04, "ot-ode": 6.44},
    ),
)

PAPER_SIGMA = {"denoise": 0.5}  # the other tasks: 0.05, on [-1, 1]
PAPER_SIDE = 256  # px
PAPER_MACHINE = "one V100"
PAPER_TIMED = "sr4"  # the task of Figure 3


def _form(method: str, sampler: str) -> str:
    """Returns the form of a method that the paper has: 'dmps (x_t)'."""
    return resolve_sampling(method=method, sampler=sampler, preset="paper").method


def _sigma(task: str) -> float:
    return PAPER_SIGMA.get(task, 0.05)


def paper_rows(tasks: Sequence[str], samplers: Sequence[str], lpips_net: str) -> list[dict[str, Value]]:
    """Returns the paper's rows for these tasks and samplers; LPIPS only beside LPIPS of the same network."""
    has_lpips = lpips_net == PAPER_LPIPS_NET
    return [
        {
            SOURCE: table.label,
            "task": task,
            "method": _form(method, table.sampler),
            "sampler": table.sampler,
            "nfe": table.nfe,
            "sigma_y": _sigma(task),
            "n": table.num_images,
            "psnr": psnr,
            "ssim": ssim,
            "lpips": lpips if has_lpips else None,
        }
        for task in tasks
        for table in PAPER_TABLES
        if table.sampler in samplers
        for method, scores in table.scores.items()
        if task in scores
        for psnr, ssim, lpips in [scores[task]]
    ]


def beside_paper(rows: Sequence[TableRow], lpips_net: str) -> list[dict[str, Value]]:
    """Returns the rows (of `summaries`, by task, ...), each task followed by the paper's rows for its samplers.

    A column `source` comes first: empty for ours. Columns are those of `rows`; what the paper does not give is None.
    """
    columns = dict.fromkeys(name for row in rows for name in row)
    done: list[dict[str, Value]] = []
    for task in dict.fromkeys(str(row.get("task")) for row in rows):
        ours = [row for row in rows if str(row.get("task")) == task]
        theirs = paper_rows([task], [str(row.get("sampler")) for row in ours], lpips_net)
        done += [{SOURCE: OURS, **row} for row in ours]
        done += [{SOURCE: row[SOURCE], **{name: row.get(name) for name in columns}} for row in theirs]
    return done


def paper_notes(
    rows: Sequence[TableRow],
    lpips_net: str,
    channels: int = 3,
    *,
    operators: Mapping[str, Mapping[str, Any]] | None = None,
    side: int | None = None,
) -> list[str]:
    """Returns footnotes to the rows of `beside_paper`: what the paper has not, and where ours were made otherwise.

    operators: the parameters of each task, where they may not be its defaults; side: of our pictures in px, if they
    have one. Rows without a column `source` have no footnotes.
    """
    ours = [row for row in rows if row.get(SOURCE) == OURS]
    theirs = [row for row in rows if row.get(SOURCE)]
    used = [table for table in PAPER_TABLES if any(row[SOURCE] == table.label for row in theirs)]
    notes = [f"the paper has no rows for {', '.join(absent)}"] if (absent := _absent(ours)) else []
    if not used:
        return notes
    notes.append(
        "; ".join(f"{table.label}: {table.data}, NFE {table.nfe}, {table.num_images} images" for table in used)
        + "; sigma_y 0.05 (denoise: 0.5); rows of the paper are not ranked: other images, other priors"
    )
    notes += [*_condition_notes(ours, operators or {}, side), *_setting_notes(ours)]
    if channels == 1:
        notes.append("the paper's figures are of RGB pictures, the others of greyscale")
    if lpips_net != PAPER_LPIPS_NET:
        notes.append(f"the paper's LPIPS is of the VGG net; left blank beside LPIPS of {lpips_net}")
    if any(str(row.get("task")).startswith("deblur") for row in theirs):
        notes.append("the paper's deblurring figures come from code whose blur is not the one that the paper states")
    return notes


def _table(task: str, sampler: str) -> PaperTable | None:
    """Returns the paper's table that has the task on these levels."""
    having = (t for t in PAPER_TABLES if t.sampler == sampler and any(task in scores for scores in t.scores.values()))
    return next(having, None)


def _absent(ours: Sequence[TableRow]) -> list[str]:
    """Returns the tasks that the paper has not; 'deblur on flow levels' for one that it has on others."""
    absent = []
    for key, _ in grouped(ours, ["task", "sampler"]):
        task, sampler = str(key["task"]), str(key["sampler"])
        if _table(task, sampler) is None:
            elsewhere = any(_table(task, table.sampler) for table in PAPER_TABLES)
            absent.append(f"{task} on {sampler} levels" if elsewhere else task)
    return [*dict.fromkeys(absent)]


def _condition_notes(
    ours: Sequence[TableRow], operators: Mapping[str, Mapping[str, Any]], side: int | None
) -> Iterator[str]:
    """Says where noise, evaluations, operator and size of the paper's rows and of ours differ, by task and levels."""
    tasks: dict[tuple[str, str, str], list[str]] = {}
    for key, rows in grouped(ours, ["task", "sampler"]):
        task, sampler = str(key["task"]), str(key["sampler"])
        if (table := _table(task, sampler)) is None:
            continue
        paper = {"sigma_y": _sigma(task), "NFE": table.nfe, **resolve(task, OperatorOptions()), "px": PAPER_SIDE}
        of_rows = {"sigma_y": [row.get("sigma_y") for row in rows], "NFE": [row.get("nfe") for row in rows]}
        of_run = {name: [value] for name, value in {**operators.get(task, {}), "px": side}.items()}
        found = {name: [*dict.fromkeys(map(_shown, values))] for name, values in {**of_rows, **of_run}.items()}
        others = [name for name, value in paper.items() if found.get(name, [""]) not in ([""], [_shown(value)])]
        if others:
            theirs = ", ".join(_condition(name, [_shown(paper[name])]) for name in others)
            mine = ", ".join(_condition(name, found[name]) for name in others)
            tasks.setdefault((sampler, theirs, mine), []).append(task)
    for (sampler, theirs, mine), names in tasks.items():
        yield f"the paper's {', '.join(names)} rows on {sampler} levels are at {theirs}; ours at {mine}"


def _shown(value: Any) -> str:
    return cell_text("", value) if value is None or isinstance(value, float) else str(value)


def _condition(name: str, texts: Sequence[str]) -> str:
    return f"{texts[0]} x {texts[0]}" if name == "px" else f"{name} {' and '.join(texts)}"


def _setting_notes(ours: Sequence[TableRow]) -> Iterator[str]:
    """Yields how the methods of the paper were set here where the paper set them otherwise at as many evaluations."""
    for key, rows in grouped(ours, ["method", "sampler"]):
        gaps = [gap for row in rows for gap in _setting_gaps(row)]
        if gaps:
            yield f"{key['method']} on {key['sampler']} levels has {', '.join(dict.fromkeys(gaps))}"


def _setting_gaps(row: TableRow) -> Iterator[str]:
    task, sampler, nfe = str(row.get("task")), str(row.get("sampler")), row.get("nfe")
    method = family(str(row.get("method")))
    table = _table(task, sampler)
    if table is None or method not in table.scores or not isinstance(nfe, int):
        return
    paper = resolve_sampling(task=task, method=method, sampler=sampler, nfe=nfe, preset="paper").as_dict()
    for name in ("spacing", *(_STATED_OF_DMPS if method == "dmps" else ())):
        theirs, mine = as_typed(paper[name]), as_typed(row.get(name))
        if row.get(name) is not None and theirs != mine:
            yield f"{name} {mine} (paper: {theirs})"


_STATED_OF_DMPS = tuple(KNOBS[name].label for name in ("weight", "score_at", "cap"))
"""Settings that the paper states; what else --preset paper has, and has of the baselines, is our choice."""


def paper_seconds(samplers: Sequence[str]) -> list[dict[str, Value]]:
    """Returns the paper's seconds per image for these samplers, with the ratio to its DMPS."""
    return [
        {
            SOURCE: "paper",
            "method": _form(method, table.sampler),
            "sampler": table.sampler,
            "nfe": table.nfe,
            "size": "256x256",
            "seconds": seconds,
            "ratio": seconds / table.seconds["dmps"],
        }
        for table in PAPER_TABLES
        if table.sampler in samplers
        for method, seconds in table.seconds.items()
    ]


def paper_seconds_notes(task: str) -> list[str]:
    """Returns what to know beside `paper_seconds` when ours are of this task."""
    ours = "" if task == PAPER_TIMED else f"; ours are of {task}"
    return [f"the paper's seconds are those of its Figure 3, of {PAPER_TIMED} on {PAPER_MACHINE}{ours}"]
