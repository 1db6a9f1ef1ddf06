"""Requests and their keys, reports and their seals, what a step may import, and errors of a prediction."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
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
from containers.metrics import errors as metric_errors

REPOSITORY = Path(__file__).parents[3]
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


def test_every_field_is_in_the_key_or_known_not_to_be_and_survives_json() -> None:
    assert set(Request.model_fields) == {"step", "version", "lock", "params", "inputs", "stub", "resources", "sources"}
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


def test_a_sealed_report_is_intact_and_one_without_a_seal_is_not() -> None:
    assert report().intact
    assert Report.model_validate_json(report().model_dump_json(indent=1)).intact
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


def test_inputs_by_name_and_one_form_of_json_for_equal_values() -> None:
    inputs = Inputs({"files": (Path("/a"), Path("/b")), "model": (Path("/m"),)})
    assert inputs.all("files") == (Path("/a"), Path("/b"))
    assert inputs.all("absent") == ()
    assert inputs.one("model") == Path("/m")
    assert canonical_json({"b": 1, "a": [True, None, 1.5]}) == b'{"a":[true,null,1.5],"b":1}'
    with pytest.raises(ValueError, match="Out of range"):
        canonical_json(float("nan"))


def test_a_step_is_found_by_name_and_an_unknown_one_refused_with_the_list() -> None:
    with pytest.raises(StepError, match=r"no step is called 'lable'.*mace_label"):
        load_step("lable")
    module = load_step("ingest")
    assert module.VERSION >= 1
    assert STEPS["ingest"] == "containers.ingest.ingest"
    assert module.IMAGE == "tensorpot"


ENGINES = {"torch", "mace", "e3nn", "tensorflow", "pyace", "tensorpotential", "prefect"}
LIGHT = ("teacher.description", "labelling.batches", "labelling.predictions", "labelling.workers")
WITHOUT_TABLES = ("tensorpot.core.pace_corerep", "tensorpot.baseline.baseline", "tensorpot.evaluation.stability")


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        (["flows.fit.repairs", *STEPS.values(), *(f"containers.mace.{name}" for name in LIGHT)], ENGINES),
        ([f"containers.{name}" for name in WITHOUT_TABLES], {"pandas"}),
        (["tasks.report.publish"], {"matplotlib"}),
    ],
    ids=["every step", "steps without tables", "report"],
)
def test_a_module_loads_no_heavy_library(modules: list[str], heavy: set[str]) -> None:
    code = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert not heavy & set(done.stdout.split())


def test_write_atomic_leaves_nothing_beside_and_digests_are_sha256(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_atomic(path, b"old")
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "empty").touch()
    assert file_digest(tmp_path / "empty") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


# ---- errors of a prediction


def test_errors_are_plain_numbers_in_thousandths_and_named() -> None:
    found = metric_errors("force", "meV_per_A", [[0.0, 1.0], [2.0, 3.0]], [[0.0, 1.0], [2.0, 3.004]])
    assert found == {
        "force_mae_meV_per_A": pytest.approx(1.0),
        "force_rmse_meV_per_A": pytest.approx(2.0),
        "force_max_meV_per_A": pytest.approx(4.0),
    }
    found = metric_errors("energy", "meV_per_atom", [1.0, 1.0], [0.999, 1.001])
    assert list(found.values()) == pytest.approx([1.0, 1.0, 1.0])
    assert set(metric_errors("energy", "meV_per_atom", [1.0], [1.0]).values()) == {0.0}
    assert set(metric_errors("stress", "meV_per_A3", [], []).values()) == {None}
    found = metric_errors("energy", "meV_per_atom", np.ones(2, dtype=np.float32), np.zeros(2))
    assert all(type(figure) is float for figure in found.values())


@pytest.mark.parametrize("predicted", [np.zeros((3, 1)), np.zeros(1), np.zeros(4)])
def test_other_shapes_are_refused(predicted: np.ndarray) -> None:
    with pytest.raises(ValueError, match="energy: reference has shape"):
        metric_errors("energy", "meV_per_atom", np.zeros(3), predicted)
