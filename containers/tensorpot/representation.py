"""Weights of a selection that has grown: each structure counts for what it stands for, as `pace_select` has it.

What was added by its errors is no picture of the pool: at full weight it can pull the mean errors off. So a selection
that is weighted is weighted anew, by the rule of the first one. docs/extension.md has the figures, which are mixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from ase import Atoms

from containers.contract import Machine
from containers.tensorpot.active_rows import Floats
from containers.tensorpot.bulk import representation_weights, structure_space
from containers.tensorpot.candidates import DataSet, Role

PART_IN: tuple[Role, ...] = ("candidate", "given", "dft")
"""The training side."""


def features_of(data: DataSet, potential: Path, outputs: Path, machine: Machine) -> Floats:
    """(N, F) mean projections of the structures of a data set, by the basis of a potential; fills `data.ids`."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    from containers.tensorpot.loading import load_basis
    from containers.tensorpot.memory import features_bytes, sizes_for
    from containers.tensorpot.projection_files import Work, projected, scratch
    from containers.tensorpot.projections import Projector

    projector = Projector(load_basis(potential))
    held = features_bytes(machine.resources, data.rows, sum(projector.functions.values()))
    sizes = sizes_for(machine.resources, max(projector.functions.values()), held)
    with scratch(outputs) as folder, threadpool_limits(1):  # processes share the work, not threads
        work = Work(projector, folder, features=True)
        found = projected(_told(data, machine), work, machine.resources.threads, sizes.block_rows).features
    assert found is not None  # asked for
    return found


def _told(data: DataSet, machine: Machine) -> Iterator[Atoms]:
    rows = data.rows
    for atoms in data.structures():
        yield atoms
        machine.progress(len(data.ids), rows, "projections")


def representing(data: DataSet, features: Floats, chosen: Sequence[str]) -> dict[str, float]:
    """Weight of each chosen structure by id, mean 1: of how many of the training side it is the nearest chosen one.

    Args:
        features: (N, F) of `data.ids`.
        chosen: most important first; those that the data set cannot use are left out, as DFT structures are.
    """
    train = [place for place, role in enumerate(data.roles) if role in PART_IN]
    pool = [k for k, place in enumerate(train) if data.roles[place] != "dft"]
    place_of = {data.ids[train[k]]: place for place, k in enumerate(pool)}
    usable = [key for key in chosen if key in place_of]
    space = structure_space(features[np.array(train)])[pool]
    weights = representation_weights(space, [place_of[key] for key in usable])
    return dict(zip(usable, weights.tolist(), strict=True))
