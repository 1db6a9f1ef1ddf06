"""Who labels in `labelling.py`: each in processes of its own, because torch's threads are set once for a process.

A contestant answers with the wall-clock seconds of its computation: neighbour lists, model and gathering. Starting,
importing, loading the model and reading and writing files are not in them.
"""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal
from unittest.mock import patch

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

Dtype = Literal["float32", "float64"]
Labels = list[tuple[float, NDArray[np.float64]]]
"""Energy (eV) and forces (eV/Å) of each structure."""
Work = Callable[[Sequence[Atoms], int], tuple[float, Labels]]
"""Structures and a batch size to seconds and labels."""


@dataclass(frozen=True)
class Contestant:
    """One way of labelling; `threads` None leaves torch its default."""

    kind: Literal["ours", "ase", "eval"]
    model: Path
    head: str
    dtype: Dtype
    processes: int = 1
    threads: int | None = None


class Arena:
    """The running processes of a contestant."""

    def __init__(self, contestant: Contestant) -> None:
        spawn = multiprocessing.get_context("spawn")
        pipes = [spawn.Pipe() for _ in range(contestant.processes)]
        self.processes = [spawn.Process(target=_serve, args=(theirs, contestant)) for _, theirs in pipes]
        self.ours = [mine for mine, _ in pipes]
        with _omp_threads(contestant.threads):
            for process in self.processes:
                process.start()
        for _, theirs in pipes:
            theirs.close()

    def seconds(self, structures: Sequence[Atoms], batch_size: int = 0) -> float:
        """Of the slowest process, each with its part of the structures."""
        return max(seconds for seconds, _ in self._ask(structures, batch_size))

    def labels(self, structures: Sequence[Atoms]) -> Labels:
        """Of a contestant of one process."""
        ((_, labels),) = self._ask(structures, 0)
        return labels

    def _ask(self, structures: Sequence[Atoms], batch_size: int) -> list[tuple[float, Labels]]:
        for part, connection in enumerate(self.ours):
            connection.send((list(structures[part :: len(self.ours)]), batch_size))
        return [connection.recv() for connection in self.ours]

    def close(self) -> None:
        """End the processes."""
        for connection in self.ours:
            connection.close()
        for process in self.processes:
            process.join()


@contextmanager
def arena(contestant: Contestant) -> Iterator[Arena]:
    """A running contestant, ended with the block."""
    running = Arena(contestant)
    try:
        yield running
    finally:
        running.close()


@contextmanager
def _omp_threads(threads: int | None) -> Iterator[None]:
    kept = os.environ.pop("OMP_NUM_THREADS", None)
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        yield
    finally:
        os.environ.pop("OMP_NUM_THREADS", None)
        if kept is not None:
            os.environ["OMP_NUM_THREADS"] = kept


def _serve(connection: Connection, contestant: Contestant) -> None:
    logging.disable(logging.WARNING)  # mace-torch tells of its conversions; figures only
    work = {"ours": ours, "ase": ase_loop, "eval": eval_configs}[contestant.kind](contestant)
    while True:
        try:
            structures, batch_size = connection.recv()
        except EOFError:
            return
        connection.send(work(structures, batch_size))


def ours(contestant: Contestant) -> Work:
    """The step's own way: `threads` forked processes of one thread, the bound of edges found out each time.

    It loads the model anew at each call; its seconds are those that the step itself tells of the labelling.
    """
    from containers.mace.labelling.batches import DEFAULT_BOUND
    from containers.mace.labelling.labeller import LabelSettings
    from containers.mace.labelling.predictions import Label
    from containers.mace.labelling.shard import label_shard

    settings = LabelSettings(contestant.model, contestant.head, contestant.dtype, DEFAULT_BOUND)

    def work(structures: Sequence[Atoms], batch_size: int) -> tuple[float, Labels]:
        shard = label_shard(settings, structures, contestant.threads or 1, calibrated=False)
        answers = shard.labelled.answers
        if refused := [answer for answer in answers if not isinstance(answer, Label)]:
            raise SystemExit(f"{len(refused)} structures have no label, e.g.: {refused[0]}")
        return shard.seconds, [(answer.energy, answer.forces) for answer in answers if isinstance(answer, Label)]

    return work


def ase_loop(contestant: Contestant) -> Work:
    """Energy, forces and stress of one structure after the other from mace-torch's ASE calculator."""
    from mace.calculators import MACECalculator

    calculator = MACECalculator(
        model_paths=str(contestant.model), device="cpu", default_dtype=contestant.dtype, head=contestant.head
    )

    def work(structures: Sequence[Atoms], batch_size: int) -> tuple[float, Labels]:
        started = time.perf_counter()
        labels: Labels = []
        for atoms in structures:
            calculator.calculate(atoms)
            labels.append((float(calculator.results["energy"]), calculator.results["forces"].astype(float)))
        return time.perf_counter() - started, labels

    return work


def eval_configs(contestant: Contestant) -> Work:
    """`mace_eval_configs --compute_stress`, timed from the end of its reading to the beginning of its writing.

    It does not convert the model to its `--default_dtype`, so it is given one of that dtype. The model stays loaded
    from call to call, so that what torch compiles at first use is compiled once.
    """
    import ase.io
    import torch
    from mace.cli import eval_configs as program

    model = torch.load(contestant.model, map_location="cpu", weights_only=False)
    model = model.double() if contestant.dtype == "float64" else model.float()
    folder = tempfile.TemporaryDirectory(prefix="bench-eval-")  # gone with the process

    def work(structures: Sequence[Atoms], batch_size: int) -> tuple[float, Labels]:
        moments: list[float] = []

        def read(*_: object, **__: object) -> list[Atoms]:
            copies = [atoms.copy() for atoms in structures]
            moments.append(time.perf_counter())
            return copies

        def write(*_: object, **__: object) -> None:
            moments.append(time.perf_counter())

        arguments = _arguments(contestant, Path(folder.name), batch_size)
        with (
            patch.object(torch, "load", lambda **_: model),
            patch.object(ase.io, "read", read),
            patch.object(ase.io, "write", write),
        ):
            program.run(arguments)
        return moments[1] - moments[0], []

    return work


def _arguments(contestant: Contestant, folder: Path, batch_size: int) -> argparse.Namespace:
    """What the program's own parser makes of the command line."""
    from mace.cli import eval_configs as program

    options = {
        "configs": folder / "in.xyz",
        "model": contestant.model,
        "output": folder / "out.xyz",
        "default_dtype": contestant.dtype,
        "batch_size": batch_size,
        "head": contestant.head,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    with patch("sys.argv", ["mace_eval_configs", *words, "--compute_stress"]):
        return program.parse_args()
