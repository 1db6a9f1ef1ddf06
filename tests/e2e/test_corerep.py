"""The core and the export of a really fitted potential: ASE's effective-medium copper."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from containers.contract import Inputs, Machine
from containers.tensorpot.active_set import pace_activeset
from containers.tensorpot.core import pace_corerep
from containers.tensorpot.evaluation.invariants import LIMITS, Invariants
from containers.tensorpot.frames.frame_file import Labelled, frame, write_frame
from containers.tensorpot.pacemaker.input import Potential
from containers.tensorpot.student.baseline import Baseline
from tests.e2e.copper import Fit

pytestmark = pytest.mark.e2e


@dataclass(frozen=True)
class Exported:
    """What the core step makes of a fit."""

    folder: Path
    metrics: dict[str, Any]

    def path(self, name: str) -> Path:
        return self.folder / pace_corerep.OUTPUTS[name]

    @property
    def pair(self) -> dict[str, Any]:
        return dict(json.loads(self.path("core_repulsion").read_text())["pairs"]["Cu-Cu"])


def export(folder: Path, fit: Fit, params: pace_corerep.Params) -> Exported:
    """The active set and the core of a fit."""
    folder.mkdir()
    files = {"potential": (fit.path("interim"),), "train": fit.files["train"]}
    pace_activeset.run(Inputs(files), folder, pace_activeset.Params(), Machine())
    Baseline(e0s_eV={"Cu": 0.0}).write(folder / "baseline.json")
    inputs = {"interim": files["potential"], "asi": (folder / "potential.asi",), "train": files["train"]}
    inputs["baseline"] = (folder / "baseline.json",)
    return Exported(folder, pace_corerep.run(Inputs(inputs), folder, params, Machine()))


@pytest.fixture(scope="module")
def exported(copper_fit: Fit, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(tmp_path_factory.mktemp("export") / "core", copper_fit, pace_corerep.Params())


def calculator(path: Path) -> Any:
    from pyace import PyACECalculator

    return PyACECalculator(str(path))


def energy_of(potential: Any, atoms: Atoms) -> float:
    potential.calculate(atoms)
    return float(potential.results["energy"])


def test_no_atom_of_the_data_is_inside_the_core_so_the_errors_stay(copper_fit: Fit, exported: Exported) -> None:
    assert exported.metrics["share_of_pairs_inside"] == {"Cu-Cu": 0.0}
    for name in ("energy_rmse_meV_per_atom", "force_rmse_meV_per_A", "force_mae_meV_per_A"):
        assert exported.metrics[f"train_{name}"] == pytest.approx(copper_fit.metrics[f"train_{name}"], rel=1e-9)


def test_nothing_of_time_or_user_is_in_the_outputs(exported: Exported) -> None:
    text = exported.path("potential").read_text()
    assert "time" not in text
    assert "user" not in text


def test_the_invariants_hold_for_a_fitted_potential(exported: Exported) -> None:
    """Far from their limits: the arithmetic alone breaks them. LAMMPS may be missing here."""
    found = Invariants.model_validate(exported.metrics["invariants"])
    checked = {name for name in LIMITS if not name.startswith("lammps")}
    assert checked <= set(found.figures)
    assert all(found.figures[name].value < 0.1 * found.figures[name].limit for name in checked)


@pytest.mark.parametrize("name", ["potential", "yace"])
def test_the_dimer_rises_strictly_from_a_tenth_outside_to_half_an_angstrom(exported: Exported, name: str) -> None:
    r_in = exported.pair["r_in_A"]
    potential = calculator(exported.path(name))
    distances = np.append(np.arange(r_in + 0.1, 0.5, -0.01), 0.5)
    dimers = [Atoms("Cu2", [[0, 0, 0], [distance, 0, 0]], cell=[12] * 3, pbc=True) for distance in distances]
    energies = np.array([energy_of(potential, dimer) for dimer in dimers])
    assert (np.diff(energies) > 0).all()
    assert energies[-1] > 1000


def test_r_in_is_the_largest_of_shortest_distance_and_grade_and_is_reported(exported: Exported) -> None:
    pair = exported.pair
    assert pair["r_in_A"] == pytest.approx(max(pair["shortest_distance_A"], pair["gamma_10_distance_A"]), abs=1e-5)
    assert pair["distance_A"][0] == pytest.approx(pair["r_in_A"] + 0.1)
    assert pair["distance_A"][-1] == 0.5
    assert pair["energy_eV"][-1] == pytest.approx(pair["zbl_eV"][-1], rel=1e-3)
    assert pair["force_eV_per_A"][-1] == pytest.approx(pair["zbl_force_eV_per_A"][-1], rel=1e-3)
    slopes = np.gradient(pair["energy_eV"], pair["distance_A"])
    assert -slopes[2:-2] == pytest.approx(pair["force_eV_per_A"][2:-2], rel=0.1, abs=0.5)


def test_a_wider_reach_of_the_grade_moves_the_core_out(copper_fit: Fit, exported: Exported, tmp_path: Path) -> None:
    """As pacemaker's own program takes it: the 99 % quantile of compressed training structures."""
    wide = export(tmp_path / "wide", copper_fit, pace_corerep.Params(gamma_quantile=0.99)).pair
    assert wide["gamma_10_distance_A"] > exported.pair["gamma_10_distance_A"]
    assert wide["r_in_A"] >= wide["gamma_10_distance_A"] - 1e-6
    assert np.all(np.diff(wide["energy_eV"]) > 0)


