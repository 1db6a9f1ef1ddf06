"""The figures of an evaluation and its tables by group, and the stubs of evaluation and active set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator

from containers.contract import BadInput, Inputs, Machine
from containers.structures.table import labels_table, structure_id, write_table
from containers.tensorpot.active_set import pace_activeset
from containers.tensorpot.evaluation import evaluate
from containers.tensorpot.evaluation.error_tables import MOST_ROWS, Compared, composition_names, lowest_pure, tables
from containers.tensorpot.frames.frame_file import Labelled, frame, write_frame
from containers.tensorpot.student.baseline import Baseline, PairTerm
from containers.tensorpot.student.calculator import Student, pair_terms
from tests.unit.containers.tensorpot.cells import Ace

PARAMS = evaluate.Params(elements=("Si",))
TERM = PairTerm(form="lj", epsilon_eV=0.1, sigma_A=2.0, inner_A=3.0, outer_A=4.0)
BASELINE = Baseline(e0s_eV={"Si": -3.0}, dft_offsets_eV={"Si": 0.5})


def student(baseline: Baseline = BASELINE) -> Student:
    """The sum with a potential of known answers."""
    return Student(Ace(), baseline.model_dump())


def labelled(atoms: Atoms, energy: float, stress: bool = True) -> Atoms:
    """The structure with a label of no forces and no stress."""
    atoms.info = {"id": structure_id(atoms), "source": "dft.xyz", "row": 3, "group": "", "family": ""}
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.zeros((len(atoms), 3)))
    if stress:
        atoms.calc.results["stress"] = np.zeros(6)
    return atoms


def test_errors_have_reference_energies_units_and_pair_terms_right() -> None:
    compared = evaluate.compare(labelled(bulk("Si"), energy=-8.02), student())
    found = evaluate.figures([compared])
    assert found["energy_mae_meV_per_atom"] == pytest.approx(10.0)  # (-1 - 3) against -4.01 eV/atom
    assert found["force_mae_meV_per_A"] == pytest.approx(100.0)
    assert found["stress_mae_meV_per_A3"] == pytest.approx(10.0)
    assert (found["structures"], found["atoms"]) == (1, 2)
    assert (found["gamma_max"], found["gamma_share_above_1"]) == (2.0, 0.5)
    energy, forces, stress = pair_terms(bulk("Si"), {"Si-Si": TERM.model_dump()})
    assert abs(energy) > 0.01
    atoms = labelled(bulk("Si"), energy=-8 + energy)
    atoms.calc.results |= {"forces": forces + 0.1, "stress": stress + 0.01}
    whole = student(Baseline(e0s_eV={"Si": -3.0}, pairs={"Si-Si": TERM}))
    found = evaluate.figures([evaluate.compare(atoms, whole)])
    for key in ("energy_max_meV_per_atom", "force_max_meV_per_A", "stress_max_meV_per_A3"):
        assert found[key] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("pbc", [(True, True, False), (False, False, False), (True, False, False)])
def test_open_cells_are_evaluated_without_stress(pbc: tuple[bool, ...]) -> None:
    atoms = bulk("Si")
    atoms.set_pbc(pbc)
    found = evaluate.figures([evaluate.compare(labelled(atoms, -8.0), student())])
    assert found["energy_mae_meV_per_atom"] == pytest.approx(0.0)
    assert found["stress_mae_meV_per_A3"] is None


def stubbed(folder: Path, dft: list[Atoms]) -> dict[str, object]:
    """Metrics of the stub on one test structure and these DFT structures."""
    atoms = bulk("Si")
    row = Labelled(structure_id(atoms), atoms, -8.0, -2.0, np.zeros((2, 3)), np.zeros(6))
    write_frame(folder / "test.pckl.gzip", frame([row]))
    write_table(folder / "dft.parquet", labels_table(dft))
    BASELINE.write(folder / "baseline.json")
    files = {
        "baseline": (folder / "baseline.json",),
        "test": (folder / "test.pckl.gzip",),
        "dft_test": (folder / "dft.parquet",) if dft else (),
    }
    return evaluate.stub(Inputs(files), folder, PARAMS, Machine())


def test_the_stub_writes_a_whole_evaluation(tmp_path: Path) -> None:
    metrics = stubbed(tmp_path, [labelled(Atoms("Si", positions=[[0, 0, 0]]), -3.0, stress=False)])
    evaluation = json.loads((tmp_path / "evaluation.json").read_text())
    assert evaluation["teacher"]["force_mae_meV_per_A"] == metrics["teacher_force_mae_meV_per_A"] == 0.0
    assert evaluation["dft"]["stress_mae_meV_per_A3"] is None
    rows = pq.read_table(tmp_path / "parity.parquet")
    assert rows.schema == evaluate.PARITY
    assert rows.num_rows == (1 + 6 + 6) + (1 + 3)
    assert set(rows.column("against").to_pylist()) == {"teacher", "dft"}
    assert set(rows.column("quantity").to_pylist()) == set(evaluate.UNITS)
    # DFT energies are brought to the teacher's scale
    stubbed(tmp_path, [labelled(bulk("Si"), -7.0)])
    rows = pq.read_table(tmp_path / "parity.parquet").to_pylist()
    energies = [row["reference"] for row in rows if row["against"] == "dft" and row["quantity"].startswith("energy")]
    assert energies == [-3.5 - 0.5]


def test_the_stub_reports_a_speed_where_there_is_a_yace_and_no_dft_figures_without_dft_data(tmp_path: Path) -> None:
    assert "student_us_per_atom" not in stubbed(tmp_path, [])
    files = {"test": (tmp_path / "test.pckl.gzip",), "yace": (tmp_path / "potential.yace",)}
    assert evaluate.stub(Inputs(files), tmp_path, PARAMS, Machine())["student_us_per_atom"] > 0
    assert json.loads((tmp_path / "evaluation.json").read_text())["dft"] is None
    # the stub of the active set is readable
    train = Inputs({"train": (tmp_path / "test.pckl.gzip",)})
    pace_activeset.stub(train, tmp_path, pace_activeset.Params(), Machine())
    assert np.load(tmp_path / "potential.asi")["Si"].shape == (1, 1)


def test_a_dft_structure_that_cannot_be_evaluated_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"dft.xyz, row 3 \(from 0\) has C"):
        stubbed(tmp_path, [labelled(Atoms("SiC", positions=[[0, 0, 0], [1.9, 0, 0]]), -3.0, stress=False)])
    with pytest.raises(BadInput, match=r"dft.xyz, row 3 \(from 0\): .* in one place"):
        stubbed(tmp_path, [labelled(Atoms("Si2", positions=[[0, 0, 0], [0, 0, 0]]), -3.0, stress=False)])


# ---- errors by group and composition, and formation energies


def judged_energies(
    counts: dict[str, int], reference: float, student: float, group: str = "", force: float = 0.0
) -> Compared:
    """Energies in eV/atom; the student's forces are off by `force` (eV/Å) in every component."""
    atoms = sum(counts.values())
    energies, forces = (np.array([reference]), np.array([student])), (np.zeros(3 * atoms), np.full(3 * atoms, force))
    values = {"energy_eV_per_atom": energies, "force_eV_per_A": forces}
    symbols = [element for element, count in counts.items() for _ in range(count)]
    return Compared("", values, np.zeros(atoms), group, counts, symbols)


