"""The graph of a structure as plain arrays, and graphs joined as MACE's input. Imports torch and matscipy.

mace-torch's own `AtomicData` has some thirty tensors for each structure, of which a model reads ten; for small
structures that costs more than the neighbour list. Plain arrays also travel between processes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols
from matscipy.neighbours import neighbour_list
from numpy.typing import NDArray

from containers.arrays import Floats, Indices, Mask
from containers.mace.labelling.batches import GraphSize
from containers.mace.labelling.predictions import Unlabelled
from containers.structures.state import state_values
from containers.structures.table import STATE

MOST_BINS = 1e8
"""Bins of r_max in a cell. The neighbour list makes a grid of them: 1e8 need some 0.5 GB, a cell of 1e5 Å 7 GB."""
MEMORY_REFUSED = "Failed to allocate"  # matscipy's RuntimeError when memory ends


@dataclass(frozen=True)
class Graph:
    """A structure as MACE reads it. Edge e goes from atom edges[0, e] to the image of atom edges[1, e] that
    unit_shifts[e] cells away.
    """

    positions: Floats  # [N, 3] Å, the lowest at 0 in the directions that are not periodic
    species: Indices  # [N] place of the element in the model
    edges: NDArray[np.int32]  # [2, E]
    unit_shifts: NDArray[np.int32]  # [E, 3]
    cell: Floats  # [3, 3] Å; holds the atoms in the directions that are not periodic
    pbc: Mask  # [3]
    size: GraphSize
    shortest_A: float | None  # shortest edge
    state: Mapping[str, float]  # what else a model may read, where it is not at MACE's default; see `frame_state`


NO_MEMORY = Unlabelled("its neighbour list does not fit in memory")


@dataclass(frozen=True)
class Made:
    """Graphs of structures, or why there is none, and the seconds that took."""

    graphs: list[Graph | str]
    seconds: float


@dataclass(frozen=True)
class GraphMaker:
    """Maker of graphs for a model of cutoff `r_max` (Å) and of elements `numbers`, in the model's order."""

    r_max: float
    numbers: tuple[int, ...]

    def make(self, structures: Sequence[Atoms]) -> Made:
        """Make the graphs of `structures`."""
        started = time.monotonic()
        return Made([self.graph(atoms) for atoms in structures], time.monotonic() - started)

    def graph(self, atoms: Atoms) -> Graph | str:
        """Make the graph of one structure, or return why it has none."""
        if unknown := sorted({*atoms.numbers.tolist()} - {*self.numbers}):
            named = (", ".join(chemical_symbols[n] for n in numbers) for numbers in (unknown, sorted(self.numbers)))
            return "the teacher does not know {}; it knows {}".format(*named)
        if len(atoms) == 0:
            return "no atoms"
        if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
            return "positions or cell are not finite"
        if atoms.pbc.any() and np.linalg.matrix_rank(atoms.cell.array[atoms.pbc]) < atoms.pbc.sum():
            return "the cell vectors of the periodic directions do not span them"
        # Along a direction that is not periodic the cell just holds the atoms: mace-torch's own grows with their
        # distance from the origin, and its neighbour list takes gigabytes for a small molecule far away.
        wide = np.diag(np.ptp(atoms.positions, axis=0) + self.r_max)
        cell = np.where(atoms.pbc[:, None], atoms.cell.array, wide)
        lengths = np.linalg.norm(cell, axis=1)
        if np.prod(np.maximum(lengths / self.r_max, 1)) > MOST_BINS:
            return f"the cell is too large for a neighbour list ({lengths.max():.3g} Å)"
        try:
            return self._graph(atoms, cell)
        except (np.linalg.LinAlgError, ValueError) as error:
            return f"no neighbour list: {error}"
        except MemoryError:
            return NO_MEMORY
        except RuntimeError as error:
            if MEMORY_REFUSED not in str(error):
                raise
            return NO_MEMORY

    def _graph(self, atoms: Atoms, cell: Floats) -> Graph:
        pbc = atoms.pbc.copy()
        positions = atoms.positions - np.where(pbc, 0, atoms.positions.min(axis=0))  # float32 is finest near 0
        first, second, unit_shifts = neighbour_list("ijS", pbc=pbc, cell=cell, positions=positions, cutoff=self.r_max)
        others = (first != second) | unit_shifts.any(axis=1)  # an atom is no neighbour of itself
        edges, unit_shifts = np.stack((first, second))[:, others], unit_shifts[others]
        vectors = positions[edges[1]] - positions[edges[0]] + unit_shifts @ cell
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        return Graph(
            positions=positions,
            species=np.array([self.numbers.index(number) for number in atoms.numbers.tolist()]),
            edges=edges.astype(np.int32),
            unit_shifts=unit_shifts.astype(np.int32),
            cell=cell,
            pbc=pbc,
            size=GraphSize(int(np.bincount(edges[1], minlength=1).max()), edges.shape[1]),
            shortest_A=float(lengths.min()) if len(lengths) else None,
            state=state_values(atoms.info.get(STATE)),
        )


def joined(
    graphs: Sequence[Graph], elements: int, head: int, states: Mapping[str, Sequence[float]], dtype: str, device: str
) -> dict[str, torch.Tensor]:
    """Join graphs side by side as the dictionary that a MACE of so many `elements` takes, for its readout `head`.

    Args:
        states: what else the model reads, by MACE's name; a number for each graph.
    """
    counts = [len(graph.positions) for graph in graphs]
    starts = np.cumsum([0, *counts])
    shifts = [graph.unit_shifts @ graph.cell for graph in graphs]
    edges = [graph.edges.astype(np.int64) + start for graph, start in zip(graphs, starts, strict=False)]
    lengths = {
        "positions": np.concatenate([graph.positions for graph in graphs]),
        "node_attrs": np.eye(elements)[np.concatenate([graph.species for graph in graphs])],
        "unit_shifts": np.concatenate([graph.unit_shifts for graph in graphs]),
        "shifts": np.concatenate(shifts),
        "cell": np.concatenate([graph.cell for graph in graphs]),
        **{name: np.array(values) for name, values in states.items()},
    }
    places = {
        "edge_index": np.concatenate(edges, axis=1),
        "batch": np.repeat(np.arange(len(graphs)), counts),
        "ptr": starts,
        "head": np.full(len(graphs), head),
        "pbc": np.stack([graph.pbc for graph in graphs]),
    }
    arrays = {**{name: values.astype(dtype) for name, values in lengths.items()}, **places}
    return {name: torch.from_numpy(values).to(device) for name, values in arrays.items()}
