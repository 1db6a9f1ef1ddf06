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
from mace.modules import MACE, ScaleShiftMACE
from mace.tools import AtomicNumberTable, torch_geometric, torch_tools

from containers.contract import Acceleration, Device
from containers.labels.rows import NOT_FINITE
from containers.mace.kernels.contraction import use_fast_contractions
from containers.mace.kernels.convolution import use_fast_convolutions
from containers.mace.labelling.batches import compute_in_batches, kept
from containers.mace.labelling.graphs import Graph, GraphMaker, Made, joined
from containers.mace.labelling.predictions import Answer, Label, Predictions, Unlabelled
from containers.mace.teacher.description import choose_head
from containers.mace.teacher.model import check_device, describe, load_model, model_heads, reference_energies

MEMORY_REFUSED = ("DefaultCPUAllocator", "CUDA out of memory")
"""Words of a plain RuntimeError when memory ended: on a CPU, and also on a GPU from TorchScript, which a MACE has much
of (pytorch issue 148642)."""
RESULTS = ("energy", "interaction_energy", "contributions", "node_energy", "forces", "virials")
"""Results of a model that are read; `interaction_energy` and `contributions` are there for some classes only."""


@dataclass(frozen=True)
class LabelSettings:
    """Settings of a labeller. torch always has one thread: its tensors are small, and more threads are slower."""

    model: Path
    head: str
    dtype: str
    edges_per_batch: int
    device: Device = "cpu"
    acceleration: Acceleration = "none"


