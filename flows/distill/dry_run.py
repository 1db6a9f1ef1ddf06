"""The plan of a run, without labelling or fitting anything.

The functions of the flow with a `Run` that looks results up. The cheap steps (CHEAP) may run.
The walk ends at the first result that is missing and whose figures the next call depends on.
"""

from __future__ import annotations

import json
from contextlib import suppress

import pyarrow.parquet as pq

from containers.contract import Request, write_atomic
from containers.ingest import ingest
from containers.tensorpot.fit.pace_train import pacemaker_input
from containers.tensorpot.fit.training_data import ATOMS_PER_BATCH, NEIGHBOURS, batch_bytes_per_atom, fixed_bytes
from containers.tensorpot.pacemaker.basis_functions import KINDS
from flows.config.loading import teacher_files, user_files
from flows.config.schema import DistillConfig
from flows.data.prepare import label_and_merge, resolve_inputs
from flows.data.recipe import Recipe
from flows.data.training_set import training_set
from flows.distill.flow import distil, explored_by_another
from flows.distill.trajectory import follow
from flows.fit import steps as fit_steps
from flows.fit.attempts import attempt_name
from flows.fit.repairs import first_plan
from flows.run import Missing, Run, Unmade, is_made
from tasks.artefact import Artefact, StepCall
from tasks.errors import StoreError
from tasks.run_step import look_up, request_of, run_step
from tasks.workspace import Workspace

CHEAP = ("ingest", "teacher_info", "seed_pool")
UNKNOWN = "would run (its inputs are made by the steps above)"

TRAIN_US_PER_NEIGHBOUR = 1.5
TRAIN_US_PER_FUNCTION = 0.5
"""µs of one core for energy, forces and gradient of an atom, for each of its neighbours and of its functions."""
EVALUATE_US_PER_NEIGHBOUR = 0.15
EVALUATE_US_PER_FUNCTION = 0.06
"""The same for energy and forces by LAMMPS' evaluator."""
START_S_PER_PAIR = 1.5
START_S_PER_FUNCTION = 0.06
BATCH_S_PER_PAIR = 0.003
"""s of one core, for every ordered pair of elements and every function: the graphs that are built before the
first iteration, and each batch of a fit. Twelve elements with 144 functions took 220 s."""
BFGS_S_PER_ENTRY = 1.3e-9
"""s of one core, for every entry of the square matrix of the parameters: an iteration of BFGS reads and updates it."""
EVALUATIONS_PER_ITERATION = 1.1


class _Look:
    """Looks up steps instead of running them, and collects the line and the request of each."""

    def __init__(self) -> None:
        self.lines: dict[str, str] = {}
        self.requests: dict[str, Request] = {}

    def note(self, name: str, text: str) -> None:
        self.lines[name] = f"  {name:<28} {text}"

    def __call__(self, call: StepCall, workspace: Workspace, name: str) -> Artefact:
        if not all(is_made(file) for files in call.inputs.values() for file in files):
            self.note(name, UNKNOWN)
            return Unmade.by(call.step)
        found = run_step(call, workspace) if call.step in CHEAP else look_up(call, workspace)
        state = "would run" if found is None else "cached" if found.cached else "ran now (cheap)"
        self.requests[name] = request_of(call, workspace)
        self.note(name, f"{state:<15} key {self.requests[name].key[:8]}")
        return found or Unmade.by(call.step)


def plan(config: DistillConfig, workspace: Workspace) -> str:
    """Write plan.json, requests/ and input.yaml to runs/NAME/dry-run/ and return what to print.

    Nothing is written before the walk has ended well.
    """
    look = _Look()
    run = Run(workspace, step=look, note=look.note)
    earlier = "the rounds of the other teacher" if config.explore.teacher else "the crystals of explore.compositions"
    texts: dict[str, str] = {}
    basis: list[str] = []
    try:
        files = user_files(config)
        explored = explored_by_another(config, files, run)
        known = resolve_inputs(config, files, teacher_files(config), run, explored)
    except Missing as missing:
        look.lines[""] = f"  {missing}".rstrip() or f"  the rest is planned once {earlier} are there"
    else:
        whole = False
        with suppress(Missing):
            prepared = label_and_merge(known, run)
            results, _ = distil(prepared, training_set(prepared, run), run)
            follow(results.prepared, results.best, run)
            whole = True
        gate = ["stability"] if config.stability.picoseconds > 0 else []
        fits = [attempt_name(known.recipe, stage, 1) for stage in range(1, len(known.recipe.stages) + 1)]
        certain = ["pace_select", "frames", *fits, "pace_activeset", "pace_corerep", *gate, "evaluate"]
        if config.explore.conditions:  # what follows depends on the rounds
            one = known.recipe.model_copy(update={"staged": False})
            certain = ["pace_select", "frames", attempt_name(one, 1, 1, "before exploration"), "explore"]
        if config.properties.wanted:
            certain = ["teacher_properties", *certain, "student_properties"]
        if config.trajectory.picoseconds > 0:
            certain += ["trajectory", "pool_labels trajectory", "trajectory_errors"]
        for name in certain:  # the task runs that there will be in any case, if no stage fails
            if name not in look.lines and not whole:
                look.note(name, UNKNOWN)
        recipe, expected = known.recipe, _expected(known.recipe, known.ingested.pool)
        basis, first = basis_lines(recipe, expected[1]), first_plan(recipe.stages[0])
        basis += exploration_lines(recipe, known.ingested.starts, workspace)
        found = {"config": known.config, "recipe": recipe, "first_attempt": first}
        values = {name: value.model_dump(mode="json") for name, value in found.items()}
        texts = {
            "plan.json": json.dumps({**values, "steps": [*look.lines.values(), *basis]}, indent=1),
            "input.yaml": pacemaker_input(fit_steps.train_params(recipe, first), *expected, "fresh").text(),
        }
    for name, request in look.requests.items():
        texts[f"requests/{name.replace(' ', '_')}.json"] = request.model_dump_json(indent=1)
    folder = workspace.run_folder(config.name) / "dry-run"
    try:
        (folder / "requests").mkdir(parents=True, exist_ok=True)
        for old in (*folder.glob("requests/*.json"), folder / "plan.json", folder / "input.yaml"):
            old.unlink(missing_ok=True)  # of an earlier plan that may have gone farther
        for name, text in texts.items():
            write_atomic(folder / name, text.encode())
    except OSError as error:
        raise StoreError(f"cannot write {folder}: {error.strerror}. Move what is in the way.") from None
    return "\n".join([f"{config.name}: the plan, written to {folder}", *look.lines.values(), *basis, *config.notices])


