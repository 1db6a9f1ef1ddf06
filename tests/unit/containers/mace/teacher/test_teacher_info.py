from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from containers.contract import BadInput, Inputs, Machine
from containers.mace.teacher import teacher_info
from containers.mace.teacher.description import Teacher, choose_head


def teacher(*heads: str) -> Teacher:
    return Teacher(
        model_class="MACE",
        dtype="float64",
        elements=("Al", "Ni"),
        r_max_A=5.5,
        num_interactions=2,
        heads=heads,
        e0s_eV={head: {"Al": -0.1, "Ni": 1 / 3} for head in heads},
    )


def test_the_file_keeps_every_digit(tmp_path):
    teacher("pbe", "r2scan").write(tmp_path / "teacher.json")
    assert Teacher.read(tmp_path / "teacher.json") == teacher("pbe", "r2scan")


def test_energies_that_are_no_numbers_are_refused():
    with pytest.raises(ValidationError):
        Teacher.model_validate({**teacher("pbe").model_dump(), "e0s_eV": {"pbe": {"Al": float("nan")}}})


def test_the_only_head_needs_no_choice():
    assert choose_head(teacher("pbe"), None) == "pbe"


def test_a_head_is_chosen_by_name():
    assert choose_head(teacher("pbe", "r2scan"), "r2scan") == "r2scan"


@pytest.mark.parametrize(("heads", "wanted"), [(("pbe", "r2scan"), None), (("pbe", "r2scan"), "PBE"), (("pbe",), "x")])
def test_no_choice_among_several_and_unknown_heads_are_refused_with_the_list(heads, wanted):
    with pytest.raises(BadInput, match=", ".join(heads)):
        choose_head(teacher(*heads), wanted)


def test_the_stub_is_a_valid_teacher_of_any_alloy(tmp_path):
    metrics = teacher_info.stub(Inputs({"model": (Path("any"),)}), tmp_path, teacher_info.Params(), Machine())
    written = Teacher.read(tmp_path / "teacher.json")
    assert {"H", "Si", "Ni", "U"} <= set(written.elements) == set(written.e0s_eV[choose_head(written, None)])
    assert metrics["elements"] == len(written.elements)
