"""A command run in a process forked from one that has imported everything, and what may be said against it."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import re
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import NoReturn

MORE_SECONDS, MORE_MIB = 2.0, 600.0
"""What a spoiled input may cost beyond a sound one."""

HANG_SECONDS = 15.0
"""After so much more than a sound input takes, a command is ended: it waits for what never comes."""

_MORE_ADDRESSES = 6 * 2**30  # bytes; the machine is to survive what a command asks for
_LARGEST_FILE = 500 * 10**6  # bytes
_OWN = ("cache", "home", "tmp")  # folders of the sandbox in which a command may do as it likes


@dataclass(frozen=True)
class Command:
    """A command line for inputs that are sound; keeps: results that are there, whatever is wrong with other inputs."""

    line: str
    keeps: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Trial:
    """A command in a sandbox, before it runs: all of it may still be spoiled."""

    folder: Path
    arguments: list[str]
    keeps: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    stdin: bytes = b""
    may_write_anywhere: bool = False  # for -o says so


@dataclass(frozen=True, kw_only=True)
class Reader:
    """A kind of input. build: makes a sound one in the current folder; spoil: spoils a trial of one of the commands.

    writes: the folders and files that the commands may change.
    """

    name: str
    build: Callable[[], None]
    commands: Sequence[Command]
    spoil: Callable[[Trial, Random], None]
    writes: tuple[str, ...] = ("out",)
    environment: Mapping[str, str] = field(default_factory=dict)
    stdin: bytes = b""
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command did. code: its exit code, negative for a signal, None where it was ended for hanging.

    seconds: of the processor; idle: those in which it waited, but for its turn on the processor.
    """

    code: int | None
    seconds: float
    wall: float
    mib: float
    idle: float = 0.0
    out: bytes = b""
    err: bytes = b""
    changed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    imported: tuple[str, ...] = ()