def _expected(recipe: Recipe, pool: Artefact) -> tuple[int, int]:
    """Training structures and their atoms, as the pool's mean size suggests; the selection decides in the end."""
    selection, found = recipe.selection, pool.read(ingest.Metrics)
    pooled = found.structures
    structures = min(round(selection.fraction * pooled) if selection.fraction else selection.max_structures, pooled)
    structures = max(structures, 1)
    return structures, round(structures * found.atoms / pooled)


def basis_lines(recipe: Recipe, atoms: int) -> list[str]:
    """Return lines on the basis: functions by block and element, parameters, estimated times and memory.

    Args:
        atoms: of the training set, as far as they are known.
    """
    found = recipe.potential.functions()
    elements = len(recipe.potential.elements)
    lines = [
        f"basis: {elements} elements, {len(found.blocks)} blocks, {found.total:,} functions,"
        f" {found.parameters:,} parameters"
    ]
    same: dict[str, list[str]] = {}
    for element, kinds in found.by_element().items():
        blocks = ", ".join(
            f"{KINDS[size - 1].lower()} {count}" if size <= len(KINDS) else f"{size} elements {count}"
            for size, count in kinds.items()
        )
        same.setdefault(f"{sum(kinds.values())} functions: {blocks}", []).append(element)
    lines += [f"  {' '.join(names):<28} {text}" for text, names in same.items()]
    most = max(sum(kinds.values()) for kinds in found.by_element().values())
    optimizer = recipe.stages[0].optimizer
    iterations = sum(stage.maxiter for stage in recipe.stages)
    seconds = (
        START_S_PER_PAIR * elements**2
        + START_S_PER_FUNCTION * found.total
        + fit_seconds(most, found.parameters, elements, atoms, iterations, optimizer)
    )
    bytes_taken = fixed_bytes(elements, found.parameters, optimizer)
    bytes_taken += min(atoms, ATOMS_PER_BATCH) * batch_bytes_per_atom(most)
    duration = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 1):.0f} s"
    return [
        *lines,
        f"estimate for one core, {NEIGHBOURS} neighbours: {evaluation_us(most):.0f} µs/atom for energy and forces;"
        f" a fit of {atoms:,} atoms and {iterations} iterations of {optimizer} takes about {duration}"
        f" and {bytes_taken / 1e9:.1f} GB of memory",
    ]


def exploration_lines(recipe: Recipe, starts: Artefact | None, workspace: Workspace) -> list[str]:
    """Return a line on the first round of exploration: its runs and the labels after it; none without conditions.

    Args:
        starts: of `seed_pool`; its structures are counted if it is made.
    """
    wanted = recipe.explore
    if not wanted.conditions:
        return []
    line = f"exploration: {len(wanted.conditions)} conditions, {wanted.levels} levels, at most {wanted.rounds} rounds"
    line += f" and {wanted.max_labels:,} labels"
    if starts is None or not is_made(starts.file("starts")):
        return [line]
    rows = pq.read_table(workspace.store.path(starts.file("starts")), columns=["group", "numbers"]).to_pylist()
    atom_steps, runs = 0.0, 0
    for condition in wanted.conditions:
        mine = [len(row["numbers"]) for row in rows if row["group"] in condition.starts]
        runs += condition.replicas * len(mine)
        atom_steps += condition.replicas * sum(mine) * 1000 * condition.milder(1 / wanted.levels).picoseconds
    most = max(sum(kinds.values()) for kinds in recipe.potential.functions().by_element().values())
    seconds = atom_steps * evaluation_us(most) * 1e-6 / min(workspace.settings.cores, max(runs, 1))
    return [
        f"{line}; round 1: {runs} runs, about {max(seconds / 60, 1):.0f} min on {workspace.settings.cores} cores with"
        f" steps of 1 fs, then at most {wanted.structures_per_round} labels"
    ]


def evaluation_us(functions: int) -> float:
    """Return the µs of one core for energy and forces of an atom with NEIGHBOURS."""
    return EVALUATE_US_PER_NEIGHBOUR * NEIGHBOURS + EVALUATE_US_PER_FUNCTION * functions


def fit_seconds(functions: int, parameters: int, elements: int, atoms: int, iterations: int, optimizer: str) -> float:
    """Return the seconds of one core for the iterations, by the functions of an element and all parameters."""
    one = atoms * (TRAIN_US_PER_NEIGHBOUR * NEIGHBOURS + TRAIN_US_PER_FUNCTION * functions) * 1e-6
    batches = -(-atoms // ATOMS_PER_BATCH)
    one += batches * BATCH_S_PER_PAIR * elements**2
    algebra = BFGS_S_PER_ENTRY * parameters**2 if optimizer == "BFGS" else 0.0
    return iterations * (EVALUATIONS_PER_ITERATION * one + algebra)
