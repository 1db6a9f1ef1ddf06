"""A whole shard through the teacher: windows of structures shared out to processes. Imports torch and mace."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import torch
from ase import Atoms

from containers.contract import Progress, StepError, no_progress
from containers.mace.labelling.batches import (
    DEFAULT_BOUND,
    FEWEST_BATCHES,
    HIGHEST_BOUND_CPU,
    HIGHEST_BOUND_GPU,
    SAMPLE_EDGES,
    SHARD_SAMPLES,
    Calibration,
    calibrate,
    densest_first,
    evenly,
    filled,
    planned,
)
from containers.mace.labelling.graphs import Graph, Made
from containers.mace.labelling.labeller import Labeller, Settings
from containers.mace.labelling.predictions import Labelled, SetAside
from containers.mace.labelling.workers import Crew, Killed, Window, in_a_process

FIRST_LOOK = 32  # structures whose edges tell how many make a sample


@dataclass(frozen=True)
class Probed:
    """What was found out before the labelling: differences of the accelerated teacher, speed against bound."""

    parity: dict[str, float] = field(default_factory=dict)
    calibration: Calibration = field(default_factory=Calibration)


@dataclass(frozen=True)
class Shard:
    """A labelled shard: the answers, and the wall-clock seconds of the labelling itself, without what went before."""

    labelled: Labelled
    probed: Probed
    bound: int  # edges of a batch, as given or found out: what a shard ends with says little of the machine
    processes: int  # forked, or this one
    model_processes: int  # of them computed
    seconds: float


def label_shard(
    settings: Settings,
    structures: Sequence[Atoms],
    processes: int = 1,
    calibrated: bool = True,
    graphs_ahead: bool | None = None,
    progress: Progress = no_progress,
) -> Shard:
    """Label `structures` with so many `processes` of one thread.

    Args:
        settings: how; its `edges_per_batch` is replaced by what is found out unless `calibrated`.
        processes: forked ones that label or, with `graphs_ahead`, that make graphs for this one; 0: it does all. See
            `processes_for`.
        calibrated: whether the bound is known already.
        graphs_ahead: this process computes, others make the graphs meanwhile; None: on a GPU.
    """
    labeller = Labeller(settings)
    ahead = settings.device != "cpu" if graphs_ahead is None else graphs_ahead
    with ExitStack() as stack:
        makers: Crew[Made] | None = None
        if ahead and processes:  # forked before torch touches the GPU
            makers = stack.enter_context(Crew(lambda places, _: _made(labeller, structures, places), processes))
        probed = probe(labeller, structures, not calibrated, apart=processes > 0 and makers is None)
        if not calibrated:
            labeller.bound = probed.calibration.best
        bound = labeller.bound
        started = time.monotonic()
        labelled = label_all(labeller, structures, processes, makers, progress)
    done = time.monotonic()
    workers = max(processes, 1)
    return Shard(labelled, probed, bound, workers, 1 if makers else workers, done - started)


def label_all(
    labeller: Labeller,
    structures: Sequence[Atoms],
    processes: int = 0,
    makers: Crew[Made] | None = None,
    progress: Progress = no_progress,
) -> Labelled:
    """The answers to `structures` in their order.

    Labels depend on the structures and the labeller's bound, not on who computes them.

    Args:
        labeller: the teacher, prepared or not.
        structures: any number.
        processes: forked to share the work; 0: this one does it.
        makers: processes that make the graphs while this one computes.
        progress: told after each window.
    """
    windows = [Window(places) for places in planned(structures, labeller.bound)]
    total = Labelled.empty(len(structures), labeller.bound)
    done, atoms = 0, 0
    for window, found in _found(labeller, structures, windows, processes, makers):
        total.put(window.places, found)
        done += len(window.places)
        atoms += sum(len(structures[place]) for place in window.places)
        progress(done, len(structures), f"{done} structures, {atoms} atoms")
    return total


def _found(
    labeller: Labeller,
    structures: Sequence[Atoms],
    windows: list[Window],
    processes: int,
    makers: Crew[Made] | None,
) -> Iterator[tuple[Window, Labelled]]:
    if makers:
        for window, made in makers.results(windows):
            yield window, _unlabelled(made, labeller.bound) if isinstance(made, Killed) else labeller.label_graphs(made)
    elif processes and windows:

        def work(places: Sequence[int], bound: int) -> Labelled:
            labeller.bound = bound
            return labeller.label([structures[place] for place in places])

        with Crew(work, min(processes, len(windows)), labeller.bound) as crew:
            for window, found in crew.results(windows):
                answer = _unlabelled(found, crew.bound) if isinstance(found, Killed) else found
                if window.bound is None:
                    crew.bound = min(crew.bound, answer.bound)
                yield window, replace(answer, bound=crew.bound)
    else:
        for window in windows:
            yield window, labeller.label([structures[place] for place in window.places])


def _unlabelled(killed: Killed, bound: int) -> Labelled:
    return Labelled([SetAside(str(killed))], [None], [None], bound)


def _made(labeller: Labeller, structures: Sequence[Atoms], places: Sequence[int]) -> Made:
    return labeller.maker.make([structures[place] for place in places])


def probe(labeller: Labeller, structures: Sequence[Atoms], calibrating: bool, apart: bool) -> Probed:
    """What must be known first: whether the acceleration is admitted, and the best bound if `calibrating`.

    With `apart`, what could end memory or start threads is done in a process of its own, and memory that ends while
    calibrating costs the calibration alone. Where it can be, the model is made ready here, to be inherited by those
    forked later.

    Raises:
        StepError: the process that compared the labels was killed.
    """

    def find_out(calibrating: bool) -> Probed:
        parity = _parity(labeller, structures)
        labeller.prepare()
        return Probed(parity, _calibration(labeller, structures) if calibrating else Calibration())

    threads = _starts_threads(labeller.settings)
    if not threads:
        labeller.prepare()
    if not apart or not (threads or calibrating):
        return find_out(calibrating)
    found = in_a_process(lambda: find_out(calibrating))
    if isinstance(found, Killed) and calibrating:
        print(f"labelling goes on without calibration: {found}", file=sys.stderr)
        found = in_a_process(lambda: find_out(False))
    if isinstance(found, Killed):
        raise StepError(f"probing the teacher failed: {found}")
    return found


def _starts_threads(settings: Settings) -> bool:
    """Whether a model that computes starts threads, after which its process must not be forked: the compiler of
    torch.compile does, and the gradients of a torch that may see a GPU.
    """
    return settings.acceleration != "none" or torch.backends.cuda.is_built()


def _parity(labeller: Labeller, structures: Sequence[Atoms]) -> dict[str, float]:
    if labeller.settings.acceleration == "none" or not structures:
        return {}
    from containers.mace.labelling.parity import check_parity, probe_structures

    reference = Labeller(replace(labeller.settings, dtype="float64", acceleration="none"))
    return check_parity(reference, labeller, probe_structures(structures))


def _calibration(labeller: Labeller, structures: Sequence[Atoms]) -> Calibration:
    """With graphs of SAMPLE_EDGES edges from all densities, none larger than a batch to be tried; nothing is tried when
    the shard is small.
    """
    order = densest_first(structures).tolist()
    first = _graphs(labeller, structures, evenly(order, FIRST_LOOK))
    total = int(_mean_cost(first) * len(structures))
    if total < SHARD_SAMPLES * SAMPLE_EDGES:
        return Calibration()
    limit = HIGHEST_BOUND_CPU if labeller.settings.device == "cpu" else HIGHEST_BOUND_GPU
    highest = min(limit, max(total // FEWEST_BATCHES, DEFAULT_BOUND))
    if not (usual := _at_most(highest, first)):
        return Calibration()
    places = evenly(order, int(SAMPLE_EDGES / _mean_cost(usual)) + 1)
    sample = _at_most(highest, _graphs(labeller, structures, places)) or usual
    try:
        return calibrate(_speed(labeller, sample), highest, time.monotonic)
    except MemoryError:  # not even one structure
        return Calibration()


def _mean_cost(graphs: Sequence[Graph]) -> float:
    return sum(graph.size.cost for graph in graphs) / max(len(graphs), 1)


def _at_most(edges: int, graphs: Sequence[Graph]) -> list[Graph]:
    return [graph for graph in graphs if graph.size.cost <= edges]


def _graphs(labeller: Labeller, structures: Sequence[Atoms], places: Sequence[int]) -> list[Graph]:
    return [graph for graph in _made(labeller, structures, places).graphs if isinstance(graph, Graph)]


def _speed(labeller: Labeller, graphs: list[Graph]) -> Callable[[int], float]:
    """Edges per second with batches of a bound."""
    costs = [graph.size.cost for graph in graphs]
    labeller.compute(graphs[:1])  # torch compiles what it compiles

    def speed(bound: int) -> float:
        groups = filled(costs, bound)
        started = time.monotonic()
        for group in groups:
            labeller.compute([graphs[place] for place in group])
        return sum(costs[place] for group in groups for place in group) / (time.monotonic() - started)

    return speed
