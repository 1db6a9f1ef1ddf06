"""Delta learning with a really fitted student: copper by ASE's effective-medium theory, less a pair potential."""

from __future__ import annotations

import importlib.util
import json
import math
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from scipy.interpolate import CubicSpline

from containers.contract import BadInput, Inputs, Machine
from containers.structures.table import labels_table, structure_id, write_table
from containers.tensorpot.active_set import pace_activeset
from containers.tensorpot.baseline import baseline
from containers.tensorpot.core import pace_corerep
from containers.tensorpot.fit import pace_train
from containers.tensorpot.fit.log import NEW_REFERENCE
from containers.tensorpot.frames.frame_file import ENERGY_RANGE, Labelled, read_frame
from containers.tensorpot.pacemaker.input import Potential
from containers.tensorpot.student import calculator
from containers.tensorpot.student.baseline import Baseline
from containers.tensorpot.student.lammps import pair_lines
from containers.tensorpot.student.lammps_table import CLOSEST, POINTS
from containers.tensorpot.student.potential import predict
from tests.e2e.copper import fitted, write_frames

pytestmark = pytest.mark.e2e

E0 = {"Cu": -0.02}
CUTOFF = 4.0
REFERENCES: dict[str, dict[str, Any]] = {
    "zbl": {"reference_potential": "zbl", "difference": True},
    "lj": {"reference_potential": "lj", "lj": "auto"},
}


def copper(count: int, seed: int) -> list[Atoms]:
    """Strained and rattled cells of 2 and 4 atoms with the energies, forces and stress of EMT."""
    rng = np.random.default_rng(seed)
    made = []
    for n in range(count):
        atoms = bulk("Cu", cubic=True) if n % 3 else bulk("Cu") * (2, 1, 1)
        strain = np.eye(3) * (1 + rng.uniform(-0.1, 0.08)) + rng.normal(0, 0.03, (3, 3))
        atoms.set_cell(atoms.cell.array @ strain, scale_atoms=True)
        atoms.rattle(0.12, rng=rng)
        made.append(labelled(atoms, f"{seed}-{n}"))
    return made


def labelled(atoms: Atoms, family: str) -> Atoms:
    atoms.calc = EMT()
    energy, forces, stress = atoms.get_potential_energy(), atoms.get_forces(), atoms.get_stress()
    atoms.info = {"id": structure_id(atoms), "source": "emt", "row": 0, "group": "", "family": family}
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces, stress=stress)
    return atoms


@dataclass(frozen=True)
class Made:
    """The folder of a run, and what went into its frames."""

    folder: Path
    interim: Path
    baseline: Baseline
    train: list[Atoms]
    core: dict[str, Any]

    @property
    def terms(self) -> dict[str, dict[str, Any]]:
        return {name: term.model_dump() for name, term in self.baseline.pairs.items()}

    def file(self, name: str) -> Path:
        return self.folder / name


def row(atoms: Atoms, base: Baseline) -> Labelled:
    """What the frames step makes of a label."""
    labels = atoms.calc.results
    energy, forces, _ = calculator.pair_terms(atoms, {name: term.model_dump() for name, term in base.pairs.items()})
    corrected = labels["energy"] - sum(base.e0s_eV[symbol] for symbol in atoms.symbols) - energy
    rest = labels["forces"] - forces
    return Labelled(
        atoms.info["id"], atoms, labels["energy"], corrected, rest, labels["stress"], forces_total=labels["forces"]
    )


