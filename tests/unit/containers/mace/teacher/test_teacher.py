"""The description of a teacher, its heads, and its download."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import pytest
from pydantic import ValidationError

from containers.contract import BadInput, Inputs, Machine
from containers.mace.teacher import teacher_fetch, teacher_info
from containers.mace.teacher.description import Teacher, choose_head
from containers.mace.teacher.teacher_fetch import FOUNDATION_MODELS
from containers.mace.teacher.teacher_fetch import Params as FetchParams


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


def test_the_file_keeps_every_digit_and_a_head_is_chosen_by_name_unless_there_is_one(tmp_path):
    teacher("pbe", "r2scan").write(tmp_path / "teacher.json")
    assert Teacher.read(tmp_path / "teacher.json") == teacher("pbe", "r2scan")
    with pytest.raises(ValidationError):
        Teacher.model_validate({**teacher("pbe").model_dump(), "e0s_eV": {"pbe": {"Al": float("nan")}}})
    assert choose_head(teacher("pbe"), None) == "pbe"
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


def test_names_are_checked_before_any_download(tmp_path):
    assert FetchParams(name="medium-mpa-0").name in FOUNDATION_MODELS
    with pytest.raises(ValidationError, match="medium-mpa-0"):
        FetchParams(name="teacher.model")
    assert len(set(FOUNDATION_MODELS)) == len(FOUNDATION_MODELS)
    teacher_fetch.stub(Inputs({}), tmp_path, FetchParams(name="small"), Machine())
    assert [path.name for path in tmp_path.iterdir()] == ["teacher.model"]


def test_a_download_is_checked_without_opening_it(tmp_path: Path) -> None:
    model = tmp_path / "teacher.model"
    with ZipFile(model, "w") as archive:
        archive.writestr("teacher/data.pkl", b"weights " * 10)
    assert teacher_fetch._damage(model) is None
    whole = model.read_bytes()
    model.write_bytes(whole.replace(b"weights weights", b"weights wEights", 1))
    assert "teacher/data.pkl differs from its checksum" in str(teacher_fetch._damage(model))
    model.write_bytes(whole[:-20])
    assert "not a file as torch saves it" in str(teacher_fetch._damage(model))
