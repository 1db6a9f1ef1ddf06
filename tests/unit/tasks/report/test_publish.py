"""The run folder and the two JSON files of a finished run."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from containers.contract import file_digest
from containers.tensorpot.student.baseline import Baseline, PairTerm
from containers.tensorpot.student.lammps_table import POINTS
from tasks.errors import StoreError
from tasks.report.publish import publish, report_json
from tasks.report.summary import PUBLISHED, AttemptSummary, RunSummary
from tasks.report.usage import lammps_input

FIT = {
    "fit/README.md", "fit/1-attempt-1/input.yaml", "fit/1-attempt-1/train.pckl.gzip",
    "fit/1-attempt-1/validation.pckl.gzip", "fit/2-attempt-2/input.yaml", "fit/2-attempt-2/train.pckl.gzip",
    "fit/2-attempt-2/validation.pckl.gzip", "fit/2-attempt-2/start.yaml",
}  # fmt: skip
EVERY_FILE = FIT | {
    "potential.yaml", "potential.yace", "potential.asi", "structure.data", "in.lammps", "report.html", "report.json",
    "manifest.json", "labels.extxyz", "labels.cfg", "rejected.parquet", "set_aside.parquet", "dataset.parquet",
    "selection.parquet", "frames.extxyz", "dataset.json", "frames.json",
    "baseline.json", "reference.table", "calculator.py", "ml_peg.yml",
}  # fmt: skip


def files_of(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def no_pictures(summary: RunSummary) -> dict[str, bytes]:
    """In place of `draw`, which takes most of the time."""
    return {}


@pytest.fixture
def folder(finished: RunSummary, tmp_path: Path) -> Path:
    publish(finished, tmp_path / "runs" / "silicon", no_pictures)
    return tmp_path / "runs" / "silicon"


def test_ml_peg_finds_the_calculator_in_the_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ML-PEG does: import the module, look up the class, pass device, dtype and kwargs."""
    entry = yaml.safe_load((folder / "ml_peg.yml").read_text())["silicon"]
    assert entry["additional_supported_elements"] == ["Si"]
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, entry["module"], raising=False)
    module = importlib.import_module(entry["module"])
    monkeypatch.delitem(sys.modules, entry["module"])
    assert Path(str(module.__file__)) == folder / "calculator.py"
    found: list[tuple[Path, ...]] = []
    monkeypatch.setattr(module, "load", lambda *files: found.append(files))
    getattr(module, entry["class_name"])(**entry["kwargs"], device=entry["device"], default_dtype="float64")
    assert found == [tuple(folder / name for name in ("potential.yaml", "baseline.json", "potential.asi"))]


def test_the_folder_has_a_copy_of_every_file_and_a_manifest(folder: Path, tmp_path: Path, finished: RunSummary) -> None:
    assert folder == tmp_path / "runs" / "silicon"
    assert files_of(folder) == EVERY_FILE
    for name, source in ((name, finished.files[name]) for name in PUBLISHED):
        assert (folder / name).read_bytes() == source.read_bytes()
        assert not (folder / name).samefile(source)
    potential = (folder / "potential.yaml").read_text()
    (folder / "potential.yaml").write_text("edited")
    assert finished.files["potential.yaml"].read_text() == "content of potential.yaml\n"
    (folder / "potential.yaml").write_text(potential)
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


def test_report_has_the_promised_figures(folder: Path, finished: RunSummary) -> None:
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
    worse = finished.model_copy(update={"converged": False, "not_converged_because": "force MAE 130 is above 120"})
    report = report_json(worse)
    assert (report["converged"], report["not_converged_because"]) == (False, "force MAE 130 is above 120")
    evaluation = json.loads(finished.files["evaluation"].read_text())
    finished.files["evaluation"].write_text(json.dumps({**evaluation, "dft": None}))
    assert report_json(RunSummary.model_validate(finished.model_dump()))["fidelity"]["dft"] is None


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
    assert (tmp_path / "run" / "report.html").read_text().count("data:image/png;base64,") == 7
    counts = {key: text.count("data:image/png") for key, text in texts.items()}
    assert counts == {
        "card": 3,
        "labels": 2,
        "attempts": 0,
        "learning-curve": 1,
        "parity": 3,
        "properties": 0,
        "trajectory": 0,
    }
    assert max(map(len, texts.values())) < 1_000_000