def make(folder: Path, reference: dict[str, Any], interim: Path | None = None) -> Made:
    """Baseline, frames, fit, active set, core: the steps as the flow runs them, all in one folder.

    Args:
        interim: potential to take in the place of a fit.
    """
    train, validation = copper(30, 1), copper(6, 2)
    write_table(folder / "labels.parquet", labels_table([*train, *validation]))
    asked = baseline.Params(elements=("Cu",), cutoff=CUTOFF, teacher_e0s_eV=E0, **reference)
    baseline.run(Inputs({"labels": (folder / "labels.parquet",)}), folder, asked, Machine())
    base = Baseline.read(folder / "baseline.json")
    files = write_frames(folder, *([row(atoms, base) for atoms in side] for side in (train, validation)))
    if interim is None:
        shape = Potential(elements=("Cu",), cutoff=CUTOFF, functions_per_element=30, b_basis="small")
        params = pace_train.Params(potential=shape, maxiter=40, core=False)  # core: as for labels that are differences
        interim = fitted(folder, files, params).path("interim")
    inputs = {"potential": (interim,), "train": files["train"]}
    pace_activeset.run(Inputs(inputs), folder, pace_activeset.Params(), Machine())
    core = "reference" if base.pairs else "zbl"
    pace_corerep.run(core_inputs(folder, interim), folder, pace_corerep.Params(core=core), Machine())
    return Made(folder, interim, base, train, json.loads((folder / "core_repulsion.json").read_text())["pairs"])


