"""The run folder and the two JSON files of a finished run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from containers.contract import file_digest
from tasks.errors import StoreError
from tasks.report.publish import publish, report_json
from tasks.report.summary import PUBLISHED, AttemptSummary, RunSummary

FIT = {
    "fit/README.md", "fit/1-attempt-1/input.yaml", "fit/1-attempt-1/train.pckl.gzip",
    "fit/1-attempt-1/validation.pckl.gzip", "fit/2-attempt-2/input.yaml", "fit/2-attempt-2/train.pckl.gzip",
    "fit/2-attempt-2/validation.pckl.gzip", "fit/2-attempt-2/start.yaml",
}  # fmt: skip
EVERY_FILE = FIT | {
    "potential.yaml", "potential.yace", "potential.asi", "structure.data", "in.lammps", "report.html", "report.json",
    "manifest.json", "labels.extxyz", "labels.cfg", "rejected.parquet", "set_aside.parquet", "dataset.parquet",
    "selection.parquet", "frames.extxyz", "dataset.json", "frames.json",
    "baseline.json", "reference.table", "calculator.py",
}  # fmt: skip


def files_of(folder: Path) -> set[str]:
    """Their names, from the folder on."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def no_pictures(summary: RunSummary) -> dict[str, bytes]:
    """In place of `draw`, which takes most of the time."""
    return {}


@pytest.fixture
def folder(finished: RunSummary, tmp_path: Path) -> Path:
    publish(finished, tmp_path / "runs" / "silicon", no_pictures)
    return tmp_path / "runs" / "silicon"


def test_the_folder_has_every_file_and_no_other(folder: Path, tmp_path: Path) -> None:
    assert folder == tmp_path / "runs" / "silicon"
    assert files_of(folder) == EVERY_FILE


def test_store_files_are_copied_under_the_names_of_the_run(finished: RunSummary, folder: Path) -> None:
    for name, source in ((name, finished.files[name]) for name in PUBLISHED):
        assert (folder / name).read_bytes() == source.read_bytes()
        assert not (folder / name).samefile(source)


def test_editing_the_run_folder_leaves_the_store_alone(finished: RunSummary, folder: Path) -> None:
    (folder / "potential.yaml").write_text("edited")
    assert finished.files["potential.yaml"].read_text() == "content of potential.yaml\n"


def test_manifest_names_what_the_result_came_from(finished: RunSummary, folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["files"] == {name: file_digest(folder / name) for name in EVERY_FILE - {"manifest.json"}}
    assert manifest["config"] == finished.config
    assert manifest["versions"] == finished.versions
    assert manifest["inputs"] == finished.inputs
    assert manifest["seeds"] == {"train": 42}
    assert manifest["reference_energies"] == {
        "from": "teacher",
        "e0s_eV": {"Si": -0.8125},
        "kind": "probably_isolated_atoms",
        "median_energy_of_training_structures_less_e0s_eV_per_atom": {"all": -4.5, "Si": -4.5},
    }
    assert manifest["artefacts"]["ingest"] == "ab" * 32
    assert manifest["seconds"]["pool_labels"] == 12.34


def test_report_has_the_promised_figures(folder: Path) -> None:
    report = json.loads((folder / "report.json").read_text())
    rejected_by = {"force": 2, "distance": 1}
    assert report["labels"] == {"computed": 200, "reused": 102, "rejected": 2, "rejected_by": rejected_by}
    assert report["labelling"]["atoms_per_s"] == 3400.0
    assert report["selection"]["pool"] == 300
    assert report["selection"]["selected"] == 120
    first, second = report["train"]["attempts"]
    assert first["plan"]["maxiter"] == 40
    assert (first["verdict"], first["iterations"], first["seconds"]) == ("iterations_used_up", 40, 130.4)
    assert (second["verdict"], second["stage"], second["resumed_at"]) == ("converged", 2, 12)
    assert (first["stop_criterion"], first["best_iteration"]) == ("its 40 iterations are used up", 30)
    assert first["last_validation"] == {"force_mae_meV_per_A": 46.5}
    assert report["train"]["chosen"] == 1
    assert report["fidelity"]["teacher"]["force_mae_meV_per_A"] == 45.3
    assert report["fidelity"]["dft"]["force_mae_meV_per_A"] == 57.7
    fits = {"train 1": 130.4, "train 2": 130.4}  # also those that left no artefact
    assert (
        report["seconds"]
        == dict.fromkeys(["ingest", "pool_labels", "baseline", "frames", "pace_train 1"], 12.34) | fits
    )
    assert (report["converged"], report["not_converged_because"]) == (True, None)
    assert report["core_repulsion"]["Si-Si"]["r_in_A"] == 1.9


def test_report_without_dft_data(finished: RunSummary) -> None:
    evaluation = json.loads(finished.files["evaluation"].read_text())
    finished.files["evaluation"].write_text(json.dumps({**evaluation, "dft": None}))
    assert report_json(finished)["fidelity"]["dft"] is None


def test_an_unconverged_run_says_why(finished: RunSummary) -> None:
    worse = finished.model_copy(update={"converged": False, "not_converged_because": "force MAE 130 is above 120"})
    report = report_json(worse)
    assert (report["converged"], report["not_converged_because"]) == (False, "force MAE 130 is above 120")


def test_not_a_number_of_a_diverged_fit_becomes_none(finished: RunSummary, tmp_path: Path) -> None:
    diverged = AttemptSummary(
        name="train 1", plan={}, verdict="diverged", seconds=1.0, train={"force_mae_meV_per_A": float("nan")}
    )
    run = finished.model_copy(update={"attempts": (diverged, finished.attempts[1])})
    publish(run, tmp_path / "run", no_pictures)
    report = json.loads((tmp_path / "run" / "report.json").read_text())
    assert report["train"]["attempts"][0]["train"] == {"force_mae_meV_per_A": None}
    assert report["train"]["attempts"][0]["iterations"] is None


def test_pictures_reach_the_page_and_the_artifacts(finished: RunSummary, tmp_path: Path) -> None:
    texts = publish(finished, tmp_path / "run")
    assert (tmp_path / "run" / "report.html").read_text().count("data:image/png;base64,") == 6
    counts = {key: text.count("data:image/png") for key, text in texts.items()}
    assert counts == {"labels": 2, "attempts": 0, "learning-curve": 1, "parity": 2}
    assert max(map(len, texts.values())) < 1_000_000


def test_publishing_twice_gives_the_same_bytes(finished: RunSummary, folder: Path) -> None:
    before = {name: (folder / name).read_bytes() for name in files_of(folder)}
    publish(finished, folder, no_pictures)
    assert {name: (folder / name).read_bytes() for name in files_of(folder)} == before


def test_a_store_file_that_vanished_leaves_the_old_folder(finished: RunSummary, folder: Path) -> None:
    finished.files["potential.asi"].unlink()
    with pytest.raises(StoreError, match=r"potential\.asi"):
        publish(finished, folder, no_pictures)
    assert files_of(folder) == EVERY_FILE


@pytest.mark.parametrize("name", ["../elsewhere", ".hidden", "a/b", "two\nlines", ""])
def test_a_name_that_is_no_folder_name_is_refused(finished: RunSummary, name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        RunSummary.model_validate({**finished.model_dump(), "name": name})
