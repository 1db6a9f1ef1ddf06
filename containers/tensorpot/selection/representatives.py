"""Representatives of the pool in a combined selection, and the number of structures that each chosen one stands for.

D-optimal structures guard the tails and are no picture of the pool: alone they pull the mean errors off. So they get a
share of the budget only; the rest are representatives of the pool, and each chosen structure weighs in the fit as many
structures as it is the nearest chosen one of, so that the loss of the few estimates the loss of all. The measurements
behind every choice here are in docs/use/selection.md.

A selection that has grown by its errors is no picture of the pool either: at full weight the new ones can pull the mean
errors off. So a weighted selection is weighted anew, by the rule of the first one. docs/use/extension.md has the
figures, which are mixed.

Pure numpy and scipy. Nothing is drawn at random, and no result depends on how the work is cut into blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from scipy.spatial.distance import cdist

from containers.arrays import Floats, Indices, Mask
from containers.contract import Machine
from containers.tensorpot.active_set.piece_sizes import BLOCK_ROWS
from containers.tensorpot.selection.candidates import DataSet

D_OPTIMAL_PART = 3
"""One in so many structures of the budget is D-optimal. Linear fits have the same errors from a fifth to a half."""
REPRESENTATION = 1.0
"""Power to which a structure's weight takes the number of those that it stands for. 1 estimates the loss of the whole
pool; less gives more to the tails: better forces, worse energies."""
KEPT_VARIANCE = 0.999
"""Share of the variance that the kept principal components have; 250 functions on varied silicon keep some 35."""
BLOCK = 64
"""Rows of distances held at once: BLOCK times the structures of the pool."""
AUDIENCE = 4000
"""Structures at least whose ways are shortened. A larger pool is heard in part, so that the time grows with N alone."""
AUDIENCE_EACH = 8
"""Structures heard at least for each one wanted."""


def share_d_optimal(budget: int, maxvol_size: int) -> int:
    """Return how many of `budget` new structures MaxVol chooses, when its pass gives `maxvol_size`."""
    return min(maxvol_size, budget // D_OPTIMAL_PART)


def structure_space(features: Floats) -> Floats:
    """Return (N, R) principal components, largest first, of the columns brought to mean 0 and variance 1.

    Takes little more memory than it gives back: the features are scaled BLOCK_ROWS structures at a time.

    Args:
        features: (N, F) one row a structure: the sums of its atoms' projections, each element in columns of its own,
            divided by the number of all its atoms. A linear model makes the energy an atom of these.
    """
    means = features.mean(axis=0)
    spread = np.sqrt(sum(np.square(rows - means).sum(axis=0) for rows in _several(features)) / len(features))
    varies = spread > 1e-12 * np.maximum(features.max(axis=0), -features.min(axis=0))
    if not varies.any():
        return np.zeros((len(features), 1))

    def scaled() -> Iterator[Floats]:
        return ((rows[:, varies] - means[varies]) / spread[varies] for rows in _several(features))

    variances, axes = np.linalg.eigh(sum(rows.T @ rows for rows in scaled()))
    explained = np.cumsum(variances[::-1]) / variances.sum()
    axes = axes[:, ::-1][:, : int(np.searchsorted(explained, KEPT_VARIANCE)) + 1]
    space = np.empty((len(features), axes.shape[1]))
    for rows, place in zip(scaled(), _several(space), strict=True):
        np.matmul(rows, axes, out=place)
    return space


def _several(rows: Floats) -> Iterator[Floats]:
    """Yield views of BLOCK_ROWS rows, one after the other."""
    return (rows[start : start + BLOCK_ROWS] for start in range(0, len(rows), BLOCK_ROWS))


def bulk_choice(space: Floats, chosen: Sequence[int], count: int) -> list[int]:
    """Choose the places of `count` more structures, most important first.

    Each is the one that shortens most the way from every structure of the pool to its nearest chosen one, summed over
    the pool (k-medians, greedily; with nothing chosen yet the first is the medoid). Of equals the first place is
    taken. Beyond AUDIENCE structures the sum is over every second, third, ... of them: the order of the rows must have
    no meaning, as that of ids has none. Time and memory grow with N.

    Args:
        space: (N, R) from `structure_space`, of candidates and everything in `chosen`.
        chosen: places taken already: they cover what is around them.
        count: at most N less the chosen; `ValueError` beyond.
    """
    if count > (free := len(space) - len(set(chosen))):
        raise ValueError(f"{count} structures are requested and {free} are left")
    audience = space[:: max(1, len(space) // max(AUDIENCE, AUDIENCE_EACH * count))]
    # (A,) distance to the nearest chosen one; with none chosen a distance that no two have
    reach = np.full(len(audience), 2.0 * float(np.linalg.norm(space, axis=1).max(initial=0.0)))
    for block in _blocks(np.asarray(chosen, dtype=np.int64)):
        reach = np.minimum(reach, cdist(space[block], audience).min(axis=0))
    bounds = np.full(len(space), np.inf)  # of what each would gain: gains only fall as others are chosen
    bounds[list(chosen)] = -np.inf
    picked: list[int] = []
    while len(picked) < count:
        exact = np.zeros(len(bounds), dtype=bool)
        while not exact[top := int(bounds.argmax())]:  # renew the largest bounds until an exact gain is on top
            stale = np.flatnonzero(~exact & (bounds > -np.inf))
            block = np.sort(stale[np.argsort(-bounds[stale], kind="stable")[:BLOCK]])
            bounds[block] = np.maximum(reach - cdist(space[block], audience), 0.0).sum(axis=1)
            exact[block] = True
        picked.append(top)
        bounds[picked[-1]] = -np.inf
        reach = np.minimum(reach, cdist(space[picked[-1:]], audience)[0])
    return picked


def representation_weights(space: Floats, chosen: Sequence[int]) -> Floats:
    """Return (K,) weights of the K chosen places, mean 1: of how many of the N structures each is the nearest chosen
    one, to the power REPRESENTATION.

    A chosen structure always stands for itself; others at equal distance go to the first in `chosen`.
    """
    places = np.asarray(chosen, dtype=np.int64)
    others = np.setdiff1d(np.arange(len(space)), places)
    counts = np.ones(len(places))
    for block in _blocks(others):
        counts += np.bincount(cdist(space[block], space[places]).argmin(axis=1), minlength=len(places))
    weights = counts**REPRESENTATION
    return np.asarray(weights / weights.mean(), dtype=float)


def _blocks(places: Indices) -> list[Indices]:
    return [places[start : start + BLOCK] for start in range(0, len(places), BLOCK)]


def weights_of(space: Floats, train: Indices, chosen: list[int], dft: Mask) -> dict[int, float]:
    """Return the weight of each chosen structure of the pool, for what it stands for there; DFT ones have their own.

    Args:
        space: (N, R) of the training side.
        train: (N,) the structures' places elsewhere, by which the weights are given.
        chosen: rows of `space`.
        dft: (N,) which rows are DFT structures.
    """
    pool = np.flatnonzero(~dft)
    place_in = {int(k): place for place, k in enumerate(pool)}
    weighed = [k for k in chosen if k in place_in]
    if not weighed:
        return {}
    weights = representation_weights(space[pool], [place_in[k] for k in weighed])
    return {int(train[k]): float(one) for k, one in zip(weighed, weights, strict=True)}


def features_of(data: DataSet, potential: Path, outputs: Path, machine: Machine) -> Floats:
    """Return (N, F) mean projections of the structures of a data set, by the basis of a potential."""
    from containers.tensorpot.active_set.piece_sizes import features_bytes, sizes_for
    from containers.tensorpot.active_set.projection_files import projections
    from containers.tensorpot.active_set.projections import Projector
    from containers.tensorpot.student.potential import load_basis

    projector = Projector(load_basis(potential))
    held = features_bytes(machine.resources, data.rows, sum(projector.functions.values()))
    sizes = sizes_for(machine.resources, max(projector.functions.values()), held)
    with projections(data.structures(), len(data.usable), projector, outputs, machine, sizes, features=True) as found:
        assert found.features is not None
        return found.features


def representing(data: DataSet, features: Floats, chosen: Sequence[str]) -> dict[str, float]:
    """Return the weight of each chosen structure by id, mean 1, see `weights_of`.

    Args:
        features: (N, F) of `data.usable`.
        chosen: most important first; those that the data set cannot use are left out, as DFT structures are.
    """
    train = np.array([k for k, one in enumerate(data.usable) if one.part in ("candidate", "given", "dft")])
    row_of = {data.usable[place].id: row for row, place in enumerate(train)}
    dft = np.array([data.usable[place].part == "dft" for place in train])
    rows = [row_of[key] for key in chosen if key in row_of]
    weights = weights_of(structure_space(features[train]), train, rows, dft)
    return {data.usable[place].id: weight for place, weight in weights.items()}
