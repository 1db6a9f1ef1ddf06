"""What containers cost: every step, and the whole silicon demo, in docker against a process. One line a figure.

python benchmarks/in_containers.py [--repeats 3] [--demos 2]     exit 1 when a limit is missed

Both ways run the same requests in fresh work roots, in turn, so that a busy machine disturbs both; told are medians,
the overhead is that of the differences.
A step may cost a second more in a container, and what importing its libraries from the image takes: that is measured
too, in the image and, as a reference, in the environment of the processes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Literal

import ase.io

from containers.contract import Closed, Image, load_step
from containers.ingest import ingest
from containers.labels import pool_labels
from containers.mace.labelling import mace_label
from containers.mace.teacher import teacher_info
from containers.tensorpot.active_set import pace_activeset
from containers.tensorpot.baseline import baseline
from containers.tensorpot.core import pace_corerep
from containers.tensorpot.dataset import dataset
from containers.tensorpot.evaluation import evaluate
from containers.tensorpot.fit import pace_train
from containers.tensorpot.frames import frames as frame_sets
from containers.tensorpot.frames import strain
from containers.tensorpot.pacemaker.input import Potential
from containers.tensorpot.selection import pace_select
from tasks.artefact import Artefact, FileRef, StepCall, external
from tasks.labelling.shards import StructurePool
from tasks.run_step import run_step
from tasks.runners.docker import HARDENED, created, engine, find_image
from tasks.settings import Settings, step_environment, thread_environment
from tasks.workspace import Workspace

REPOSITORY = Path(__file__).parents[1]
EXAMPLE = REPOSITORY / "examples" / "silicon"
Way = Literal["subprocess", "docker"]
WAYS: tuple[Way, Way] = ("subprocess", "docker")

STEP_LIMIT_S = 1.0  # beside the imports
DEMO_SHARE, DEMO_LIMIT_S = 0.25, 30.0
STRUCTURES = 60
POTENTIAL = Potential(elements=("Si",), cutoff=5.0, functions_per_element=15, b_basis="small")
E0S = {"Si": -0.8}
IMPORTS = {
    "ingest": "containers.ingest.ingest, containers.formats.reading",
    "teacher_info": "containers.mace.teacher.model",
    "mace_label": "containers.mace.labelling.labeller",
    "pool_labels": "containers.labels.pool_labels",
    "baseline": "containers.tensorpot.baseline.baseline",
    "dataset": "containers.tensorpot.dataset.dataset",
    "pace_select": "containers.tensorpot.active_set.projections, pyace.maxvol",
    "strain": "containers.tensorpot.frames.strain",
    "frames": "containers.tensorpot.frames.frames, pandas",
    "pace_train": "pyace, tensorpotential, tensorflow",
    "pace_activeset": "containers.tensorpot.active_set.projections, pyace.maxvol",
    "pace_corerep": "containers.tensorpot.core.pace_corerep, pyace",
    "evaluate": "containers.tensorpot.evaluation.evaluate, pyace",
}


def chain(pool: Path, place: Workspace) -> Generator[StepCall, Artefact, None]:
    """Every step once: yields a call and is sent its result."""
    from tasks.labelling.shard_task import TeacherCall  # brings Prefect, and --help can do without

    model = external(EXAMPLE / "teacher.model")
    table = (yield _call("ingest", ingest.Params(file_names=(pool.name,)), files=external(pool))).file("structures")
    yield _call("teacher_info", teacher_info.Params(), model=model)
    asked = TeacherCall(model=model, params=mace_label.Params(head="Default"), cutoff_A=POTENTIAL.cutoff)
    structures, labelled = StructurePool(place.store.path(table)), asked.store(place)
    rows = yield _call("mace_label", asked.params, structures=table, model=model)
    labelled.commit(place.store.path(rows.file("labels")), structures.ids, structures.atoms)
    pooled = pool_labels.Params(teachers=(asked.key(place).digest,), e0s_eV=E0S)
    with labelled.reading() as files:
        call = _call("pool_labels", pooled, structures=table).model_copy(update={"sources": {"labels": files}})
    labels = (yield call).file("labels")
    taken = baseline.Params(elements=("Si",), cutoff=POTENTIAL.cutoff, teacher_e0s_eV=E0S)
    based = (yield _call("baseline", taken, labels=labels)).file("baseline")
    merged = dataset.Params(elements=("Si",), teachers=(asked.key(place).digest,))
    data = (yield _call("dataset", merged, labels=labels)).file("dataset")
    chosen = pace_select.Params(potential=POTENTIAL, max_structures=30)
    selection = (yield _call("pace_select", chosen, dataset=data, baseline=based)).file("selection")
    yield _call("strain", strain.Params(), dataset=data, selection=selection)
    sides = frame_sets.Params(elements=("Si",), cutoff=POTENTIAL.cutoff)
    frames = yield _call("frames", sides, dataset=data, selection=selection, baseline=based)
    train, fit = frames.file("train"), pace_train.Params(potential=POTENTIAL, maxiter=5)
    fitted = (yield _call("pace_train", fit, train=train, validation=frames.file("validation"))).file("best")
    asi = (yield _call("pace_activeset", pace_activeset.Params(), potential=fitted, train=train)).file("asi")
    core = yield _call("pace_corerep", pace_corerep.Params(), interim=fitted, asi=asi, train=train, baseline=based)
    student, compared = core.file("potential"), evaluate.Params(elements=("Si",))
    yield _call("evaluate", compared, potential=student, asi=asi, baseline=based, test=frames.file("test"))


def _call(step: str, params: Closed, **inputs: FileRef) -> StepCall:
    return StepCall(step=step, params=params.model_dump(mode="json"), inputs={n: (f,) for n, f in inputs.items()})


def seconds_of_steps(pool: Path, root: Path, turn: int) -> dict[str, dict[Way, float]]:
    """Wall time of every step both ways, one right after the other; either is first in every other turn."""
    places = {way: Workspace(root=root / way, settings=Settings(runner=way, cores=1, device="cpu")) for way in WAYS}
    chains = {way: chain(pool, places[way]) for way in WAYS}
    calls = {way: next(chains[way]) for way in WAYS}
    seconds: dict[str, dict[Way, float]] = {}
    while True:
        order = WAYS if (len(seconds) + turn) % 2 else WAYS[::-1]
        done = {way: _timed(calls[way], places[way]) for way in order}
        seconds[calls["docker"].step] = {way: done[way][0] for way in WAYS}
        try:
            calls = {way: chains[way].send(done[way][1]) for way in WAYS}
        except StopIteration:
            return seconds


def _timed(call: StepCall, place: Workspace) -> tuple[float, Artefact]:
    started = time.monotonic()
    artefact = run_step(call, place)
    assert not artefact.cached
    return time.monotonic() - started, artefact


def import_seconds(step: str, way: Way) -> float:
    """What the libraries of a step take to import, told by the interpreter itself."""
    code = f"import time; t = time.perf_counter(); import {IMPORTS[step]}; print('took', time.perf_counter() - t)"
    image = load_step(step).IMAGE
    told = _in_image(image, code) if way == "docker" else _in_process(image, code)
    (seconds,) = [line.split()[1] for line in told.splitlines() if line.startswith("took ")]
    return float(seconds)


def _in_process(image: Image, code: str) -> str:
    command = [str(Settings().python(image)), "-W", "ignore", "-c", code]
    return subprocess.run(command, env=step_environment(1), check=True, capture_output=True, text=True).stdout


def _in_image(image: Image, code: str) -> str:
    settings = Settings()
    with engine(settings) as client:
        found = find_image(client, image, settings.image(image, "cpu"))
        command = {"entrypoint": ["python", "-W", "ignore", "-c", code], "environment": thread_environment(1)}
        with created(client, {**HARDENED, "image": found.id, **command}) as container:
            container.start()
            container.wait()
            return container.logs(stderr=False).decode()


def demo(root: Path, way: Way) -> float:
    """Seconds of `python -m flows.distill` from nothing to its report."""
    settings = {"DISTILL_RUNNER": way, "DISTILL_DEVICE": "cpu", "PREFECT_HOME": str(root / "prefect")}
    command = [sys.executable, "-m", "flows.distill", "--work-root", str(root)]
    started = time.monotonic()
    subprocess.run(command, cwd=REPOSITORY, env={**os.environ, **settings}, check=True, capture_output=True)
    return time.monotonic() - started


@contextlib.contextmanager
def fresh(name: str) -> Iterator[Path]:
    """An empty folder, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix=f"bench-{name}-") as folder:
        yield Path(folder)


