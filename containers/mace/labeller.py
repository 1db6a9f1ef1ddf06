"""Energies, forces and stresses of structures from a MACE model, in batches. Imports torch and mace."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.stress import full_3x3_to_voigt_6_stress
from mace import data
from mace.tools import AtomicNumberTable, torch_geometric, torch_tools
from numpy.typing import NDArray

from containers.contract import Progress
from containers.mace.answers import Answer, Label
from containers.mace.batches import Size, compute_in_batches, windows
from containers.mace.contraction import use_fast_contractions
from containers.mace.convolution import use_fast_convolutions
from containers.mace.model import describe, load_model, model_heads
from containers.mace.teacher_info import choose_head

BATCH_EDGES_PER_WINDOW_ATOM = 4  # a solid has some 25 edges for an atom: about six batches in a window
MOST_BINS = 1e8
"""Bins of r_max in a cell. The neighbour list makes a grid of them: 1e8 need some 0.5 GB, a cell of 1e5 Å 7 GB."""
MEMORY_REFUSED = ("DefaultCPUAllocator", "CUDA out of memory")
"""What a plain RuntimeError says when memory ended: on a CPU, and from TorchScript, of which a MACE has much, also on a
GPU (pytorch issue 148642)."""


@dataclass
class Labelled:
    """The answer for a run of structures: a label or a reason for each, and what it took."""

    answers: list[Answer]
    edges: int = 0
    seconds_neighbours: float = 0.0
    seconds_model: float = 0.0

    def add(self, more: Labelled) -> None:
        """Append the answers and sum the rest."""
        self.answers += more.answers
        self.edges += more.edges
        self.seconds_neighbours += more.seconds_neighbours
        self.seconds_model += more.seconds_model


@dataclass(frozen=True)
class Settings:
    """How to label. `threads` are torch's: on a CPU one is fastest, the tensors are small."""

    model: Path
    head: str
    dtype: str
    edges_per_batch: int
    device: str = "cpu"
    threads: int = 1


