"""The pair potentials whose difference to the labels a student learns: ZBL, or Lennard-Jones given or fitted.

Lennard-Jones from data: its minimum lies at a short distance of the pair, so that inside it is the wall alone; its
depth is what fits the labels' forces on the atoms that have a neighbour closer than that, in the least squares sense.
It is then made shallower, all pairs together, as far as no structure leaves pacemaker's range of energies by it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from ase import Atoms
from pydantic import Field

from containers.arrays import Floats, Indices
from containers.contract import BadInput, Closed
from containers.structures.distances import nearest, shortest_per_pair, touching
from containers.structures.table import STRUCTURES, atoms_from_table
from containers.tensorpot.baseline.rows import BaselineLabels
from containers.tensorpot.frames.frame_file import ENERGY_RANGE, ONE_PLACE
from containers.tensorpot.student.baseline import PairTerm, pair_names
from containers.tensorpot.student.calculator import neighbours, pair_terms

ZBL_INNER = 0.5
"""ZBL is whole up to this share of the sum of the covalent radii and zero from that sum on: bonds are longer, so that
the equilibrium is untouched, and the switch is as wide as it can be, so that the student has little to undo."""
LJ_INNER = 0.8
"""Lennard-Jones is whole up to this share of the cutoff."""
FITTED_FROM = 500
"""Structures of the training side, spread evenly, to which Lennard-Jones is fitted."""
CLOSE = 0.1
"""Quantile of the structures' shortest distances of a pair where its well is put: in compounds most are no bonds."""
DEPTHS_eV = (1e-3, 1.0)
"""Between these a fitted depth is a pair bond's."""
LARGE_FORCE_eV_per_A = 1.0
"""Atoms with larger forces count less, so that a single crash does not rule the fit."""
MOST_PUSHED_OUT = 0.01
"""Share of the structures that given parameters may push out of pacemaker's range."""


class LennardJones(Closed):
    """Parameters of one pair."""

    epsilon_eV: float = Field(gt=0, description="depth of the well, eV")
    sigma_A: float = Field(gt=0, description="where the energy is zero, Å; the minimum is at 1.1225 times that")


def zbl_terms(elements: Sequence[str], cutoff: float) -> dict[str, PairTerm]:
    """Return ZBL of every pair, switched off inside the cutoff (Å)."""
    outer = {pair: min(touching(pair), cutoff) for pair in pair_names(elements)}
    return {
        pair: PairTerm(form="zbl", inner_A=ZBL_INNER * reach, outer_A=reach) for pair, reach in sorted(outer.items())
    }


def lj_terms(parameters: Mapping[str, LennardJones], elements: Sequence[str], cutoff: float) -> dict[str, PairTerm]:
    """Return the given parameters for every pair; raises `BadInput` when one is missing or belongs to no pair."""
    named = {"-".join(sorted(pair.split("-"))): values for pair, values in parameters.items()}
    pairs = pair_names(elements)
    if missing := [pair for pair in pairs if pair not in named]:
        raise BadInput(f"lj has no {', '.join(missing)}: give epsilon_eV and sigma_A of every pair, or set lj: auto")
    if unknown := sorted(set(named) - set(pairs)):
        raise BadInput(f"lj has {', '.join(unknown)}, but the elements are {', '.join(elements)}: take it out")
    return {pair: _lj(named[pair].epsilon_eV, named[pair].sigma_A, cutoff) for pair in pairs}


def _lj(epsilon: float, sigma: float, cutoff: float) -> PairTerm:
    return PairTerm(form="lj", epsilon_eV=epsilon, sigma_A=sigma, inner_A=LJ_INNER * cutoff, outer_A=cutoff)


def fitted_lj(
    labels: BaselineLabels, e0s_eV: Mapping[str, float], elements: Sequence[str], cutoff: float
) -> dict[str, PairTerm]:
    """Fit Lennard-Jones terms to the labels of the training side; raises `BadInput` when no pair of atoms is near.

    A pair that is nowhere within the cutoff there has ZBL instead: a well would be an invented bond.
    """
    known = _sample(labels, elements)
    near: defaultdict[str, list[float]] = defaultdict(list)
    for atoms in known:
        for pair, distance in shortest_per_pair([atoms], cutoff).items():
            near[pair].append(distance)
    typical = {pair: float(np.quantile(distances, CLOSE)) for pair, distances in near.items()}
    if not typical:
        raise BadInput("lj: auto needs structures whose atoms are nearer than the cutoff: give epsilon_eV and sigma_A")
    unit = {pair: _lj(1.0, distance / 2 ** (1 / 6), cutoff) for pair, distance in typical.items()}
    depths = _depths(known, unit, typical)
    terms = {pair: term.model_copy(update={"epsilon_eV": depths[pair]}) for pair, term in unit.items()}
    low, high = ENERGY_RANGE  # the depths are shared down until every structure in range stays in it
    found = shifts(labels, terms, e0s_eV)
    bare, taken = found[(found[:, 0] >= low) & (found[:, 0] <= high)].T
    room = np.where(taken > 0, bare - low, high - bare)
    most = float((room[taken != 0] / np.abs(taken[taken != 0])).min(initial=np.inf))
    share = 1.0 if most >= 1 else 0.99 * most
    fitted = {pair: _lj(share * depths[pair], float(term.sigma_A or 0), cutoff) for pair, term in terms.items()}
    return dict(sorted({**zbl_terms(elements, cutoff), **fitted}.items()))


