"""Bounds that a label must keep to be learned from; counts and histograms of a pool's labels, batch by batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from ase.data import atomic_numbers, chemical_symbols
from pydantic import ConfigDict, Field

from containers.arrays import Floats, Indices, Mask
from containers.contract import Closed, StepError
from containers.labels.ensemble import Labels
from containers.labels.rows import NOT_FINITE
from containers.structures.table import flat, list_lengths


class Sanity(Closed):
    """Bounds of a label; labels beyond them are set aside with the reason."""

    model_config = ConfigDict(strict=True)

    max_force_eV_per_A: float = Field(
        100.0,
        gt=0,
        description="largest force on an atom, eV/Å; beyond it a few atoms would rule the loss, and nothing that"
        " moves at 10,000 K feels it",
    )
    max_energy_eV_per_atom: float = Field(
        100.0,
        gt=0,
        description="energy beyond the sum of the E0s, either way, eV per atom; a bond has less than 12, and a teacher"
        " far outside its data says thousands",
    )
    min_distance_A: float = Field(
        0.5,
        ge=0,
        description="shortest pair of atoms, Å; below it the core repulsion speaks, not the teacher (H2 has 0.74)",
    )


@dataclass(frozen=True)
class Figures:
    """Figures that are compared with the bounds, of n structures of N atoms together.

    Attributes:
        finite: (n,) True if every number of the label is finite. norms: (N,) |force| of every atom, eV/Å.
        force, deviation: (n,) largest |force| and largest deviation of a force vector, eV/Å (None for one teacher).
        energy: (n,) eV per atom, the reference energies left out. distance: (n,) shortest pair, Å; NaN for none.
    """

    finite: Mask
    norms: Floats
    force: Floats
    deviation: Floats | None
    energy: Floats
    distance: Floats


def measure(numbers: pa.ChunkedArray, labels: Labels, e0s_eV: Mapping[str, float]) -> Figures:
    """Return the figures of labelled structures.

    Args:
        numbers: lists of atomic numbers.

    Raises:
        StepError: an element has no reference energy.
    """
    table = np.full(len(chemical_symbols), np.nan)
    for symbol, energy in e0s_eV.items():
        table[atomic_numbers[symbol]] = energy
    references = table[elements := flat(numbers)]
    if len(unknown := np.unique(elements[np.isnan(references)])):
        raise StepError(f"no reference energy of {', '.join(chemical_symbols[number] for number in unknown)} was given")
    starts = labels.counts.cumsum() - labels.counts
    norms = _lengths(labels.forces)
    force = np.maximum.reduceat(norms, starts)
    strained = labels.stress.is_valid().to_numpy(zero_copy_only=False)
    finite = np.isfinite(labels.energy) & np.isfinite(force)
    finite[strained] &= np.isfinite(labels.stress.drop_null().flatten().to_numpy().reshape(-1, 6)).all(axis=1)
    with np.errstate(invalid="ignore"):
        bound_energy = labels.energy - np.add.reduceat(references, starts)
    return Figures(
        finite=finite,
        norms=norms,
        force=force,
        deviation=None if labels.forces_std is None else np.maximum.reduceat(_lengths(labels.forces_std), starts),
        energy=bound_energy / labels.counts,
        distance=labels.distance,
    )


def _lengths(vectors: Floats) -> Floats:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.sqrt(np.einsum("ij,ij->i", vectors, vectors))


def broken(figures: Figures, bounds: Sanity, max_force_std: float | None = None) -> dict[int, dict[str, str]]:
    """Return the place of each structure that breaks a bound -> kind of the bound -> the reason with the numbers."""
    force, energy, distance = bounds.max_force_eV_per_A, bounds.max_energy_eV_per_atom, bounds.min_distance_A
    checks = [  # kind, structures that break it, their figures, the reason with a place for the figure
        (
            "force",
            figures.force > force,
            figures.force,
            f"a force of {{}} eV/Å, at most {force:g} (labels.max_force_eV_per_A)",
        ),
        (
            "energy",
            np.abs(figures.energy) > energy,
            figures.energy,
            f"an energy of {{}} eV/atom beyond the reference energies, at most {energy:g} either way"
            " (labels.max_energy_eV_per_atom)",
        ),
        (
            "distance",
            figures.distance < distance,
            figures.distance,
            f"atoms {{}} Å apart, at least {distance:g} (labels.min_distance_A)",
        ),
    ]
    if max_force_std is not None and (spread := figures.deviation) is not None:
        reason = f"force deviation {{}} eV/Å, at most {max_force_std:g} (teacher.max_force_std)"
        checks.append(("committee", spread > max_force_std, spread, f"the committee disagrees: {reason}"))
    found: dict[int, dict[str, str]] = {}
    for place in np.flatnonzero(~figures.finite).tolist():
        found[place] = {"not_finite": NOT_FINITE}
    for kind, wrong, values, text in checks:
        for place in np.flatnonzero(wrong & figures.finite).tolist():
            found.setdefault(place, {})[kind] = text.format(f"{values[place]:.6g}")
    return found


FORCE_EDGES = np.round(10.0 ** (np.arange(-50, 51) / 10), 12)  # eV/Å, ten bins a decade
ENERGY_EDGES = np.round(np.arange(-1500, 1501) / 10, 1)  # eV/atom


@dataclass
class Histogram:
    """Counts between fixed edges; values beyond them count in the outermost bin."""

    edges: Floats
    counts: Indices = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros(len(self.edges) - 1, dtype=np.int64)

    def add(self, values: Floats) -> None:
        """Count the finite ones."""
        finite = values[np.isfinite(values)]
        places = np.searchsorted(self.edges, finite, side="right") - 1
        self.counts += np.bincount(places.clip(0, len(self.counts) - 1), minlength=len(self.counts))

    def plain(self) -> dict[str, list[float]]:
        """Return `edges` and `counts` of the bins from the first to the last that has any."""
        filled = np.flatnonzero(self.counts)
        first, last = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, 0)
        edges = self.edges[first : last + 1].tolist() if len(filled) else []
        return {"edges": edges, "counts": self.counts[first:last].tolist()}


@dataclass
class Tally:
    """Counts and figures of the pool so far."""

    structures: int = 0
    atoms: int = 0
    labels: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    force: Histogram = field(default_factory=lambda: Histogram(FORCE_EDGES))
    energy: Histogram = field(default_factory=lambda: Histogram(ENERGY_EDGES))
    extremes: dict[str, float] = field(default_factory=dict)

    def count(self, structures: pa.Table, labels: int, kinds: Counter[str]) -> None:
        """Add structures, how many of them have a label, and how often each kind of rejection was met."""
        self.structures += structures.num_rows
        self.atoms += int(list_lengths(structures["numbers"]).sum())
        self.labels += labels
        self.kinds += kinds

    def measure(self, figures: Figures) -> None:
        """Add every label that was given, also those that a bound then set aside."""
        self.force.add(figures.norms)
        self.energy.add(figures.energy)
        for name, values, choose in (
            ("largest_force_eV_per_A", figures.force, max),
            ("shortest_distance_A", figures.distance, min),
            ("lowest_energy_eV_per_atom", figures.energy, min),
            ("highest_energy_eV_per_atom", figures.energy, max),
            ("largest_force_std_eV_per_A", figures.deviation, max),
        ):
            finite = [] if values is None else values[np.isfinite(values)].tolist()
            if finite:
                self.extremes[name] = choose([*finite, self.extremes.get(name, finite[0])])

    def metrics(self) -> dict[str, Any]:
        """Return the figures of the step's report; energies are without the reference energies."""
        return {
            "structures": self.structures,
            "labels": self.labels,
            "rejected": self.structures - self.labels,
            "atoms": self.atoms,
            "rejected_by": dict(sorted(self.kinds.items())),
            "force_histogram_eV_per_A": self.force.plain(),
            "energy_histogram_eV_per_atom": self.energy.plain(),
            **self.extremes,
        }