def steps(repeats: int) -> bool:
    """Measure and print every step; whether all limits are met."""
    walls: list[dict[str, dict[Way, float]]] = []
    imports: list[dict[str, dict[Way, float]]] = []
    with fresh("pool") as folder:
        pool = folder / "pool.extxyz"
        ase.io.write(pool, ase.io.read(EXAMPLE / "pool.extxyz", f":{STRUCTURES}"))
        for turn in range(repeats):
            with fresh("steps") as root:
                walls.append(seconds_of_steps(pool, root, turn))
            imports.append({step: {way: import_seconds(step, way) for way in WAYS} for step in IMPORTS})
    met = [_told(step, [one[step] for one in walls], [one[step] for one in imports]) for step in IMPORTS]
    return all(met)


def _told(step: str, walls: list[dict[Way, float]], imports: list[dict[Way, float]]) -> bool:
    wall, imported = (
        {way: statistics.median(turn[way] for turn in turns) for way in WAYS} for turns in (walls, imports)
    )
    overhead = statistics.median(turn["docker"] - turn["subprocess"] for turn in walls)
    limit = STEP_LIMIT_S + imported["docker"]
    print(
        f"{step:<15} docker {wall['docker']:6.2f} s, subprocess {wall['subprocess']:6.2f} s,"
        f" ratio {wall['docker'] / wall['subprocess']:.2f}; imports {imported['docker']:.2f} s in the image,"
        f" {imported['subprocess']:.2f} s outside; overhead {overhead:.2f} s,"
        f" promised at most {limit:.2f} s: {'met' if overhead <= limit else 'MISSED'}",
        flush=True,
    )
    return overhead <= limit


def demos(repeats: int) -> bool:
    """Measure and print the whole demo both ways; whether its limit is met."""
    seconds: dict[Way, list[float]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way in WAYS:
            with fresh(f"demo-{way}") as root:
                seconds[way].append(demo(root, way))
    docker, process = (statistics.median(seconds[way]) for way in ("docker", "subprocess"))
    limit = process * (1 + DEMO_SHARE) + DEMO_LIMIT_S
    met = docker <= limit
    print(
        f"silicon demo    docker {docker:.1f} s, subprocess {process:.1f} s, ratio {docker / process:.2f};"
        f" promised at most {limit:.1f} s: {'met' if met else 'MISSED'}"
    )
    return met


def main() -> int:
    """Print one line a figure; exit 1 when a limit is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--repeats", type=int, default=3, help="of every step and way")
    parser.add_argument("--demos", type=int, default=2, help="runs of the whole demo and way")
    options = parser.parse_args()
    from tasks.runners.readiness import ready

    with fresh("check") as root, ready(Workspace(root=root, settings=Settings(runner="docker", device="cpu"))):
        print("containers against processes, wall time of a step in a fresh store, medians", flush=True)
    met = [steps(options.repeats) if options.repeats else True, demos(options.demos) if options.demos else True]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
