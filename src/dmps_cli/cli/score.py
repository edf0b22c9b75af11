"""`dmps score`: restored pictures beside the truth, whoever restored them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dmps_cli.cli.console import Console
from dmps_cli.cli.groups import command_options
from dmps_cli.cli.options import LpipsNet, Quiet
from dmps_cli.errors import DmpsError, UsageError
from dmps_cli.evaluation.pairs import pairs
from dmps_cli.evaluation.scoring import PairScorer, Scores, ScoringOptions, check_tables, score_folders
from dmps_cli.jobs.batch import Batch
from dmps_cli.listener import note_missing
from dmps_cli.metrics.lpips import DEFAULT_LPIPS_NET


@command_options
def score(
    scoring: ScoringOptions,
    folders: Annotated[
        list[Path], typer.Argument(metavar="RESTORED... TRUTH", help="Folders, or two pictures; the last is the truth.")
    ],
    out: Annotated[Path | None, typer.Option("--out", metavar="FOLDER", help="Write the tables there.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing tables.")] = False,
    lpips_net: LpipsNet = DEFAULT_LPIPS_NET,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure restored pictures against the truth: PSNR, SSIM and LPIPS of folders, matched by name.

    Nothing is restored: the pictures may be of any program. Several folders are ranked beside each other.

    Example: dmps score restored/ others/ truth/
    """
    console = Console(quiet=quiet, as_json=as_json)
    *restored, truth = folders
    if not restored:
        raise UsageError(f"expected RESTORED and TRUTH, got {truth} alone")
    if out is not None:
        check_tables(out, overwrite=overwrite)
    batch = Batch(listener=console)
    scorer = PairScorer(options=scoring, lpips_net=lpips_net)
    pictures = sum(len(pairs(folder, truth, matched_only=scoring.matched_only)[0]) for folder in restored)
    with console.progress(pictures, "pictures", pictures=pictures) as (advance, _):
        scores = score_folders(restored, truth, scorer, on_failure=batch.fail, on_pair=advance)
    note_missing(console, scorer.colour.missing)
    show(scores, console)
    if out is not None and scores.rows:
        scores.write(out, overwrite=overwrite)
        console.note(f"wrote tables to {out}")
    if batch.failures:
        raise typer.Exit(DmpsError.exit_code)


def show(scores: Scores, console: Console) -> None:
    """Prints the table of means, or with --json all."""
    from dmps_cli.cli.tables import console_report
    from dmps_cli.report.writers import results_object

    summary, notes = scores.summary, scores.notes
    if console.as_json:
        console.object(results_object(scores.rows, summary, scores.protocol, scores.described(), notes=notes))
    elif scores.rows:
        console.rendered(lambda stream: console_report(summary, scores.protocol, stream, notes=notes))
