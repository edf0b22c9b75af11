"""Every kind of input: a sound one, the commands that read it, and how it is spoiled."""

from __future__ import annotations

from tests.fuzz.arrays import ARRAYS, KERNEL_FILES, LISTS, MASKS, PICTURES, SIDECARS
from tests.fuzz.networks import CHECKPOINTS, FOLDERS, TRAININGS
from tests.fuzz.surroundings import ENVIRONMENTS, HOSTS, NAMES, OPTIONS
from tests.fuzz.tables import DATASETS, RUNS, TABLES

READERS = {
    reader.name: reader
    for reader in (
        PICTURES,
        MASKS,
        KERNEL_FILES,
        ARRAYS,
        SIDECARS,
        LISTS,
        RUNS,
        TABLES,
        DATASETS,
        CHECKPOINTS,
        FOLDERS,
        TRAININGS,
        NAMES,
        OPTIONS,
        ENVIRONMENTS,
        HOSTS,
    )
}
