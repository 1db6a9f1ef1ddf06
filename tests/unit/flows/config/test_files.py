"""The user's files are found and digested before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from containers.mace.teacher.teacher_fetch import FOUNDATION_MODELS
from flows.config.loading import teacher_files, user_files
from flows.config.schema import DistillConfig
from tasks.errors import UserError


def config(**changes: object) -> DistillConfig:
    values = {"name": "x", "teacher": {"model": "none.model"}, "pool": {"files": []}, **changes}
    values["pool"] = {"files": [str(Path(__file__))]}
    return DistillConfig.model_validate(values)


def test_without_a_base_there_is_none() -> None:
    assert user_files(config())["base"] == ()


def test_a_base_gives_its_data_set_its_selection_and_its_baseline(tmp_path: Path) -> None:
    for name in ("dataset.parquet", "selection.parquet", "baseline.json"):
        (tmp_path / name).write_text(name)
    found = user_files(config(dataset={"base": str(tmp_path)}))["base"]
    assert [file.path.name for file in found] == ["dataset.parquet", "selection.parquet", "baseline.json"]


def test_a_folder_that_is_no_run_is_named_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"dataset\.base: .*dataset\.parquet.*runs/NAME"):
        user_files(config(dataset={"base": str(tmp_path)}))


def test_a_foundation_model_has_no_file_yet() -> None:
    assert teacher_files(config(teacher={"model": FOUNDATION_MODELS[0]})) == {FOUNDATION_MODELS[0]: None}


def test_a_missing_model_is_named_with_its_key() -> None:
    with pytest.raises(UserError, match=r"teacher\.model: .*none\.model"):
        teacher_files(config())


def test_a_variable_in_a_path_is_not_expanded_and_the_message_says_so() -> None:
    with pytest.raises(UserError, match=r"\$HOME/my\.model.*Variables such as \$HOME are not expanded, ~ is"):
        teacher_files(config(teacher={"model": "$HOME/my.model"}))
