"""`python -m tests.fuzz --minutes 30 --seed 0`: spoils inputs until the time is up, and says what it found."""

from __future__ import annotations

import argparse
import functools
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from tests.fuzz import findings
from tests.fuzz.readers import READERS
from tests.fuzz.server import serve
from tests.fuzz.trials import HANG_SECONDS, Laboratory, Outcome, Reader, Trial, import_all, judge

AGAIN = 2
"""Times that a command which only waited too long is run again: the machine may have been busy."""

SAID_SECONDS = 60.0
"""How often it is said how far it is."""


def main() -> int:
    """Fuzzes, or runs the recorded findings again. Exit code 1 if anything was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", action="append", choices=sorted(READERS), help="only this kind of input")
    parser.add_argument("--trial", type=int, action="append", help="only this number of trial, with all that it says")
    parser.add_argument("--replay", type=Path, nargs="*", help="run recorded findings again; none named: all")
    parser.add_argument("--record", type=Path, default=Path("fuzz-findings"), help="folder of what is found")
    asked = parser.parse_args()
    with laboratory() as found:
        if asked.replay is not None:
            return replay(found, asked.replay or sorted(findings.FOLDER.glob("*.json")))
        return fuzz(found, asked)


@contextmanager
def laboratory() -> Iterator[Laboratory]:
    """A place to work in, with everything imported that the commands import, and a host."""
    root = Path(tempfile.mkdtemp(prefix="dmps-fuzz-")).resolve()
    found = Laboratory(root=root, prepare=_hasten)
    host, port = serve()
    os.environ |= {**found.environment(), "FUZZ_PORT": str(port)}
    try:
        _import_most()
        yield found
    finally:
        os.kill(host, signal.SIGKILL)
        os.waitpid(host, 0)
        os.chdir(root.parent)
        shutil.rmtree(root, ignore_errors=True)


def _import_most() -> None:
    """What nearly every command takes; what else one takes is imported after it has run for the first time."""
    import torch
    from PIL import Image

    torch.set_num_threads(1)
    Image.init()
    import_all(
        ("dmps_cli.cli.main", "dmps_cli.pipeline", "dmps_cli.jobs.restore", "dmps_cli.report", "typer.rich_utils")
    )


def _hasten() -> None:
    """In the process of a command: a download gives up early, and LPIPS, which reads nothing of others, is left out."""
    from dmps_cli.errors import WeightsError
    from dmps_cli.files.downloads import fetch
    from dmps_cli.metrics import lpips

    def left_out(name: str) -> None:
        raise WeightsError(f"{name} is left out to save time")

    quick = {"tries": 2, "first_wait": 0.01, "longest_wait": 0.05, "read": 0.3, "window": 0.5, "connect": 0.3}
    fetch.Patience = functools.partial(fetch.Patience, **quick, unreachable=0.5)  # type: ignore[misc,assignment]
    lpips._lpips_network = left_out  # type: ignore[assignment]


def fuzz(place: Laboratory, asked: argparse.Namespace) -> int:
    """Trial after trial; each follows from seed and number alone."""
    readers = [READERS[name] for name in asked.reader or READERS]
    counts: Counter[str] = Counter()
    known: Counter[str] = Counter()
    start = said = time.monotonic()
    numbers = iter(asked.trial) if asked.trial else iter(range(10**9))
    for number in numbers:
        if (now := time.monotonic()) > start + 60 * asked.minutes:
            break
        if now > said + SAID_SECONDS:
            said = now
            print(
                f"{(now - start) / 60:.0f} min: {sum(counts.values())} inputs, {len(known)} kinds of faults", flush=True
            )
        origin = f"seed {asked.seed}, trial {number}"
        make = functools.partial(made, place, readers, origin)
        try:
            reader, trial, base = make()
        except (ArithmeticError, LookupError, OSError, TypeError, ValueError) as exc:
            print(f"{origin}: could not be made: {exc!r}", flush=True)
            continue
        outcome, faults = tried(place, reader, trial, base, make)
        counts[reader.name] += 1
        if asked.trial:
            texts = (outcome.out.decode(errors="replace"), outcome.err.decode(errors="replace"))
            print(trial.arguments, outcome.code, faults, *texts, sep="\n")
        for fault in faults:
            known[f"{reader.name}: {fault}"] += 1
        if new := [fault for fault in faults if known[f"{reader.name}: {fault}"] == 1]:
            found = findings.recorded(place, reader, make()[1], [*new, *(f for f in faults if f not in new)], origin)
            path = findings.write(found, asked.record)
            print(
                f"{origin}: {reader.name}: {'; '.join(faults)}; dmps {' '.join(trial.arguments)!a}; {path}", flush=True
            )
    print(f"{sum(counts.values())} inputs: {', '.join(f'{name} {count}' for name, count in sorted(counts.items()))}")
    print(f"{len(known)} kinds of faults" + "".join(f"\n{count:6d}  {fault}" for fault, count in known.most_common()))
    return int(bool(known))


def made(place: Laboratory, readers: list[Reader], origin: str) -> tuple[Reader, Trial, Outcome]:
    """(its reader, a spoiled trial in the sandbox, what the sound one costs); all follows from seed and number."""
    rng = Random(origin)
    reader = rng.choices(readers, [each.weight for each in readers])[0]
    command = rng.choice(reader.commands)
    base = place.base(reader, command)
    trial = place.trial(reader, command)
    os.chdir(trial.folder)
    reader.spoil(trial, rng)
    os.chdir(place.root)
    return reader, trial, base


def tried(
    place: Laboratory, reader: Reader, trial: Trial, base: Outcome, make: Callable[[], tuple[Reader, Trial, Outcome]]
) -> tuple[Outcome, list[str]]:
    """(what came of a trial, what is wrong with it); a trial that waits too long is run again."""
    outcome = place.run(trial, reader.writes, base.wall + HANG_SECONDS)
    for _ in range(AGAIN):
        if not {"hangs", "waits"} & {*(faults := judge(outcome, base))}:
            return outcome, faults
        outcome = place.run(make()[1], reader.writes, base.wall + HANG_SECONDS)
    return outcome, judge(outcome, base)


def replay(place: Laboratory, paths: list[Path]) -> int:
    """Runs recorded findings; says of each whether it is still one."""
    held = Path("/proc/self/statm").read_text().split()
    allowed = Outcome(code=0, seconds=2.0, wall=15.0, mib=int(held[1]) * 4096 / 2**20 + 400.0)
    failures = 0
    for path in paths:
        finding = json.loads(path.read_text())
        reader = READERS[finding["reader"]]
        trial = findings.restored(place, reader, finding)
        os.chdir(place.root)
        outcome = place.run(trial, reader.writes, allowed.wall)
        if faults := judge(outcome, allowed):
            failures += 1
            print(f"{path.stem}: {'; '.join(faults)}\n{outcome.err.decode(errors='replace')}", flush=True)
    print(f"{len(paths)} recorded findings, {failures} of them faults")
    return int(bool(failures))


if __name__ == "__main__":
    sys.exit(main())