def core_inputs(folder: Path, interim: Path) -> Inputs:
    """The inputs of the core step in a folder."""
    names = {"asi": "potential.asi", "train": "train.pckl.gzip", "baseline": "baseline.json"}
    return Inputs({"interim": (interim,)} | {name: (folder / file,) for name, file in names.items()})


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A student of copper less a Lennard-Jones potential."""
    return make(tmp_path_factory.mktemp("lj"), REFERENCES["lj"])


@pytest.fixture(scope="module", params=sorted(REFERENCES))
def made(request: pytest.FixtureRequest, learned: Made, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """That student; with the other reference the same potential, which has not learned that difference."""
    if request.param == "lj":
        return learned
    return make(tmp_path_factory.mktemp(request.param), REFERENCES[request.param], learned.interim)


def test_the_input_asks_for_repulsion_only_when_told(learned: Made) -> None:
    assert "repulsion" not in learned.file("outputs/input.yaml").read_text()


def test_the_student_learned_the_difference(learned: Made) -> None:
    """Nearer to the labels than reference alone or a constant: the spread of the energies is 40 meV/atom and more."""
    files = (learned.file(name) for name in ("potential.yaml", "baseline.json", "potential.asi"))
    whole = calculator.load(*files)
    errors = [whole.get_potential_energy(atoms.copy()) - atoms.calc.results["energy"] for atoms in learned.train]
    sizes = np.array([len(atoms) for atoms in learned.train])
    energies = np.array([atoms.calc.results["energy"] for atoms in learned.train]) / sizes
    assert np.sqrt(np.mean(np.square(errors / sizes))) < 0.2 * energies.std()


def test_subtraction_and_addition_cancel(made: Made) -> None:
    table = read_frame(made.file("train.pckl.gzip"))
    for atoms, corrected, forces in zip(made.train, table["energy_corrected"], table["forces"], strict=True):
        energy, pair_forces, _ = calculator.pair_terms(atoms, made.terms)
        again = corrected + energy + E0["Cu"] * len(atoms)
        assert again == pytest.approx(atoms.calc.results["energy"], abs=1e-10)
        np.testing.assert_allclose(forces + pair_forces, atoms.calc.results["forces"], atol=1e-10)


def test_corrected_energies_stay_where_pacemaker_keeps_our_reference(made: Made) -> None:
    for side in ("train", "validation"):
        assert energies_of(made, side).between(*ENERGY_RANGE).all()


def energies_of(made: Made, side: str) -> pd.Series:
    """Energies that are fitted, in eV/atom."""
    table = read_frame(made.file(f"{side}.pckl.gzip"))
    return table["energy_corrected"] / table["ase_atoms"].map(len)


def test_pacemaker_says_that_it_fits_what_the_frames_hold(learned: Made) -> None:
    """Where it takes energies of its own off, it says so too."""
    sides = [energies_of(learned, side) for side in ("train", "validation")]
    log = learned.file("work/log.txt").read_text()
    told = re.findall(r"Min/max energy per atom: \[(\S+), (\S+)\]", log)
    assert told == [(f"{side.min():.3f}", f"{side.max():.3f}") for side in sides]
    assert "Reference energy is provided" not in log
    assert NEW_REFERENCE not in log


def own_calculator(made: Made) -> Any:
    """The module as the user gets it: a file in the run's folder, imported from there."""
    shutil.copyfile(calculator.__file__, made.file("calculator.py"))
    spec = importlib.util.spec_from_file_location("calculator", made.file("calculator.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.calculator()


def test_our_calculator_is_student_plus_reference_computed_apart(made: Made) -> None:
    """The reference by ASE where it has one (Lennard-Jones without our switch would differ), else by the formula."""
    whole = own_calculator(made)
    for atoms in made.train[:6]:
        bare, forces = predict(str(made.file("potential.yaml")), [atoms])
        energy, added = by_formula(atoms, made)
        seen = atoms.copy()
        seen.calc = whole
        assert seen.get_potential_energy() == pytest.approx(bare[0] + energy + E0["Cu"] * len(atoms), abs=1e-9)
        np.testing.assert_allclose(seen.get_forces(), forces[0] + added, atol=1e-8)
        assert whole.results["gamma"].max() < 1.02


def by_formula(atoms: Atoms, made: Made) -> tuple[float, np.ndarray]:
    """The pair terms over images, written down apart from our module: energy, and forces by finite differences."""
    term = made.baseline.pairs["Cu-Cu"]

    def of_distance(r: float) -> float:
        x = min(max((r - term.inner_A) / (term.outer_A - term.inner_A), 0.0), 1.0)
        switch = 1 - 10 * x**3 + 15 * x**4 - 6 * x**5
        if term.form == "lj":
            assert term.sigma_A is not None
            assert term.epsilon_eV is not None
            return 4 * term.epsilon_eV * ((term.sigma_A / r) ** 12 - (term.sigma_A / r) ** 6) * switch
        a = 0.46850 / (2 * 29**0.23)
        phi = sum(
            c * math.exp(-e * r / a)
            for c, e in ((0.18175, 3.1998), (0.50986, 0.94229), (0.28022, 0.4029), (0.02817, 0.20162))
        )
        return 14.399645351950543 * 29 * 29 / r * phi * switch

    images = [np.array(n) @ atoms.cell.array for n in np.ndindex(9, 9, 9)]
    centre = np.array([4, 4, 4]) @ atoms.cell.array

    def energy(positions: np.ndarray) -> float:
        found = 0.0
        for first in positions:
            distances = np.linalg.norm((positions[None] + np.array(images)[:, None] - centre) - first, axis=2).ravel()
            found += sum(of_distance(r) for r in distances if 1e-9 < r < term.outer_A)
        return found / 2

    forces, step = np.zeros((len(atoms), 3)), 1e-5
    for place in np.ndindex(forces.shape):
        moved = [atoms.positions.copy(), atoms.positions.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        forces[place] = -(energy(moved[0]) - energy(moved[1])) / (2 * step)
    return energy(atoms.positions), forces


class LammpsTable:
    """A section of a table as LAMMPS reads it with `spline N` and RSQ spacing of N points: splines in r² of E and F."""

    def __init__(self, path: Path, name: str) -> None:
        lines = path.read_text().splitlines()
        start = lines.index(name)
        head = lines[start + 1].split()
        self.count, self.low, self.high = int(head[1]), float(head[3]), float(head[4])
        assert head[2] == "RSQ"
        rows = np.array([line.split() for line in lines[start + 3 : start + 3 + self.count]], dtype=float)
        squares = np.linspace(self.low**2, self.high**2, self.count)
        np.testing.assert_allclose(rows[:, 1], np.sqrt(squares), rtol=1e-12)  # LAMMPS warns otherwise
        assert rows[:, 0].tolist() == list(range(1, self.count + 1))
        self.energy, self.force = CubicSpline(squares, rows[:, 2]), CubicSpline(squares, rows[:, 3])

    def of(self, atoms: Atoms) -> tuple[float, np.ndarray]:
        first, _, vectors = calculator.neighbours(atoms, self.high)
        distances = np.linalg.norm(vectors, axis=1)
        forces = np.zeros((len(atoms), 3))
        np.add.at(forces, first, -(self.force(distances**2) / distances)[:, None] * vectors)
        return float(self.energy(distances**2).sum() / 2), forces


def test_the_tables_of_the_lammps_input_give_our_pair_terms(made: Made) -> None:
    style, pace, table = (line.split() for line in pair_lines(("Cu",), pairs=True))
    assert style == ["pair_style", "hybrid/overlay", "pace", "recursive", "table", "spline", str(POINTS)]
    assert pace == ["pair_coeff", "*", "*", "pace", "potential.yace", "Cu"]
    assert table[:5] == ["pair_coeff", "1", "1", "table", "reference.table"]
    read = LammpsTable(made.file(table[4]), table[5])
    assert (read.count, read.low) == (POINTS, CLOSEST)
    for atoms in made.train:
        energy, forces, _ = calculator.pair_terms(atoms, made.terms)
        tabulated, table_forces = read.of(atoms)
        assert tabulated == pytest.approx(energy, abs=1e-8)
        np.testing.assert_allclose(table_forces, forces, atol=1e-7)
        bare, bare_forces = predict(str(made.file("potential.yace")), [atoms])
        seen = atoms.copy()
        seen.calc = calculator.calculator(made.folder)
        assert seen.get_potential_energy() == pytest.approx(bare[0] + tabulated + E0["Cu"] * len(atoms), abs=1e-6)
        np.testing.assert_allclose(seen.get_forces(), bare_forces[0] + table_forces, atol=1e-6)


def test_the_sum_rises_from_a_tenth_outside_r_in_to_half_an_angstrom(made: Made) -> None:
    pair = made.core["Cu-Cu"]
    assert pair["r_in_A"] >= pair["shortest_distance_A"] - 1e-6
    assert pair["r_in_A"] >= pair["gamma_10_distance_A"] - 1e-6
    whole = calculator.load(made.file("potential.yaml"), made.file("baseline.json"), None)
    distances = np.append(np.arange(pair["r_in_A"] + 0.1, 0.5, -0.01), 0.5)
    dimers = [Atoms("Cu2", [[0, 0, 0], [distance, 0, 0]]) for distance in distances]
    energies = np.array([whole.get_potential_energy(dimer) for dimer in dimers])
    assert (np.diff(energies) > 0).all()


def test_inside_the_core_the_pair_terms_rule_alone(made: Made) -> None:
    pair = made.core["Cu-Cu"]
    inside = pair["r_in_A"] - pair["delta_in_A"] - 0.01
    dimer = Atoms("Cu2", [[0, 0, 0], [inside, 0, 0]])
    whole = calculator.load(made.file("potential.yaml"), made.file("baseline.json"), made.file("potential.asi"))
    expected = calculator.pair_terms(dimer, made.terms)[0] + 2 * E0["Cu"]
    assert whole.get_potential_energy(dimer) == pytest.approx(expected, abs=1e-9)
    assert whole.results["gamma"].max() > 10  # the grade still tells


def test_the_curve_that_is_reported_is_the_sums(made: Made) -> None:
    pair = made.core["Cu-Cu"]
    whole = calculator.load(made.file("potential.yaml"), made.file("baseline.json"), None)
    for place in (0, len(pair["distance_A"]) // 2, -1):
        dimer = Atoms("Cu2", [[0, 0, 0], [pair["distance_A"][place], 0, 0]])
        dimer.calc = whole
        assert dimer.get_potential_energy() - 2 * E0["Cu"] == pytest.approx(pair["energy_eV"][place], rel=1e-9)
        assert dimer.get_forces()[1, 0] == pytest.approx(pair["force_eV_per_A"][place], rel=1e-6)


def test_two_runs_write_the_same_bytes(made: Made, tmp_path: Path) -> None:
    inputs = core_inputs(made.folder, made.interim)
    pace_corerep.run(inputs, tmp_path, pace_corerep.Params(core="reference"), Machine())
    for name in pace_corerep.OUTPUTS.values():
        assert (tmp_path / name).read_bytes() == made.file(name).read_bytes(), name
    with pytest.raises(BadInput, match="core: zbl would count repulsion twice"):
        pace_corerep.run(inputs, tmp_path, pace_corerep.Params(core="zbl"), Machine())
