"""The basis as the dry run prints it: functions by block and element, parameters, estimated times and memory. Pure."""

from __future__ import annotations

from containers.tensorpot.fit.training_data import ATOMS_PER_BATCH, NEIGHBOURS, batch_bytes_per_atom, fixed_bytes
from containers.tensorpot.pacemaker.basis_functions import KINDS
from flows.data.recipe import Recipe

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


def basis_lines(recipe: Recipe, atoms: int) -> list[str]:
    """Return the lines to print.

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
    evaluation_us = EVALUATE_US_PER_NEIGHBOUR * NEIGHBOURS + EVALUATE_US_PER_FUNCTION * most
    duration = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{max(seconds, 1):.0f} s"
    return [
        *lines,
        f"estimate for one core, {NEIGHBOURS} neighbours: {evaluation_us:.0f} µs/atom for energy and forces;"
        f" a fit of {atoms:,} atoms and {iterations} iterations of {optimizer} takes about {duration}"
        f" and {bytes_taken / 1e9:.1f} GB of memory",
    ]


def fit_seconds(functions: int, parameters: int, elements: int, atoms: int, iterations: int, optimizer: str) -> float:
    """Return the seconds of one core for the iterations, by the functions of an element and all parameters."""
    one = atoms * (TRAIN_US_PER_NEIGHBOUR * NEIGHBOURS + TRAIN_US_PER_FUNCTION * functions) * 1e-6
    batches = -(-atoms // ATOMS_PER_BATCH)
    one += batches * BATCH_S_PER_PAIR * elements**2
    algebra = BFGS_S_PER_ENTRY * parameters**2 if optimizer == "BFGS" else 0.0
    return iterations * (EVALUATIONS_PER_ITERATION * one + algebra)