def test_a_given_r_in_is_kept_and_none_leaves_the_fit_bare(copper_fit: Fit, tmp_path: Path) -> None:
    given = export(tmp_path / "given", copper_fit, pace_corerep.Params(r_in_A={"Cu-Cu": 1.7}))
    assert given.pair["r_in_A"] == 1.7
    bare = export(tmp_path / "bare", copper_fit, pace_corerep.Params(core="none"))
    assert bare.path("potential").read_bytes() == copper_fit.path("interim").read_bytes()
    assert "{}" in bare.path("core_repulsion").read_text()


def test_every_pair_of_two_elements_gets_a_core_that_rises(tmp_path: Path) -> None:
    from pyace.basisextension import construct_bbasisconfiguration

    from containers.tensorpot.core.inner_radius import Core, add_core

    section = Potential(elements=("Al", "Ni"), cutoff=4.5, order=2, functions_per_element=40, b_basis="small").section()
    np.random.seed(3)  # pyace draws the coefficients
    section["functions"]["ALL"]["coefs_init"] = "random"
    configuration = construct_bbasisconfiguration(section)
    configuration.save(str(tmp_path / "random.yaml"))
    structures = [bulk("Al", cubic=True), bulk("Ni", cubic=True)]
    write_frame(
        tmp_path / "train.pckl.gzip",
        frame([Labelled(str(n), atoms, 0.0, 0.0, np.zeros((4, 3)), None) for n, atoms in enumerate(structures)]),
    )
    files = {"potential": (tmp_path / "random.yaml",), "train": (tmp_path / "train.pckl.gzip",)}
    pace_activeset.run(Inputs(files), tmp_path, pace_activeset.Params(), Machine())
    _, cores = add_core(Core(configuration, structures, {}), tmp_path / "potential.asi", None, 0.0)
    assert set(cores) == {"Al-Al", "Al-Ni", "Ni-Ni"}
    assert cores["Al-Ni"].shortest_distance_A is None
    assert cores["Ni-Ni"].shortest_distance_A == pytest.approx(3.52 / np.sqrt(2))
    for core in cores.values():
        assert (np.diff(core.energy_eV) > 0).all()
        assert core.zbl_eV[-1] == pytest.approx(core.energy_eV[-1], rel=1e-3)
