"""One name, one experiment: which config counts as another one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest

from flows.config.run_name import Results, difference, refuse_other
from flows.config.schema import DistillConfig
from tasks.artefact import External
from tasks.errors import UserError


def changed(config: DistillConfig, section: str, **values: Any) -> DistillConfig:
    given = config.model_dump()
    return DistillConfig.model_validate({**given, section: {**given[section], **values}})


def published(folder: Path, values: dict[str, Any], results: Results = "manifest.json", **more: Any) -> Path:
    (folder / results).parent.mkdir(exist_ok=True)
    (folder / results).write_text(json.dumps({"config": values, **more}))
    return folder


def differs(config: DistillConfig, folder: Path, results: Results = "manifest.json") -> str | None:
    return difference(config, {}, {}, folder, results)


@pytest.mark.parametrize("results", get_args(Results))
def test_the_same_config_is_fine_and_another_one_is_named_key_by_key(config, tmp_path, results: Results) -> None:
    published(tmp_path, config.model_dump(mode="json"), results)
    assert differs(config, tmp_path, results) is None
    other = changed(changed(config, "train", seed=7), "pool", files=["more.db"])
    found = differs(other, tmp_path, results)
    assert (found or "").splitlines()[1:] == [
        '  pool.files: ["pool.extxyz"] there, ["more.db"] here',
        "  train.seed: 42 there, 7 here",
    ]


def test_it_is_refused_with_the_ways_to_continue_unless_it_is_to_be_replaced(config, tmp_path) -> None:
    published(tmp_path, config.model_dump(mode="json"))
    other = changed(config, "train", seed=7)
    with pytest.raises(UserError, match=r"(?s)another config.*train\.seed.*--set name=.*--replace"):
        refuse_other(other, {}, {}, tmp_path, "manifest.json", replace=False)
    refuse_other(other, {}, {}, tmp_path, "manifest.json", replace=True)


def test_where_nothing_of_ours_is_there_nothing_is_in_the_way(config, tmp_path) -> None:
    assert differs(config, tmp_path) is None
    for text in ("", "[]", "{}", '{"config": 3}'):
        (tmp_path / "manifest.json").write_text(text)
        assert differs(config, tmp_path) is None


def test_keys_of_another_version_do_not_count_but_one_that_cannot_be_read_is_another(config, tmp_path) -> None:
    """Newer keys had their defaults then; keys that are gone decide nothing now."""
    older = config.model_dump(mode="json")
    del older["extend"], older["train"]["early_stop"]
    older["pacemaker"]["gone"], older["no_such_section"] = 3, {"key": 1}
    published(tmp_path, older)
    assert differs(config, tmp_path) is None
    assert "extend.rounds" in (differs(changed(config, "extend", rounds=0), tmp_path) or "")
    published(tmp_path, {**older, "teacher": 3})
    assert "cannot read" in (differs(config, tmp_path) or "")


def test_a_file_that_moved_is_the_same_and_a_pool_may_grow(config, tmp_path) -> None:
    before = config.model_dump(mode="json")
    before["pool"]["files"], before["teacher"]["model"] = ["/old/pool.extxyz"], "/old/teacher.model"
    published(tmp_path, before, inputs={"/old/pool.extxyz": "p", "/old/teacher.model": "t"})
    here = changed(changed(config, "pool", files=["/new/pool.extxyz"]), "teacher", model="/new/teacher.model")

    def at(place: str, pool: str) -> dict[str, tuple[External, ...]]:
        return {"pool": (External(path=Path(place), sha256=pool),)}

    models = {"/new/teacher.model": External(path=Path("/new/teacher.model"), sha256="t")}
    assert difference(here, at("/new/pool.extxyz", "p"), models, tmp_path, "manifest.json") is None
    assert difference(here, at("/new/pool.extxyz", "other"), models, tmp_path, "manifest.json") is not None
    grown = DistillConfig.model_validate(before)
    assert difference(grown, at("/old/pool.extxyz", "grown"), {}, tmp_path, "manifest.json") is None


def test_what_decides_no_result_does_not_count(config, tmp_path) -> None:
    """Threads, and the sweep: only the results of a sweep depend on what it varies."""
    published(tmp_path, config.model_dump(mode="json"))
    published(tmp_path, config.model_dump(mode="json"), "sweep/sweep.json")
    other = changed(changed(config, "train", threads=3), "sweep", take="cheapest", at_once=2, committee=4)
    assert differs(other, tmp_path) is None
    assert differs(other, tmp_path, "sweep/sweep.json") is None
    varied = changed(other, "sweep", vary={"train.seed": [1, 2]})
    assert differs(varied, tmp_path) is None
    assert "sweep.vary.train.seed: null there, [1, 2] here" in (differs(varied, tmp_path, "sweep/sweep.json") or "")


def test_a_long_list_is_cut(config, tmp_path) -> None:
    published(tmp_path, config.model_dump(mode="json"))
    other = changed(config, "dataset", weights={f"group{number}": 2.0 for number in range(20)})
    found = (differs(other, tmp_path) or "").splitlines()
    assert len(found) == 10
    assert found[-1].startswith("  and 1")