class Labeller:
    """A teacher. `bound`, the edges of a batch, shrinks when memory ends and stays so.

    It is opened in two steps, so that processes can be forked in between: on a GPU before torch touches it.

    Raises:
        BadInput: not a MACE model, or it has no such head (MACE itself would take its last one).
        StepError: the device is cuda and torch sees none.
    """

    def __init__(self, settings: LabelSettings) -> None:
        check_device(settings.device)
        torch.set_num_threads(1)
        model = load_model(settings.model)
        self.settings = settings
        self.teacher = describe(model)
        self.head = choose_head(self.teacher, settings.head)
        self.heads = model_heads(model)
        self.numbers = tuple(int(number) for number in model.atomic_numbers)
        self.maker = GraphMaker(float(model.r_max), self.numbers)
        self.e0s_eV = reference_energies(model)[self.heads.index(self.head)]
        self.bound = settings.edges_per_batch
        self.plain_class = type(model) in (MACE, ScaleShiftMACE)
        self._plain = model
        self._model: torch.nn.Module | None = None

    def prepare(self) -> torch.nn.Module:
        """Return the model as it computes, on its device; made at the first call."""
        if self._model is not None:
            return self._model
        wanted, plain = self.settings, self._plain
        if wanted.device != "cpu":
            plain = load_model(wanted.model, wanted.device)  # anew: `to` forgets tensors that are no buffers
        plain.atomic_energies_fn.atomic_energies.zero_()  # added in float64 afterwards: they may be 1e5 times the rest
        if wanted.acceleration != "none":
            from containers.mace.kernels.acceleration import accelerated

            model = accelerated(plain, wanted.acceleration, wanted.dtype, wanted.device)
        else:
            model = plain.double() if wanted.dtype == "float64" else plain.float()
            with torch_tools.default_dtype(wanted.dtype):
                use_fast_convolutions(model)
                use_fast_contractions(model)
        self._model = model
        return model

    def label(self, structures: Sequence[Atoms]) -> Predictions:
        """Label structures that fit in memory together as graphs (a window), in their order."""
        return self.label_graphs(self.maker.make(structures))

    def label_graphs(self, made: Made) -> Predictions:
        """Label a window whose graphs are made."""
        self.prepare()
        started = time.monotonic()
        graphs = {place: graph for place, graph in enumerate(made.graphs) if isinstance(graph, Graph)}
        labels, too_large, bound = compute_in_batches(
            {place: graph.size for place, graph in graphs.items()},
            self.bound,
            lambda batch: self.compute([graphs[place] for place in batch]),
        )
        self.bound = kept(bound, self.bound)
        answers: list[Answer] = []
        for place, graph in enumerate(made.graphs):
            if not isinstance(graph, Graph):
                answers.append(graph)
            elif place in too_large:
                answers.append(Unlabelled(f"does not fit in memory alone ({graph.size.edges} neighbour pairs)"))
            elif (label := labels[place]).finite:
                answers.append(label)
            else:
                closest = "" if graph.shortest_A is None else f"; its closest atoms are {graph.shortest_A:.3f} Å apart"
                answers.append(f"{NOT_FINITE} (energy {label.energy}){closest}")
        return Predictions(
            answers=answers,
            edges=[graph.size.edges if isinstance(graph, Graph) else None for graph in made.graphs],
            shortest_A=[graph.shortest_A if isinstance(graph, Graph) else None for graph in made.graphs],
            bound=self.bound,
            seconds_neighbours=made.seconds,
            seconds_model=time.monotonic() - started,
        )

    def compute(self, graphs: Sequence[Graph]) -> list[Label]:
        """Compute the labels of one batch.

        The displacement that MACE differentiates for the stress spoils the forces of a whole batch when one structure's
        virial is not a number, so such a batch is done again one by one.
        """
        labels = self._forward(graphs)
        if len(graphs) > 1 and not all(label.finite for label in labels):
            return [self._forward([graph])[0] for graph in graphs]
        return labels

    def _forward(self, graphs: Sequence[Graph]) -> list[Label]:
        model = self.prepare()
        with torch_tools.default_dtype(self.settings.dtype), _memory_errors():
            result = model(self._batch(graphs), compute_stress=True)
            found = {
                name: np.asarray(result[name].detach().cpu().numpy(), dtype=float)
                for name in RESULTS
                if result.get(name) is not None
            }
        cuts = np.cumsum([len(graph.positions) for graph in graphs])[:-1]
        forces, atoms = (np.split(found[name], cuts) for name in ("forces", "node_energy"))
        energies = found["energy"]
        if self.plain_class:  # a MACE without E0s leaves the embedding's readout out of its atoms' energies
            scaled = "interaction_energy" in found  # a ScaleShiftMACE
            beyond = energies - found["interaction_energy"] if scaled else found["contributions"][:, 0]
            energies = np.array([piece.sum() for piece in atoms]) + beyond
        labels = []
        for energy, piece, virial, graph in zip(energies, forces, found["virials"], graphs, strict=True):
            stress = None
            if graph.pbc.all():  # not MACE's own stress: that becomes zero silently when it is not finite
                volume = abs(np.linalg.det(graph.cell))
                stress = np.asarray(full_3x3_to_voigt_6_stress(-virial / volume))
            labels.append(Label(float(energy + self.e0s_eV[graph.species].sum()), piece, stress))
        return labels

    def _batch(self, graphs: Sequence[Graph]) -> dict[str, torch.Tensor]:
        wanted, reads = self.settings, self.teacher.reads
        if self.plain_class:
            states = {
                name: [one.value(name, graph.state, "a structure to label") for graph in graphs]
                for name, one in reads.items()
            }
            head = self.heads.index(self.head)
            return joined(graphs, len(self.numbers), head, states, wanted.dtype, wanted.device)
        numbers, table = np.array(self.numbers), AtomicNumberTable(list(self.numbers))
        atomic_data = []  # mace-torch's own graphs, for classes that read more of them than a plain MACE does
        for graph in graphs:
            atoms = Atoms(numbers[graph.species], graph.positions, cell=graph.cell, pbc=graph.pbc)
            config = data.config_from_atoms(atoms, head_name=self.head)
            config.properties |= {name: graph.state[name] for name in reads if name in graph.state}
            atomic_data.append(
                data.AtomicData.from_config(config, z_table=table, cutoff=self.maker.r_max, heads=self.heads)
            )
        return torch_geometric.Batch.from_data_list(atomic_data).to(wanted.device).to_dict()


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Raise torch's errors about memory that ended as `MemoryError`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(str(error)) from error
    except RuntimeError as error:
        if not any(words in str(error) for words in MEMORY_REFUSED):
            raise
        raise MemoryError(str(error)) from error
