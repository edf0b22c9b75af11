"""What is asked of an evaluation: checked without torch, then run by every process of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dmps_cli import __version__, processes
from dmps_cli.checks import SAMPLES
from dmps_cli.errors import UsageError
from dmps_cli.evaluation.folder import FolderOptions, check_folder, evaluation_around
from dmps_cli.evaluation.pictures import Framing, PictureOptions, origin
from dmps_cli.evaluation.results import Results
from dmps_cli.evaluation.worker import Worker
from dmps_cli.files.atomic import sha256_file
from dmps_cli.files.reading import MAX_PICTURE
from dmps_cli.jobs.batch import Batch
from dmps_cli.listener import SILENT, Listener, note_missing
from dmps_cli.metrics.protocol import list_hash
from dmps_cli.tasks.geometry import crop_box
from dmps_cli.tasks.options import OperatorOptions
from dmps_cli.tasks.plan import OperatorPlan
from dmps_cli.tasks.table import check_channels, task
from dmps_cli.weights.options import ComputeOptions

if TYPE_CHECKING:
    import torch

    from dmps_cli.evaluation.outcomes import Problem
    from dmps_cli.methods.choice import Sampling
    from dmps_cli.metrics.scorer import Scorer
    from dmps_cli.weights.loading import LoadedPrior


@dataclass(frozen=True, kw_only=True)
class EvaluationRequest:
    """What is asked of an evaluation. samplings: by task; samples: of the posterior, per picture."""

    plans: Sequence[OperatorPlan]
    samplings: Mapping[str, list[Sampling]]
    source: PictureOptions
    target: FolderOptions
    compute: ComputeOptions
    samples: int
    lpips_net: str
    with_paper: bool

    def __post_init__(self) -> None:
        """Raises UsageError or OutputError for what can be refused before a picture is looked for."""
        SAMPLES("--samples", self.samples)
        for choice in chain.from_iterable(self.samplings.values()):
            choice.check_samples(self.samples)
        if not self.plans:
            raise UsageError("--tasks names no task")
        if self.target.out is not None:
            check_folder(self.target.out, overwrite=self.target.overwrite)

    def run(self, listener: Listener, show: Callable[[Results], None]) -> list[str]:
        """Does this process's share; returns the pictures that failed, in the first process.

        show: what that one does with the results.
        """
        part, pictures = self.source.share(), self.source.pictures(listener, offline=self.compute.offline)
        check_inputs(pictures, self.target)
        device = processes.own_device(self.compute.start())
        from dmps_cli.evaluation.outcomes import Plan
        from dmps_cli.metrics.scorer import Scorer

        with processes.group():
            prior = self.compute.load(device, listener)
            for plan in self.plans:
                check_channels(plan.task, prior.channels)
            scorer = Scorer(lpips_net=self.lpips_net)
            note_missing(listener, scorer.missing)
            for plan in self.plans:
                for choice in self.samplings[plan.task]:
                    listener.note("; ".join([plan.describe(), str(choice), *choice.cautions]))
            name = self.source.dataset
            return Worker(
                pictures=pictures,
                part=part,
                fit=self.fit,
                plan=Plan(
                    problems=[as_problem(plan, self.samplings[plan.task], device, listener) for plan in self.plans],
                    seed=self.compute.seed,
                    num_samples=self.samples,
                    facts={"seed": self.compute.seed, "model_sha256": prior.sha256},
                ),
                prior=prior,
                scorer=scorer,
                device=device,
                target=self.target,
                config=self.configuration(pictures, prior, scorer),
                facts={"dataset": name, "dataset_origin": origin(str(name)), **self.compute.facts()},
                compare=self.with_paper,
                batch=Batch(listener=listener),
                show=show,
            ).run()

    @property
    def fit(self) -> Framing:
        """How pictures are brought to one size."""
        return self.source.fitted()

    def configuration(self, pictures: Mapping[str, Path], prior: LoadedPrior, scorer: Scorer) -> dict[str, Any]:
        """Returns all that a number of the tables depends on, as JSON has it; files by what they hold."""

        def problem(plan: OperatorPlan) -> dict[str, Any]:
            operator = dict(plan.params)
            if operator.get("mask") is not None:
                operator["mask"] = sha256_file(Path(operator["mask"]), limit=MAX_PICTURE)
            chosen = [choice.as_dict() for choice in self.samplings[plan.task]]
            return {"task": plan.task, "operator": operator, "sigma_y": plan.sigma_y, "samplings": chosen}

        config = {
            "version": __version__,
            "num_images": len(pictures),
            "images_sha256": list_hash(pictures),
            **self.fit.as_dict(),
            "prepared": self.fit.describe(),
            "model_sha256": prior.sha256,
            "channels": prior.channels,
            "dtype": self.compute.dtype,
            "tile": self.compute.tile,
            "device": prior.device.type,
            "seed": self.compute.seed,
            "samples": self.samples,
            "metrics": list(scorer.names),
            "lpips_net": scorer.lpips_net,
            "problems": [problem(plan) for plan in self.plans],
        }
        return dict(json.loads(json.dumps(config)))  # lists for tuples, as read back


def shared_options(name: str, tasks: Sequence[str], options: OperatorOptions) -> OperatorOptions:
    """Returns those of the options that the task takes. Raises UsageError for one that none of the tasks takes."""
    takers = {option: [other for other in tasks if option in task(other).params] for option in options.given()}
    orphans = [option for option, names in takers.items() if not names]
    if orphans:
        raise UsageError(f"none of the tasks {', '.join(tasks)} takes --{orphans[0].replace('_', '-')}")
    return OperatorOptions(**{option: value for option, value in options.given().items() if name in takers[option]})


def check_inputs(pictures: Mapping[str, Path], target: FolderOptions) -> None:
    """Raises UsageError if --overwrite would remove a picture that is to be read."""
    if target.out is None or not target.overwrite:
        return
    for path in pictures.values():
        if (whose := evaluation_around(path)) and whose.resolve() == target.out.resolve():
            raise UsageError(f"{path} is a picture of {target.out}, which --overwrite would empty")


def as_problem(
    plan: OperatorPlan, samplings: list[Sampling], device: torch.device, listener: Listener = SILENT
) -> Problem:
    """Returns the plan as the evaluation sees it."""
    from dmps_cli.evaluation.outcomes import Problem

    return Problem(
        task=plan.task,
        sigma_y=plan.sigma_y,
        samplings=samplings,
        crop=lambda size: crop_box(plan.task, plan.params, size),
        needs_colour=task(plan.task).needs_colour,
        build=lru_cache(maxsize=1)(lambda shape: plan.build(shape, device, listener)),  # neighbours share it
    )