def _sample(labels: BaselineLabels, elements: Sequence[str]) -> list[Atoms]:
    """Return every n-th usable structure of the training side, at most FITTED_FROM; only these are held with labels."""
    geometries = (atoms_from_table(table) for table in labels.training(STRUCTURES.names))
    places = np.flatnonzero([_usable(atoms, elements) for structures in geometries for atoms in structures])
    chosen = places[:: max(1, -(-len(places) // FITTED_FROM))]
    found, start = list[Atoms](), 0
    for table in labels.training():
        here = chosen[(chosen >= start) & (chosen < start + table.num_rows)]
        found += atoms_from_table(table.take(pa.array(here - start)))
        start += table.num_rows
    return found


def _usable(atoms: Atoms, elements: Container[str]) -> bool:
    """Return whether it can enter a fit: of the elements, with no two atoms in one place."""
    known = all(symbol in elements for symbol in set(atoms.get_chemical_symbols()))
    return known and bool(nearest(atoms, 2 * ONE_PLACE).min() >= ONE_PLACE)


def _depths(
    structures: Sequence[Atoms], unit: Mapping[str, PairTerm], typical: Mapping[str, float]
) -> dict[str, float]:
    """Return depths (eV) that fit the forces of crowded atoms."""
    from scipy.optimize import nnls

    pairs = list(typical)
    square, right = np.zeros((len(pairs), len(pairs))), np.zeros(len(pairs))
    for atoms in structures:
        crowded = crowded_atoms(atoms, typical)
        wanted = np.asarray(atoms.calc.results["forces"])[crowded]
        columns = [pair_terms(atoms, {pair: unit[pair].model_dump()})[1][crowded] for pair in pairs]
        # forces of the repulsive wall reach 1e3 eV/Å: every atom counts by its share of its own forces
        size = np.linalg.norm([wanted, *columns], axis=(0, 2)) + LARGE_FORCE_eV_per_A
        rows = np.array([(column / size[:, None]).ravel() for column in columns])
        square += rows @ rows.T
        right += rows @ (wanted / size[:, None]).ravel()
    solved, _ = nnls(square + 1e-9 * np.eye(len(pairs)), right)
    return dict(zip(pairs, np.clip(solved, *DEPTHS_eV).tolist(), strict=True))


def crowded_atoms(atoms: Atoms, distances: Mapping[str, float]) -> Indices:
    """Return the atoms with a neighbour closer than the distance (Å) of their pair."""
    first, second, vectors = neighbours(atoms, max(distances.values()))
    symbols = np.array(atoms.get_chemical_symbols())
    pairs = ["-".join(sorted(pair)) for pair in zip(symbols[first].tolist(), symbols[second].tolist(), strict=True)]
    limits = np.array([distances.get(pair, 0.0) for pair in pairs])
    return np.unique(first[np.linalg.norm(vectors, axis=1) < limits])


def shifts(labels: BaselineLabels, terms: Mapping[str, PairTerm], e0s_eV: Mapping[str, float]) -> Floats:
    """Return (S, 2): energy less E0s, and energy of the pair terms, of every usable structure with the teacher's
    label, eV/atom."""
    plain = {pair: term.model_dump() for pair, term in terms.items()}
    found = list[tuple[float, float]]()
    for table in labels.of_teacher():
        for atoms in atoms_from_table(table):
            if _usable(atoms, e0s_eV):
                e0 = sum(e0s_eV[symbol] for symbol in atoms.get_chemical_symbols())
                taken = pair_terms(atoms, plain)[0]
                found.append(((atoms.calc.results["energy"] - e0) / len(atoms), taken / len(atoms)))
    return np.array(found, dtype=float).reshape(-1, 2)


def check_range(found: Floats) -> dict[str, Any]:
    """Return figures of the corrected energies; raises `BadInput` when the pair terms push too many structures out."""
    low, high = ENERGY_RANGE
    corrected = found[:, 0] - found[:, 1]
    inside = (found[:, 0] >= low) & (found[:, 0] <= high)
    pushed = inside & ((corrected < low) | (corrected > high))
    if pushed.sum() > MOST_PUSHED_OUT * len(found):
        raise BadInput(
            f"the reference potential pushes {int(pushed.sum())} of {len(found)} structures out of pacemaker's range"
            f" of {low:g} to {high:g} eV/atom: their energies less it reach from {corrected[pushed].min():.4g} to"
            f" {corrected[pushed].max():.4g} eV/atom. Give a smaller epsilon_eV or sigma_A, or set lj: auto."
        )
    return {
        "structures_pushed_out_of_range": int(pushed.sum()),
        "lowest_corrected_eV_per_atom": float(corrected.min()) if len(found) else None,
        "highest_corrected_eV_per_atom": float(corrected.max()) if len(found) else None,
    }


Reference = Literal["none", "zbl", "lj"]
