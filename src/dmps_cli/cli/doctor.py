"""`dmps doctor`: does this machine compute what the CPU computes in float32?"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from dmps_cli import __version__
from dmps_cli.cli.console import Console
from dmps_cli.cli.options import Device, Model, Offline, Quiet, WeightsFile
from dmps_cli.errors import DmpsError
from dmps_cli.evaluation.checkup import TOO_FAR, compare
from dmps_cli.metrics.scorer import Scorer
from dmps_cli.weights.cards import DEFAULT_MODEL
from dmps_cli.weights.options import ComputeOptions


def doctor(
    model: Model = DEFAULT_MODEL,
    weights_file: WeightsFile = None,
    offline: Offline = False,
    device_name: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
    quiet: Quiet = False,
) -> None:
    """Check the machine: versions, device, memory, and how far it is from float32 on the CPU, with a verdict.

    One network evaluation at two noise levels and one DMPS run of 5 steps, in every floating-point type, against the
    CPU in float32. Without a GPU the CPU's own half precision is checked. Exit code 1 if something is too far or a
    metric cannot be measured; a type that the device does not have is said, and no fault.

    Example: dmps doctor --device auto
    """
    console = Console(quiet=quiet, as_json=as_json)
    compute = ComputeOptions(model=model, weights_file=weights_file, offline=offline, device=device_name)
    sampler = compute.check().sampler
    device = compute.start()
    from dmps_cli.device import describe, free_bytes
    from dmps_cli.files.measurements import versions

    if device.type == "cpu":
        console.note("no GPU is used here: the CPU's half precision is checked against its float32")
    free = free_bytes(device)
    facts: dict[str, Any] = {
        "versions": versions(),
        "device": str(device),
        "device_name": describe(device),
        "free_gib": None if free is None else round(free / 2**30, 1),
        "model": model,
    }
    rows = compare(compute, sampler, device, console)
    failed = [row for row in rows if row["verdict"] == TOO_FAR]
    missing = Scorer().missing
    is_well = not (failed or missing)
    console.object(
        {"version": __version__, "command": "doctor", **facts, "rows": rows, "missing_metrics": missing, "ok": is_well}
    )
    if not as_json:
        for name, value in facts.items():
            shown = ", ".join(f"{key} {item}" for key, item in value.items()) if isinstance(value, dict) else value
            console.result(f"{name}: {shown}")
        console.table(rows)
        console.result("differences in grey levels of 255")
        for name, reason in missing.items():
            console.result(f"no {name.upper()}: {reason}")
        faults = [f"{len(failed)} of {len(rows)} checks failed"] * bool(failed)
        faults += [f"{', '.join(map(str.upper, missing))} cannot be measured"] * bool(missing)
        console.result(f"verdict: {'; '.join(faults) or 'all is well'}")
    if not is_well:
        raise typer.Exit(DmpsError.exit_code)
