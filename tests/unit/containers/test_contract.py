"""Requests and their keys, reports and their seals, and the small tools of the contract."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from containers.contract import (
    STEPS,
    Failure,
    Inputs,
    OutputFile,
    Report,
    Request,
    StepError,
    canonical_json,
    file_digest,
    load_step,
    write_atomic,
)

REQUEST: dict[str, Any] = {
    "step": "ingest",
    "version": 1,
    "lock": "l" * 64,
    "params": {"a": 1, "b": [1.5, None]},
    "inputs": {"files": [{"path": "/one", "sha256": "1" * 64}, {"path": "/two", "sha256": "2" * 64}]},
    "stub": False,
    "resources": {"threads": 1, "device": "cpu"},
}


def key(**changes: Any) -> str:
    return Request.model_validate({**REQUEST, **changes}).key


def file(path: str, digit: str) -> dict[str, str]:
    return {"path": path, "sha256": digit * 64}


@pytest.mark.parametrize(
    "changes",
    [
        {"inputs": {"files": [file("/elsewhere/x", "1"), file("/y", "2")]}},
        {"resources": {"threads": 8, "device": "cuda"}},
        {"params": {"b": [1.5, None], "a": 1}},
    ],
)
def test_key_ignores_paths_resources_and_order_of_params(changes: dict[str, Any]) -> None:
    assert key(**changes) == key()


@pytest.mark.parametrize(
    "changes",
    [
        {"step": "dataset"},
        {"version": 2},
        {"lock": "m" * 64},
        {"params": {"a": 2, "b": [1.5, None]}},
        {"params": {"a": 1}},
        {"inputs": {}},
        {"inputs": {"files": [file("/one", "1"), file("/two", "3")]}},
        {"inputs": {"files": [file("/two", "2"), file("/one", "1")]}},
        {"inputs": {"other": REQUEST["inputs"]["files"]}},
        {"inputs": {"files": REQUEST["inputs"]["files"][:1]}},
        {"stub": True},
    ],
)
def test_key_depends_on_everything_else(changes: dict[str, Any]) -> None:
    assert key(**changes) != key()


def test_every_field_of_a_request_is_either_in_the_key_or_known_not_to_be() -> None:
    assert set(Request.model_fields) == {"step", "version", "lock", "params", "inputs", "stub", "resources", "sources"}


def test_key_survives_the_way_through_json() -> None:
    request = Request.model_validate(REQUEST)
    assert Request.model_validate_json(request.model_dump_json()).key == request.key


@pytest.mark.parametrize(
    "changes", [{"unknown": 1}, {"resources": {"threads": 0}}, {"inputs": {"files": [{"path": "/one"}]}}]
)
def test_a_wrong_request_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Request.model_validate({**REQUEST, **changes})


def report() -> Report:
    return Report(
        status="ok",
        step="ingest",
        key="k" * 64,
        outputs={"structures": OutputFile(name="structures.parquet", sha256="3" * 64, size=77)},
        metrics={"structures": 3, "shortest_distance_A": 2.35, "elements": ["Si"], "worst": None},
        versions={"ase": "3.29.0"},
        seconds=1.25,
        peak_memory_MB=100.5,
    ).sealed()


def test_a_sealed_report_is_intact_also_after_a_file() -> None:
    assert report().intact
    assert Report.model_validate_json(report().model_dump_json(indent=1)).intact


def test_a_report_without_a_seal_is_not_intact() -> None:
    assert not report().model_copy(update={"seal": ""}).intact


def test_the_seal_notices_any_flipped_byte() -> None:
    whole = report().model_dump_json(indent=1).encode()
    for place in range(len(whole)):
        damaged = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        try:
            read = Report.model_validate_json(damaged)
        except ValidationError:
            continue
        assert not read.intact or read == report(), f"byte {place} ({whole[place : place + 1]!r}) went unnoticed"


@pytest.mark.parametrize(
    "change", [{"metrics": {"structures": 4}}, {"status": "failed"}, {"error": Failure(kind="BadInput", message="x")}]
)
def test_the_seal_covers_the_content(change: dict[str, Any]) -> None:
    assert not report().model_copy(update=change).intact


def test_inputs_by_name() -> None:
    inputs = Inputs({"files": (Path("/a"), Path("/b")), "model": (Path("/m"),)})
    assert inputs.all("files") == (Path("/a"), Path("/b"))
    assert inputs.all("absent") == ()
    assert inputs.one("model") == Path("/m")


def test_an_unknown_step_is_refused_with_the_list() -> None:
    with pytest.raises(StepError, match=r"no step is called 'lable'.*mace_label"):
        load_step("lable")


def test_ingest_is_a_step_module() -> None:
    module = load_step("ingest")
    assert module.VERSION >= 1
    assert STEPS["ingest"] == "containers.ingest.ingest"
    assert module.IMAGE == "tensorpot"


def test_canonical_json_is_one_form_for_equal_values() -> None:
    assert canonical_json({"b": 1, "a": [True, None, 1.5]}) == b'{"a":[true,null,1.5],"b":1}'
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json(float("nan"))


def test_write_atomic_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_file_digest_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert file_digest(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
