from __future__ import annotations

import pytest
from pydantic import ValidationError

from containers.contract import Inputs, Machine
from containers.mace import fetch
from containers.mace.fetch import FOUNDATION_MODELS, Params


def test_names_are_checked_before_any_download():
    assert Params(name="medium-mpa-0").name in FOUNDATION_MODELS
    with pytest.raises(ValidationError, match="medium-mpa-0"):
        Params(name="teacher.model")


def test_names_are_all_different():
    assert len(set(FOUNDATION_MODELS)) == len(FOUNDATION_MODELS)


def test_the_stub_writes_the_declared_file(tmp_path):
    fetch.stub(Inputs({}), tmp_path, Params(name="small"), Machine())
    assert [path.name for path in tmp_path.iterdir()] == ["teacher.model"]
