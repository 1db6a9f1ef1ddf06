from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import pytest
from pydantic import ValidationError

from containers.contract import Inputs, Machine
from containers.mace.teacher import teacher_fetch
from containers.mace.teacher.teacher_fetch import FOUNDATION_MODELS, Params


def test_names_are_checked_before_any_download():
    assert Params(name="medium-mpa-0").name in FOUNDATION_MODELS
    with pytest.raises(ValidationError, match="medium-mpa-0"):
        Params(name="teacher.model")


def test_names_are_all_different():
    assert len(set(FOUNDATION_MODELS)) == len(FOUNDATION_MODELS)


def test_the_stub_writes_the_declared_file(tmp_path):
    teacher_fetch.stub(Inputs({}), tmp_path, Params(name="small"), Machine())
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
