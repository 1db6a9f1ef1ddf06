"""Counts and histograms of a pool's labels, added up batch by batch."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from containers.committee import Floats
from containers.sanity import Figures
from containers.structures import list_lengths

FORCE_EDGES = np.round(10.0 ** (np.arange(-50, 51) / 10), 12)  # eV/Å, ten bins a decade
ENERGY_EDGES = np.round(np.arange(-1500, 1501) / 10, 1)  # eV/atom


@dataclass
class Histogram:
    """Counts between fixed edges; what lies beyond them counts in the outermost bin."""

    edges: Floats
    counts: NDArray[np.int64] = field(init=False)

    def __post_init__(self) -> None:
        self.counts = np.zeros(len(self.edges) - 1, dtype=np.int64)

    def add(self, values: Floats) -> None:
        """Count the finite ones."""
        finite = values[np.isfinite(values)]
        places = np.searchsorted(self.edges, finite, side="right") - 1
        self.counts += np.bincount(places.clip(0, len(self.counts) - 1), minlength=len(self.counts))

    def plain(self) -> dict[str, list[float]]:
        """`edges` and `counts` of the bins from the first to the last that has any."""
        filled = np.flatnonzero(self.counts)
        first, last = (int(filled[0]), int(filled[-1]) + 1) if len(filled) else (0, 0)
        edges = self.edges[first : last + 1].tolist() if len(filled) else []
        return {"edges": edges, "counts": self.counts[first:last].tolist()}


@dataclass
class Tally:
    """What is known of the pool so far."""

    structures: int = 0
    atoms: int = 0
    labels: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    force: Histogram = field(default_factory=lambda: Histogram(FORCE_EDGES))
    energy: Histogram = field(default_factory=lambda: Histogram(ENERGY_EDGES))
    largest: dict[str, float] = field(default_factory=dict)

    def count(self, structures: pa.Table, labels: int, kinds: Counter[str]) -> None:
        """Add structures, how many of them have a label, and how often each kind of rejection was met."""
        self.structures += structures.num_rows
        self.atoms += int(list_lengths(structures["numbers"]).sum())
        self.labels += labels
        self.kinds += kinds

    def measure(self, figures: Figures) -> None:
        """Every label that was given, also those that a bound then set aside."""
        self.force.add(figures.norms)
        self.energy.add(figures.energy)
        self._extend("largest_force_eV_per_A", figures.force, max)
        self._extend("shortest_distance_A", figures.distance, min)
        self._extend("lowest_energy_eV_per_atom", figures.energy, min)
        self._extend("highest_energy_eV_per_atom", figures.energy, max)
        if figures.deviation is not None:
            self._extend("largest_force_std_eV_per_A", figures.deviation, max)

    def _extend(self, name: str, values: Floats, choose: Any) -> None:
        finite = values[np.isfinite(values)].tolist()
        known = [self.largest[name]] if name in self.largest else []
        if finite or known:
            self.largest[name] = choose([*finite, *known])

    def metrics(self) -> dict[str, Any]:
        """The figures of the step's report; energies are without the reference energies."""
        return {
            "structures": self.structures,
            "labels": self.labels,
            "rejected": self.structures - self.labels,
            "atoms": self.atoms,
            "rejected_by": dict(sorted(self.kinds.items())),
            "force_histogram_eV_per_A": self.force.plain(),
            "energy_histogram_eV_per_atom": self.energy.plain(),
            **self.largest,
        }