def test_publishing_twice_gives_the_same_bytes_and_a_vanished_file_the_old_folder(
    finished: RunSummary, folder: Path
) -> None:
    before = {name: (folder / name).read_bytes() for name in files_of(folder)}
    publish(finished, folder, no_pictures)
    assert {name: (folder / name).read_bytes() for name in files_of(folder)} == before
    finished.files["potential.asi"].unlink()
    with pytest.raises(StoreError, match=r"potential\.asi"):
        publish(finished, folder, no_pictures)
    assert files_of(folder) == EVERY_FILE


@pytest.mark.parametrize("name", ["../elsewhere", ".hidden", "a/b", "two\nlines", ""])
def test_a_name_that_is_no_folder_name_is_refused(finished: RunSummary, name: str) -> None:
    with pytest.raises(ValidationError, match="name"):
        RunSummary.model_validate({**finished.model_dump(), "name": name})


# ---- the lines that LAMMPS runs, apart from its comments


FROM = "pool.extxyz, row 3 (from 0)"
E0S = {"Al": -0.1, "Ni": -0.2500000000000001}
TERM = PairTerm(form="lj", epsilon_eV=0.5, sigma_A=2.125, inner_A=4.0, outer_A=5.0)


def written(finished: RunSummary, elements: tuple[str, ...], baseline: Baseline, neighbours: int) -> str:
    frames = finished.steps["frames"]
    metrics = {**frames.metrics, "lammps_structure": FROM, "lammps_neighbours": neighbours}
    steps = {"frames": frames.model_copy(update={"metrics": metrics})}
    return lammps_input(finished.model_copy(update={"elements": elements, "baseline": baseline, "steps": steps}))


@pytest.fixture
def text(finished: RunSummary) -> str:
    """Input of a potential without pair terms."""
    return written(finished, ("Al", "Ni"), Baseline(e0s_eV=E0S), 120)


@pytest.fixture
def with_pairs(finished: RunSummary) -> str:
    """Input of a potential with pair terms, and more neighbours than LAMMPS takes on a GPU."""
    return written(finished, ("Ni", "Al"), Baseline(e0s_eV=E0S, pairs={"Al-Ni": TERM}), 381)


def commands(text: str) -> list[str]:
    lines = [line.split("#")[0].strip() for line in text.splitlines()]
    return [line for line in lines if line]


def test_runs_one_point_with_this_potential_and_says_the_rest_in_comments(text: str) -> None:
    assert commands(text) == [
        "units metal",
        "atom_style atomic",
        "boundary p p p",
        "read_data structure.data",
        "mass 1 26.9815",
        "mass 2 58.6934",
        "pair_style pace recursive",
        "pair_coeff * * potential.yace Al Ni",
        "thermo 10",
        "run 0",
    ]
    assert "Energies exclude the reference energies" in text
    assert "#   Al: -0.1 eV" in text
    assert "#   Ni: -0.2500000000000001 eV" in text
    assert f"# A structure of the training set: {FROM}." in text
    assert "exactly 2 atom types: 1 = Al, 2 = Ni" in text
    assert "# pair_style pace/extrapolation" in text
    assert "# pair_coeff * * potential.yaml potential.asi Al Ni" in text


def test_with_pair_terms_their_tables_are_laid_over_the_potential(with_pairs: str, text: str) -> None:
    assert [line for line in commands(with_pairs) if line.startswith("pair_")] == [
        f"pair_style hybrid/overlay pace recursive table spline {POINTS}",
        "pair_coeff * * pace potential.yace Ni Al",
        "pair_coeff 1 1 table reference.table Ni-Ni",
        "pair_coeff 1 2 table reference.table Al-Ni",
        "pair_coeff 2 2 table reference.table Al-Al",
    ]
    assert f"# pair_style hybrid/overlay pace/extrapolation table spline {POINTS}" in with_pairs
    assert "# pair_coeff * * pace/extrapolation potential.yaml potential.asi Ni Al" in with_pairs
    assert with_pairs.count("pair_coeff 1 2 table reference.table Al-Ni") == 2
    assert "conda install -c conda-forge lammps" in text
    assert "up to 120 neighbours" in text
    assert "WARNING" not in text
    assert "up to 381 neighbours" in with_pairs
    assert "WARNING: pace/kk on a GPU stops above about 380" in with_pairs.replace("\n# ", " ")
    assert max(map(len, (text + with_pairs).splitlines())) <= 120