PURE = {"Al": judged_energies({"Al": 1}, -3.0, -3.1), "Ni": judged_energies({"Ni": 1}, -5.0, -4.8)}


def test_forces_by_element_and_errors_by_size() -> None:
    alloy, nickel = judged_energies({"Ni": 1, "Al": 2}, -4.5, -4.6), judged_energies({"Ni": 5}, -5.0, -4.8)
    alloy.values["force_eV_per_A"][1][:3] = 0.06  # on the nickel atom alone
    found = tables([alloy, nickel, judged_energies({"Ni": 1}, -5.0, -5.0)], PURE)
    aluminium, of_nickel = found["by_element"]
    assert (aluminium["name"], aluminium["atoms"], aluminium["force_mae_meV_per_A"]) == ("Al", 2, 0)
    assert (of_nickel["structures"], of_nickel["atoms"]) == (3, 7)
    assert of_nickel["force_mae_meV_per_A"] == pytest.approx(60 / 7)
    assert of_nickel["force_max_meV_per_A"] == pytest.approx(60)
    assert of_nickel["energy_mae_meV_per_atom"] is None
    assert [row["name"] for row in found["by_size"]] == ["1 atom", "3 to 4 atoms", "5 to 8 atoms"]
    assert found["by_size"][2]["energy_mae_meV_per_atom"] == pytest.approx(200)