def forked(work: Callable[[], int], out: Path, stdin: bytes, limit: float) -> Outcome:
    """Runs the work in a forked process, its streams in files named after `out`."""
    files = {number: out.with_suffix(f".{number}") for number in range(4)}
    files[0].write_bytes(stdin)
    files[3].write_text("0")
    start = time.monotonic()
    pid = os.fork()
    if not pid:
        _as_child(work, files)
    with contextlib.suppress(OSError):
        os.setpgid(pid, pid)
    end = os.pidfd_open(pid)
    is_over = bool(select.select([end], [], [], limit)[0])
    os.close(end)
    if not is_over:
        os.killpg(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    seconds, wall = usage.ru_utime + usage.ru_stime, time.monotonic() - start
    queued, *imported = files[3].read_text().split() if is_over else ["0"]
    return Outcome(
        code=os.waitstatus_to_exitcode(status) if is_over else None,
        seconds=seconds,
        wall=wall,
        idle=max(0.0, wall - seconds - float(queued)),
        mib=usage.ru_maxrss / 1024,
        out=files[1].read_bytes(),
        err=files[2].read_bytes(),
        imported=tuple(imported),
    )


def _as_child(work: Callable[[], int], files: Mapping[int, Path]) -> NoReturn:
    code, known = 1, set(sys.modules)
    try:
        os.setpgid(0, 0)
        for number in range(3):
            mode = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(files[number], mode), number)
        sys.stdin = io.TextIOWrapper(io.FileIO(0), encoding="utf-8", errors="surrogateescape")
        sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"), encoding="utf-8", errors="strict")
        sys.stderr = io.TextIOWrapper(io.FileIO(2, "w"), encoding="utf-8", errors="backslashreplace")
        held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (held + _MORE_ADDRESSES,) * 2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (_LARGEST_FILE,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        code = work()
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else 0 if exc.code is None else 1
    except BaseException:  # noqa: BLE001 - whatever it is, it is a finding
        traceback.print_exc()
    with contextlib.suppress(BaseException):
        sys.stdout.flush()
        sys.stderr.flush()
    with contextlib.suppress(OSError):  # seconds for which this thread was ready and not running
        queued = int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
        files[3].write_text("\n".join([str(queued), *(set(sys.modules) - known)]))
    os._exit(code)


# --- Sandboxes


@dataclass(kw_only=True)
class Laboratory:
    """Runs trials, one at a time, in a folder whose path never changes. patience: makes downloads give up early."""

    root: Path
    prepare: Callable[[], None] = lambda: None
    bases: dict[str, Outcome] = field(default_factory=dict)

    @property
    def sandbox(self) -> Path:
        """Where the commands run."""
        return self.root / "sandbox"

    def environment(self) -> dict[str, str]:
        """What the commands see of ours, and folders of their own."""
        own = {"HOME": "home", "HF_HOME": "home/hf", "TMPDIR": "tmp", "DMPS_CACHE": "cache", "TORCH_HOME": "home/torch"}
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LANG") if name in os.environ}
        fixed = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
        return {**kept, **fixed, **{name: str(self.sandbox / folder) for name, folder in own.items()}}

    def template(self, reader: Reader) -> Path:
        """A sandbox with the reader's sound inputs, made once."""
        made = self.root / "templates" / reader.name
        if not made.exists():
            self._clear()
            done = forked(lambda: self._build(reader), self.root / "build", b"", 300.0)
            if done.code != 0:
                raise RuntimeError(
                    f"{reader.name}: its sound inputs could not be made:\n{done.err.decode(errors='replace')}"
                )
            shutil.copytree(self.sandbox, made, symlinks=True)
        return made

    def _clear(self) -> None:
        shutil.rmtree(self.sandbox, ignore_errors=True)
        for name in ("in", "out", "outside", *_OWN):
            (self.sandbox / name).mkdir(parents=True)
        for name in ("outside/keep.png", "keep.png", "outside/truth/keep.png"):
            (self.sandbox / name).parent.mkdir(exist_ok=True)
            (self.sandbox / name).write_bytes(b"not to be touched")

    def _build(self, reader: Reader) -> int:
        os.chdir(self.sandbox)
        os.environ.clear()
        os.environ.update(self.environment() | reader.environment)
        self.prepare()
        reader.build()
        return 0

    def trial(self, reader: Reader, command: Command) -> Trial:
        """A sound one."""
        template = self.template(reader)
        shutil.rmtree(self.sandbox, ignore_errors=True)
        shutil.copytree(template, self.sandbox, symlinks=True)
        return Trial(
            folder=self.sandbox,
            arguments=command.line.split(),
            keeps=command.keeps,
            environment=dict(reader.environment),
            stdin=reader.stdin,
        )

    def base(self, reader: Reader, command: Command) -> Outcome:
        """What the command costs with sound inputs, measured once."""
        key = f"{reader.name}: {command.line}"
        if key not in self.bases:
            trial = self.trial(reader, command)
            self.bases[key] = found = self.run(trial, reader.writes, 300.0)
            import_all(found.imported)
            if faults := judge(found, found):
                raise RuntimeError(f"{key}: {faults} with sound inputs:\n{found.err.decode(errors='replace')}")
            if found.code != 0:
                raise RuntimeError(
                    f"{key}: exit code {found.code} with sound inputs:\n{found.err.decode(errors='replace')}"
                )
        return self.bases[key]

    def run(self, trial: Trial, writes: Sequence[str], limit: float) -> Outcome:
        """Runs a trial. limit: seconds after which it is ended."""
        before = _seen(trial.folder, writes)
        outcome = forked(lambda: self._command(trial), self.root / "streams", trial.stdin, limit)
        after = _seen(trial.folder, writes)
        names = () if trial.may_write_anywhere else before.keys() | after.keys()
        changed = tuple(sorted(str(name) for name in names if before.get(name) != after.get(name)))
        missing = tuple(name for name in trial.keeps if not (trial.folder / name).exists())
        return Outcome(
            **{**vars(outcome), "changed": changed, "missing": missing, "unknown": _unknown_paths(trial, outcome)}
        )

    def _command(self, trial: Trial) -> int:
        from dmps_cli.cli.main import main

        os.chdir(trial.folder)
        os.environ.clear()
        os.environ.update(self.environment() | trial.environment)
        self.prepare()
        sys.argv = ["dmps", *trial.arguments]
        main()
        return 0


def _seen(folder: Path, writes: Sequence[str]) -> dict[Path, tuple[int, ...]]:
    """What is in a sandbox, but for what the commands may change."""
    skipped = {folder / name for name in (*writes, *_OWN)}
    found: dict[Path, tuple[int, ...]] = {}
    folders = [folder]
    while folders:
        for entry in os.scandir(folders.pop()):
            path = Path(entry.path)
            if path in skipped:
                continue
            about = entry.stat(follow_symlinks=False)
            is_folder = entry.is_dir(follow_symlinks=False)
            found[path.relative_to(folder)] = (
                about.st_mode,
                about.st_ino,
                *(() if is_folder else (about.st_size, about.st_mtime_ns)),
            )
            folders += [path] * is_folder
    return found


def _unknown_paths(trial: Trial, outcome: Outcome) -> tuple[str, ...]:
    """Lines of stdout of the commands that print paths, if they name no file."""
    if trial.arguments[:1] not in (["restore"], ["degrade"]) or {"--json", "--reference", "--help"} & {
        *trial.arguments
    }:
        return ()
    lines = [os.fsdecode(line) for line in outcome.out.split(b"\n")[:-1]]
    return tuple(line for line in lines if not os.path.lexists(trial.folder / line))


# --- Judgement


def judge(found: Outcome, base: Outcome) -> list[str]:
    """What is wrong with an outcome, each in a few words that are the same for the same fault; nothing: all is well."""
    faults = [f"traceback: {_signature(text)}" for text in _tracebacks(found.err)]
    if found.code is None:
        faults.append("hangs")
    elif found.code not in (0, 1, 2):
        faults.append(f"exit code {found.code}")
    elif found.code and not faults and not found.err.strip():
        faults.append(f"exit code {found.code} without a word")
    if found.seconds > base.seconds + MORE_SECONDS:
        faults.append("slow")
    if found.code is not None and found.idle > base.idle + MORE_SECONDS:
        faults.append("waits")
    if found.mib > base.mib + MORE_MIB or b"out of memory" in found.err:
        faults.append("memory")
    faults += [f"changed: {name}" for name in found.changed[:3]]
    if found.missing and found.code != 2:
        faults.append("ended the batch")
    if found.unknown:
        faults.append("says a path that is none")
    if any(b"arning" in line and not line.startswith(b"dmps: ") for line in found.err.split(b"\n")):
        faults.append("a warning that is not of dmps")
    return faults


def _tracebacks(err: bytes) -> list[str]:
    parts = err.decode(errors="replace").split("Traceback (most recent call last):\n")
    return parts[-1:] if len(parts) > 1 else []


def _signature(text: str) -> str:
    """Exception and our innermost place of a traceback."""
    places = re.findall(r'File ".*?/(dmps_cli/[^"]+)", line \d+, in (\S+)', text)
    raised = [
        line
        for line in text.splitlines()
        if re.match(r"[\w.]+(Error|Exception|Warning|Interrupt|Exit|\w+): |[\w.]+$", line)
    ]
    kind = raised[0].partition(":")[0] if raised else "?"
    return f"{kind} in {':'.join(places[-1]) if places else 'no place of ours'}"


def import_all(names: Iterable[str]) -> None:
    """Imports modules here, so that the processes forked from now on share them."""
    for name in names:
        with contextlib.suppress(Exception):  # some are made by others as they are imported
            importlib.import_module(name)
    gc.collect()
    gc.freeze()
