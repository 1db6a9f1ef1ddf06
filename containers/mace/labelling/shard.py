"""A whole shard through the teacher: windows of structures shared out to processes. Imports torch and mace."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

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
    BatchCalibration,
    calibrate,
    densest_first,
    evenly,
    filled,
    planned,
)
from containers.mace.labelling.graphs import Graph, Made
from containers.mace.labelling.labeller import Labeller, LabelSettings
from containers.mace.labelling.predictions import Predictions, Unlabelled
from containers.mace.labelling.workers import Crew, Window, WorkerKilled, in_a_process

Probed = tuple[dict[str, float], BatchCalibration]
FIRST_LOOK = 32  # structures whose edges give how many make a sample


@dataclass(frozen=True)
class LabelledShard:
    """Answers of a shard, and the wall-clock seconds of the labelling itself, without the probe before it."""

    labelled: Predictions
    parity: dict[str, float]  # differences of the accelerated teacher, see `check_parity`
    calibration: BatchCalibration
    bound: int  # edges of a batch at the start; later it may shrink when memory ends
    processes: int  # forked, or this one
    model_processes: int  # of them computed
    seconds: float


def label_shard(
    settings: LabelSettings,
    structures: Sequence[Atoms],
    processes: int = 1,
    calibrated: bool = True,
    graphs_ahead: bool | None = None,
    progress: Progress = no_progress,
) -> LabelledShard:
    """Label `structures` with so many `processes` of one thread.

    Args:
        settings: how; its `edges_per_batch` is replaced by what is found out unless `calibrated`.
        processes: forked ones that label or, with `graphs_ahead`, that make graphs for this one; 0: it does all. See
            `processes_for`.
        calibrated: True if the bound is known already.
        graphs_ahead: this process computes, others make the graphs meanwhile; None: on a GPU.
    """
    labeller = Labeller(settings)
    ahead = settings.device != "cpu" if graphs_ahead is None else graphs_ahead
    with ExitStack() as stack:
        makers: Crew[Made] | None = None
        if ahead and processes:  # forked before torch touches the GPU
            makers = stack.enter_context(Crew(lambda places, _: _make(labeller, structures, places), processes))
        parity, calibration = probe(labeller, structures, not calibrated, apart=processes > 0 and makers is None)
        if not calibrated:
            labeller.bound = calibration.best
        bound = labeller.bound
        started = time.monotonic()
        labelled = label_all(labeller, structures, processes, makers, progress)
    done = time.monotonic()
    workers = max(processes, 1)
    return LabelledShard(labelled, parity, calibration, bound, workers, 1 if makers else workers, done - started)


def label_all(
    labeller: Labeller,
    structures: Sequence[Atoms],
    processes: int = 0,
    makers: Crew[Made] | None = None,
    progress: Progress = no_progress,
) -> Predictions:
    """Return the answers to `structures` in their order.

    Labels depend on the structures and the labeller's bound, not on who computes them.

    Args:
        labeller: the teacher, prepared or not.
        structures: any number.
        processes: forked to share the work; 0: this one does it.
        makers: processes that make the graphs while this one computes.
        progress: called after each window.
    """
    windows = [Window(places) for places in planned(structures, labeller.bound)]
    total = Predictions.empty(len(structures), labeller.bound)
    done, atoms = 0, 0
    for window, found in _label_windows(labeller, structures, windows, processes, makers):
        total.put(window.places, found)
        done += len(window.places)
        atoms += sum(len(structures[place]) for place in window.places)
        progress(done, len(structures), f"{done} structures, {atoms} atoms")
    return total


def _label_windows(
    labeller: Labeller,
    structures: Sequence[Atoms],
    windows: list[Window],
    processes: int,
    makers: Crew[Made] | None,
) -> Iterator[tuple[Window, Predictions]]:
    def set_aside(killed: WorkerKilled) -> Predictions:
        return Predictions([Unlabelled(str(killed))], [None], [None], labeller.bound)

    if makers:
        for window, made in makers.results(windows):
            yield window, set_aside(made) if isinstance(made, WorkerKilled) else labeller.label_graphs(made)
    elif processes and windows:

        def work(places: Sequence[int], bound: int) -> Predictions:
            labeller.bound = bound
            return labeller.label([structures[place] for place in places])

        with Crew(work, min(processes, len(windows)), labeller.bound) as crew:
            for window, found in crew.results(windows):
                answer = set_aside(found) if isinstance(found, WorkerKilled) else found
                if window.bound is None:
                    crew.bound = min(crew.bound, answer.bound)
                yield window, replace(answer, bound=crew.bound)
    else:
        for window in windows:
            yield window, labeller.label([structures[place] for place in window.places])


def _make(labeller: Labeller, structures: Sequence[Atoms], places: Sequence[int]) -> Made:
    return labeller.maker.make([structures[place] for place in places])


def probe(labeller: Labeller, structures: Sequence[Atoms], calibrating: bool, apart: bool) -> Probed:
    """Check that the acceleration is admitted (parity), and find the best bound if `calibrating`.

    With `apart`, work that could end memory or start threads is done in a process of its own, and memory that ends
    while calibrating costs the calibration alone. Where it can be, the model is made ready here, to be inherited by
    those forked later.

    Raises:
        StepError: the process that compared the labels was killed.
    """
    settings = labeller.settings

    def find_out(calibrating: bool) -> Probed:
        parity: dict[str, float] = {}
        if settings.acceleration != "none" and structures:
            from containers.mace.labelling.parity import check_parity, probe_structures

            reference = Labeller(replace(settings, dtype="float64", acceleration="none"))
            parity = check_parity(reference, labeller, probe_structures(structures))
        labeller.prepare()
        return parity, _calibration(labeller, structures) if calibrating else BatchCalibration()

    # The compiler of torch.compile starts threads, and so do the gradients of a torch that may see a GPU. A process
    # that has threads must not be forked.
    threads = settings.acceleration != "none" or torch.backends.cuda.is_built()
    if not threads:
        labeller.prepare()
    if not apart or not (threads or calibrating):
        return find_out(calibrating)
    found = in_a_process(lambda: find_out(calibrating))
    if isinstance(found, WorkerKilled) and calibrating:
        print(f"labelling continues without calibration: {found}", file=sys.stderr)
        found = in_a_process(lambda: find_out(False))
    if isinstance(found, WorkerKilled):
        raise StepError(f"probing the teacher failed: {found}")
    return found


def _calibration(labeller: Labeller, structures: Sequence[Atoms]) -> BatchCalibration:
    """Try bounds with graphs of SAMPLE_EDGES edges from all densities, none larger than a batch to be tried.

    Nothing is tried when the shard is small.
    """

    def graphs(places: Sequence[int]) -> list[Graph]:
        return [graph for graph in _make(labeller, structures, places).graphs if isinstance(graph, Graph)]

    def mean_cost(graphs: Sequence[Graph]) -> float:
        return sum(graph.size.cost for graph in graphs) / max(len(graphs), 1)

    order = densest_first(structures).tolist()
    first = graphs(evenly(order, FIRST_LOOK))
    total = int(mean_cost(first) * len(structures))
    if total < SHARD_SAMPLES * SAMPLE_EDGES:
        return BatchCalibration()
    limit = HIGHEST_BOUND_CPU if labeller.settings.device == "cpu" else HIGHEST_BOUND_GPU
    highest = min(limit, max(total // FEWEST_BATCHES, DEFAULT_BOUND))
    if not (usual := [graph for graph in first if graph.size.cost <= highest]):
        return BatchCalibration()
    places = evenly(order, int(SAMPLE_EDGES / mean_cost(usual)) + 1)
    sample = [graph for graph in graphs(places) if graph.size.cost <= highest] or usual
    try:
        return calibrate(_speed(labeller, sample), highest, time.monotonic)
    except MemoryError:  # not even one structure
        return BatchCalibration()


def _speed(labeller: Labeller, graphs: list[Graph]) -> Callable[[int], float]:
    """Return a function: edges per second with batches of a bound."""
    costs = [graph.size.cost for graph in graphs]
    labeller.compute(graphs[:1])  # torch compiles what it compiles

    def speed(bound: int) -> float:
        groups = filled(costs, bound)
        started = time.monotonic()
        for group in groups:
            labeller.compute([graphs[place] for place in group])
        return sum(costs[place] for group in groups for place in group) / (time.monotonic() - started)

    return speed