def test_errors_are_those_of_each_group_and_composition() -> None:
    found = tables(
        [
            judged_energies({"Ni": 1, "Al": 1}, -4.5, -4.6, "B2", 0.02),
            judged_energies({"Ni": 2, "Al": 2}, -4.5, -4.4, "B2", 0.02),
            judged_energies({"Ni": 4}, -5.0, -4.8, "fcc"),
        ],
        PURE,
    )
    b2, fcc = found["by_group"]
    assert (b2["name"], b2["structures"], b2["atoms"], fcc["name"], fcc["structures"]) == ("B2", 2, 6, "fcc", 1)
    assert b2["energy_mae_meV_per_atom"] == pytest.approx(100)
    assert b2["force_mae_meV_per_A"] == pytest.approx(20)
    assert fcc["energy_max_meV_per_atom"] == pytest.approx(200)
    assert [row["name"] for row in found["by_composition"]] == ["AlNi", "Ni"]


def test_a_formation_energy_is_relative_to_the_elements_by_each_of_the_two() -> None:
    """NiAl: the reference has -4.5 + 4.0 = -0.5 eV/atom, the student -4.6 + 3.95 = -0.65; nickel itself has none."""
    found = tables([judged_energies({"Ni": 1, "Al": 1}, -4.5, -4.6), judged_energies({"Ni": 1}, -5.0, -4.8)], PURE)
    alloy, nickel = found["by_composition"]
    assert alloy["formation_energy_mae_meV_per_atom"] == pytest.approx(150)
    assert nickel["formation_energy_mae_meV_per_atom"] == pytest.approx(0, abs=1e-9)
    # without an element alone there is none, and it is named
    found = tables(
        [judged_energies({"Ni": 1, "Al": 1}, -4.5, -4.6), judged_energies({"Ni": 1}, -5.0, -4.9)], {"Ni": PURE["Ni"]}
    )
    assert found["formation_energies"]["missing"] == ["Al"]
    assert [row["formation_energy_mae_meV_per_atom"] for row in found["by_composition"]] == [None, pytest.approx(100)]
    # an element is its structure of the lowest energy an atom
    structures = [Atoms("Ni2", positions=[[0, 0, 0], [0, 0, 2]]), Atoms("Ni"), Atoms("NiAl", positions=np.eye(3)[:2])]
    for atoms, energy in zip(structures, (-9.0, -5.0, -99.0), strict=True):
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
    assert lowest_pure(structures) == {"Ni": structures[1]}


@pytest.mark.parametrize(
    ("counts", "names"),
    [
        (
            [{"Ni": 40 - k, "Al": k} for k in range(41)],
            {"Al", "Ni", "00 to 10 % Ni", "90 to 100 % Ni", "50 to 60 % Ni"},
        ),
        ([{"C": 1, "H": k, "O": 1} for k in range(1, 30)], {"CH10O", "others"}),
    ],
)
def test_many_compositions_make_few_rows(counts: list[dict[str, int]], names: set[str]) -> None:
    name = composition_names(counts)
    found = {name({symbol: number for symbol, number in one.items() if number}) for one in counts}
    assert names <= found
    assert len(found) <= MOST_ROWS
