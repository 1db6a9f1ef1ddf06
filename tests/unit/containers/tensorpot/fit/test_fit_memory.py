from __future__ import annotations

import pytest

from containers.tensorpot.fit.training_data import PROGRAM_BYTES, auto_batch_size, batch_bytes_per_atom, fixed_bytes

MB = 2**20
MEASURED_MB = {
    (100, 28, 4096): 1814,
    (120, 28, 4792): 2001,
    (250, 28, 256): 1073,
    (250, 28, 1024): 1334,
    (250, 28, 4096): 2241,
    (250, 60, 2048): 2172,
    (600, 28, 1024): 2032,
    (600, 28, 4096): 4937,
}
"""Functions, neighbours, atoms of a batch -> peak of pacemaker."""


@pytest.mark.parametrize(
    ("structures", "atoms", "batch"),
    [(60, 3710, 24), (24, 80, 24), (3, 9000, 1), (1000, 2000, 100), (1, 1, 1), (0, 0, 1)],
)
def test_a_batch_is_bounded_by_atoms(structures: int, atoms: int, batch: int) -> None:
    assert auto_batch_size(structures, atoms) == batch


@pytest.mark.parametrize(("functions", "neighbours", "atoms"), MEASURED_MB)
def test_what_is_reckoned_was_enough_where_it_was_measured(functions: int, neighbours: int, atoms: int) -> None:
    reckoned = (PROGRAM_BYTES + atoms * batch_bytes_per_atom(functions, neighbours)) / MB
    assert MEASURED_MB[functions, neighbours, atoms] <= reckoned < 1.6 * MEASURED_MB[functions, neighbours, atoms]


def test_a_batch_is_smaller_where_memory_is_short() -> None:
    sizes = [auto_batch_size(300, 15000, 250, memory * MB) for memory in (600, 1200, 1400, 1700, 3000, 64000)]
    assert sizes == sorted(sizes)
    assert sizes[0] == 1
    assert sizes[-2] == sizes[-1] == auto_batch_size(300, 15000) == 30
    assert 1 < sizes[2] < 30


def test_more_functions_need_more_memory() -> None:
    assert auto_batch_size(300, 15000, 700, 1600 * MB) < auto_batch_size(300, 15000, 100, 1600 * MB)


def test_what_the_fit_takes_beside_the_batch_leaves_less_for_it() -> None:
    whole = auto_batch_size(300, 15000, 250, 2500 * MB)
    assert auto_batch_size(300, 15000, 250, 2500 * MB, fixed=PROGRAM_BYTES + 600 * MB) < whole


@pytest.mark.parametrize(
    ("elements", "parameters", "peak_MB"),
    [(2, 2008, 1392), (3, 3072, 1919), (4, 4248, 2579), (5, 4240, 3051), (6, 4348, 3734), (7, 9352, 6047)],
)
def test_the_graph_of_many_elements_was_reckoned_as_measured(elements: int, parameters: int, peak_MB: float) -> None:
    """Fits with 250 functions an element and batches of a few hundred atoms (BFGS, one thread)."""
    assert peak_MB <= fixed_bytes(elements, parameters, "BFGS") / 1e6 < 1.35 * peak_MB


def test_only_bfgs_keeps_a_matrix() -> None:
    assert fixed_bytes(2, 9000, "BFGS") - fixed_bytes(2, 9000, "L-BFGS-B") == 8 * 9000**2