class Labeller:
    """A loaded teacher. `bound`, the edges of a batch, shrinks when memory ends and stays so.

    Raises:
        BadInput: not a MACE model, or it has no such head (MACE itself would take its last one).
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        torch.set_num_threads(settings.threads)
        torch.jit.set_fusion_strategy([])  # else the first calls differ from later ones in the last digit
        model = load_model(settings.model, settings.device)
        self.teacher = describe(model)
        self.model = model.double() if settings.dtype == "float64" else model.float()
        self.head = choose_head(self.teacher, settings.head)
        with torch_tools.default_dtype(settings.dtype):
            use_fast_convolutions(self.model)
            use_fast_contractions(self.model)
        self.dtype, self.device = settings.dtype, settings.device
        self.heads = model_heads(model)
        self.r_max = float(model.r_max)
        self.elements = AtomicNumberTable([int(number) for number in model.atomic_numbers])
        self.bound = settings.edges_per_batch

    def label(self, structures: Sequence[Atoms]) -> Labelled:
        """Label structures that fit in memory together as graphs (a window), in their order."""
        started = time.monotonic()
        graphs, reasons = self._graphs(structures)
        built = time.monotonic()
        sizes = {place: _size(graph) for place, graph in graphs.items()}
        labels, too_large, self.bound = compute_in_batches(
            sizes, self.bound, lambda batch: self._compute([graphs[place] for place in batch])
        )
        reasons |= {
            place: f"does not fit in memory alone ({sizes[place].edges} neighbour pairs)" for place in too_large
        }
        found: dict[int, Answer] = {**labels, **reasons}
        answers = [_checked(found[place], atoms) for place, atoms in enumerate(structures)]
        return Labelled(answers, sum(size.edges for size in sizes.values()), built - started, time.monotonic() - built)

    def _graphs(self, structures: Sequence[Atoms]) -> tuple[dict[int, data.AtomicData], dict[int, str]]:
        graphs: dict[int, data.AtomicData] = {}
        reasons: dict[int, str] = {}
        for place, atoms in enumerate(structures):
            if reason := _no_graph(atoms, self.r_max):
                reasons[place] = reason
                continue
            try:
                graphs[place] = self._graph(atoms)
            except (np.linalg.LinAlgError, ValueError, MemoryError) as error:
                reasons[place] = f"no neighbour list: {error}"
        return graphs, reasons

    def _graph(self, atoms: Atoms) -> data.AtomicData:
        bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)  # info could hold weights
        with torch_tools.default_dtype(self.dtype):
            config = data.config_from_atoms(bare, head_name=self.head)
            return data.AtomicData.from_config(config, z_table=self.elements, cutoff=self.r_max, heads=self.heads)

    def _compute(self, graphs: list[data.AtomicData]) -> list[Label]:
        """Labels of one batch. The displacement that MACE differentiates for the stress spoils the forces of a
        whole batch when one structure's virial is not a number, so such a batch is done again one by one.
        """
        labels = self._forward(graphs)
        if len(graphs) > 1 and not all(label.finite for label in labels):
            return [self._forward([graph])[0] for graph in graphs]
        return labels

    def _forward(self, graphs: list[data.AtomicData]) -> list[Label]:
        with torch_tools.default_dtype(self.dtype), _memory_errors():
            batch = torch_geometric.Batch.from_data_list(graphs).to(self.device)
            result = self.model(batch.to_dict(), compute_stress=True)
        energies, forces, virials = (
            result[key].detach().cpu().numpy().astype(float) for key in ("energy", "forces", "virials")
        )
        pieces = np.split(forces, batch.ptr.cpu().numpy()[1:-1])
        return [
            Label(float(energy), piece, _stress(virial, graph))
            for energy, piece, virial, graph in zip(energies, pieces, virials, graphs, strict=True)
        ]


def _size(graph: data.AtomicData) -> Size:
    receivers = graph.edge_index[1]
    return Size(int(torch.bincount(receivers, minlength=1).max()), len(receivers))


def _stress(virial: NDArray[np.float64], graph: data.AtomicData) -> NDArray[np.float64] | None:
    """Stress [6] from the virial, not MACE's own stress: that becomes zero silently when it is not finite."""
    if not bool(graph.pbc.all()):
        return None
    volume = abs(np.linalg.det(graph.cell.numpy().astype(float)))
    return np.asarray(full_3x3_to_voigt_6_stress(-virial / volume))


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Torch's ways to say that memory ended, as `MemoryError`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from error
    except RuntimeError as error:
        if not any(words in str(error) for words in MEMORY_REFUSED):
            raise
        raise MemoryError(str(error)) from error


def _no_graph(atoms: Atoms, r_max: float) -> str | None:
    """Why MACE cannot make a true graph of this structure, or None."""
    if len(atoms) == 0:
        return "no atoms"
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        return "positions or cell are not finite"
    if atoms.pbc.any() and np.linalg.matrix_rank(atoms.cell.array[atoms.pbc]) < atoms.pbc.sum():
        return "the cell vectors of the periodic directions do not span them"
    if np.prod(atoms.cell.lengths()[atoms.pbc] / r_max) > MOST_BINS:
        return f"the cell is too large for a neighbour list ({atoms.cell.lengths().max():.3g} Å)"
    return None


def _checked(answer: Answer, atoms: Atoms) -> Answer:
    if isinstance(answer, str) or answer.finite:
        return answer
    distances = atoms.get_all_distances(mic=bool(atoms.pbc.any()))[np.triu_indices(len(atoms), 1)]
    closest = f"; its closest atoms are {distances.min():.3f} Å apart" if distances.size else ""
    return f"the teacher's label is not finite (energy {answer.energy}){closest}"


def label_structures(labeller: Labeller, structures: Sequence[Atoms], progress: Progress) -> tuple[Labelled, float]:
    """Label all, window by window; returns the answers in order and the wall-clock seconds."""
    total = Labelled([])
    started = time.monotonic()
    limit = max(labeller.settings.edges_per_batch // BATCH_EDGES_PER_WINDOW_ATOM, 1)
    for window in windows([len(atoms) for atoms in structures], limit):
        total.add(labeller.label([structures[place] for place in window]))
        progress(len(total.answers), len(structures), f"{len(total.answers)} of {len(structures)} structures labelled")
    return total, time.monotonic() - started
