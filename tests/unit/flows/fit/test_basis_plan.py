from __future__ import annotations

from typing import Any

import pytest

from containers.mace.teacher.description import Teacher
from flows.config.schema import DistillConfig
from flows.data.recipe import Recipe, resolve
from flows.fit.basis_plan import basis_lines, fit_seconds
from tasks.errors import UserError

NINE = ("Ag", "Al", "Au", "Cu", "Ni", "Pd", "Pt", "Ti", "Zr")


def recipe_of(config: DistillConfig, teacher: Teacher, elements: tuple[str, ...], **pacemaker: Any) -> Recipe:
    knows = teacher.model_copy(update={"elements": elements, "e0s_eV": {"Default": dict.fromkeys(elements, 0.0)}})
    changed = config.model_copy(update={"pacemaker": config.pacemaker.model_copy(update=pacemaker)})
    return resolve(changed, [knows], set(elements), set())


def test_the_reader_learns_of_functions_by_block_and_of_times(config: DistillConfig, teacher: Teacher) -> None:
    lines = basis_lines(recipe_of(config, teacher, NINE, cutoff=5.0, functions_per_element=250), 1000)
    assert lines[0] == "basis: 9 elements, 81 blocks, 2,187 functions, 7,398 parameters"
    assert lines[1] == "  Ag Al Au Cu Ni Pd Pt Ti Zr   243 functions: unary 27, binary 216"
    assert "a fit of 1,000 atoms" in lines[2]
    assert "iterations of BFGS" in lines[2]
    assert lines[2].endswith(" and 9.6 GB of memory")


def test_a_budget_too_small_for_the_elements_is_refused_before_labelling(
    config: DistillConfig, teacher: Teacher
) -> None:
    with pytest.raises(UserError, match=r"pacemaker.functions_per_element is 8, .* at least 9"):
        recipe_of(config, teacher, NINE, functions_per_element=8)


def test_bfgs_costs_the_square_of_the_parameters() -> None:
    few, many = (fit_seconds(250, parameters, 2, 1000, 10, "BFGS") for parameters in (100, 5000))
    assert many - few == pytest.approx(10 * 1.3e-9 * 5000**2, rel=1e-3)
    assert fit_seconds(250, 5000, 2, 1000, 10, "L-BFGS-B") < few
