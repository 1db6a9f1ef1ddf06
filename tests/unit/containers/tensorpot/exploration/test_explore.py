"""Runs of toy students whose behaviour is known: copper, with grades that follow time or the atoms."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, fcc111
from ase.calculators.calculator import all_changes
from ase.calculators.emt import EMT
from pydantic import ValidationError
from scipy.optimize import brentq

from containers.contract import BadInput, Inputs, Machine
from containers.structures.table import read_atoms, structure_id, structures_table, write_table
from containers.tensorpot.exploration import explore
from containers.tensorpot.exploration.dynamics import Condition, Frame, Windows, spread
from containers.tensorpot.student import potential

Grade = Callable[[int, Atoms], float]


class Graded(EMT):
    """EMT (Jacobsen, Stoltze, Nørskov 1996) with the grade that a function gives of the number of the call."""

    def __init__(self, grade: Grade, push: Callable[[Atoms], np.ndarray] | None = None) -> None:
        super().__init__()
        self.grade, self.push, self.calls, self.ace = grade, push, 0, SimpleNamespace(cutoff=4.0)

    def calculate(self, atoms=None, properties=("energy",), system_changes=all_changes) -> None:
        super().calculate(atoms, properties, system_changes)
        self.results["gamma"] = np.full(len(self.atoms), self.grade(self.calls, self.atoms))
        if self.push:
            self.results["forces"] = self.results["forces"] + self.push(self.atoms)
        self.calls += 1


def inside(_: int, __: Atoms) -> float:
    return 0.5


def crystal(count: int = 2) -> Atoms:
    return bulk("Cu", cubic=True, a=3.6) * (count, count, count)


@pytest.fixture
def explored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Run the step from one structure and return its metrics; the outputs are in `tmp_path`."""

    def run(atoms: Atoms, condition: Condition, calculator: Any = None, step: Any = explore.run, **params: Any) -> Any:
        monkeypatch.setattr(potential, "load_student", lambda *_: calculator or Graded(inside))
        start = atoms.copy()
        start.info = {"id": structure_id(start), "source": "Cu.vasp", "row": 0, "group": "bulk", "family": "Cu"}
        write_table(tmp_path / "starts.parquet", structures_table([start]))
        names = ("potential", "asi", "baseline")
        inputs = Inputs({name: (tmp_path / name,) for name in names} | {"starts": (tmp_path / "starts.parquet",)})
        given = explore.Params(**{"condition": condition, "start": start.info["id"]} | params)
        return step(inputs, tmp_path, given, Machine())

    return run


def nvt(picoseconds: float, **fields: Any) -> Condition:
    return Condition(**{"ensemble": "NVT", "temperature_K": 300.0, "picoseconds": picoseconds} | fields)


def record(folder: Path) -> Any:
    return json.loads((folder / "explore.json").read_bytes())


def test_copper_under_pressure_has_the_volume_that_its_stress_gives(explored: Any, tmp_path: Path) -> None:
    """Cold, so that heat adds less than 0.5 % to the volume; the pressure takes 6 % of it."""

    def excess(lattice: float) -> float:
        unit = bulk("Cu", a=lattice)
        unit.calc = EMT()
        return float(-unit.get_stress()[:3].mean() / units.GPa - 10.0)

    lattice = brentq(excess, 3.2, 3.6)
    condition = Condition(ensemble="NPT", temperature_K=100.0, pressure_GPa=10.0, picoseconds=0.8)
    metrics = explored(crystal(), condition)
    assert metrics["ended_because"] is None
    assert metrics["ensemble"] == "NPT"
    volumes = record(tmp_path)["series"]["volume_A3_per_atom"]
    assert volumes[0] == pytest.approx(3.6**3 / 4)
    assert np.mean(volumes[len(volumes) // 2 :]) == pytest.approx(lattice**3 / 4, rel=0.006)
    assert metrics["mean_temperature_K"] == pytest.approx(100.0, rel=0.12)
    assert metrics["mean_pressure_GPa"] == pytest.approx(10.0, abs=0.7)
    assert metrics["density_g_per_cm3"] == pytest.approx(63.546 * 1.66054 / (lattice**3 / 4), rel=0.01)


def test_a_ramp_ends_at_its_last_temperature(explored: Any, tmp_path: Path) -> None:
    metrics = explored(crystal(), nvt(0.5, temperature_K=100.0, end_temperature_K=900.0))
    temperatures = record(tmp_path)["series"]["temperature_K"]
    assert np.mean(temperatures[-30:]) == pytest.approx(800.0, rel=0.3)
    assert np.mean(temperatures[40:70]) < 400.0
    assert metrics["survived_ps"] == metrics["wanted_ps"] == 0.5


def test_frames_above_the_first_limit_are_kept_and_the_second_ends_the_run(explored: Any, tmp_path: Path) -> None:
    """The grade rises by 0.1 each call: the relaxed start has 0.1 or less, and each step one call."""
    metrics = explored(crystal(), nvt(1.0), Graded(lambda call, _: 0.1 * call), frames=6, checked=3)
    kept = read_atoms(tmp_path / "structures.parquet")
    steps = [atoms.info["row"] for atoms in kept]
    assert metrics["ended_because"].startswith("the extrapolation grade rose to 25.1, above 25, within")
    assert metrics["frames"] == len(kept) == 6
    assert steps[-2:] == [metrics["steps"] - 1, metrics["steps"]]
    assert min(np.diff(steps[:-1])) >= 20
    assert steps[0] < 80  # and not only the end of the run
    assert metrics["survived_ps"] == pytest.approx((metrics["steps"] - 1) / 1000)
    assert metrics["gamma_max"] == pytest.approx(25.1)
    assert metrics["share_above_select"] == pytest.approx(0.92, abs=0.01)
    checks = [atoms.info["row"] for atoms in read_atoms(tmp_path / "check.parquet")]
    assert checks == pytest.approx([0.2 * steps[-2], 0.6 * steps[-2], steps[-2]], abs=3)
    assert {atoms.info["group"] for atoms in kept} == {"exploration"}
    begun = f"molecular dynamics of the student, NVT 300 K, 1 ps, from Cu.vasp, row 0 ({metrics['start'][:8]}), replica"
    assert {atoms.info["source"] for atoms in kept} == {atoms.info["family"] for atoms in kept} == {f"{begun} 0"}


def test_a_run_inside_keeps_nothing_but_checks(explored: Any, tmp_path: Path) -> None:
    metrics = explored(crystal(1), nvt(0.05), checked=2)
    assert (metrics["frames"], metrics["checks"], metrics["share_above_1"]) == (0, 2, 0.0)
    assert [atoms.info["row"] for atoms in read_atoms(tmp_path / "check.parquet")] == [10, 50]
    assert {atoms.info["group"] for atoms in read_atoms(tmp_path / "check.parquet")} == {"check"}


def test_a_start_far_outside_is_kept_and_not_run(explored: Any, tmp_path: Path) -> None:
    start = crystal(1)
    start.rattle(0.1, seed=1)
    metrics = explored(start, nvt(0.05), Graded(lambda *_: 30.0))
    assert (metrics["survived_ps"], metrics["steps"], metrics["checks"]) == (0.0, 0, 0)
    assert metrics["ended_because"] == "the extrapolation grade rose to 30, above 25, within 0 steps"
    kept = read_atoms(tmp_path / "structures.parquet")
    assert structure_id(start) in {atoms.info["id"] for atoms in kept}
    assert len(kept) == 2  # as given, and relaxed
    metrics = explored(start, nvt(0.05), Graded(inside, lambda atoms: np.full((len(atoms), 3), np.nan)))
    assert metrics["ended_because"] == "while it was relaxed: energy or forces are no numbers"
    assert (metrics["survived_ps"], metrics["gamma_max"], metrics["mean_temperature_K"]) == (0.0, None, None)
    assert [atoms.info["id"] for atoms in read_atoms(tmp_path / "structures.parquet")] == [structure_id(start)]


def test_before_a_hole_of_low_grade_the_last_physical_frame_is_kept(explored: Any, tmp_path: Path) -> None:
    """Two neighbours are drawn together by 3 eV/Å once the run is hot."""
    start = crystal(1)

    def draw(atoms: Atoms) -> np.ndarray:
        forces = np.zeros((len(atoms), 3))
        if calculator.calls > 20:
            way = 60 * (atoms.positions[1] - atoms.positions[0])
            forces[0], forces[1] = way, -way
        return forces

    calculator = Graded(inside, draw)
    metrics = explored(start, nvt(0.5, temperature_K=3000.0), calculator)
    assert "atoms fused" in metrics["ended_because"] or "the temperature rose" in metrics["ended_because"]
    (kept,) = read_atoms(tmp_path / "structures.parquet")
    assert kept.info["row"] == round(1000 * metrics["survived_ps"]) > 0
    assert kept.get_all_distances(mic=True)[0, 1] > 1.32  # half of twice the covalent radius of copper


def test_energy_from_nowhere_heats_and_a_cell_that_is_blown_up_bursts(explored: Any) -> None:
    """30 eV/Å on each atom from the tenth call on; 1 eV/Å³ of pressure from inside."""
    field = np.tile([[30.0, 0, 0], [-30.0, 0, 0]], (2, 1))
    pushed = Graded(inside, lambda _: field if pushed.calls > 10 else 0 * field)
    metrics = explored(crystal(1), nvt(0.5), pushed)
    assert metrics["ended_because"].startswith("the temperature rose to ")
    assert metrics["ended_because"].endswith(" wanted 300 K")

    class Blown(Graded):
        def calculate(self, *args: Any, **kwargs: Any) -> None:
            super().calculate(*args, **kwargs)
            self.results["stress"] = np.array([-1.0, -1.0, -1.0, 0, 0, 0])

    metrics = explored(crystal(1), Condition(ensemble="NPT", temperature_K=300.0, picoseconds=0.5), Blown(inside))
    assert metrics["ended_because"].startswith("the volume became 2.")
    assert 0 < metrics["survived_ps"] < 0.2


@pytest.mark.parametrize(
    "start", [fcc111("Cu", (2, 2, 3), vacuum=8.0, periodic=True), Atoms("Cu2", [[0] * 3, [2.2, 0, 0]])]
)
def test_what_is_no_solid_runs_at_constant_volume_and_says_so(explored: Any, start: Atoms) -> None:
    condition = Condition(ensemble="NPT", temperature_K=100.0, picoseconds=0.02)
    metrics = explored(start, condition)
    assert (metrics["ensemble"], metrics["ended_because"]) == ("NVT", None)
    assert "three directions" in metrics["ensemble_because"]
    assert metrics["density_g_per_cm3"] is metrics["mean_pressure_GPa"] is None
    assert metrics["steps"] == 20


def test_constant_energy_keeps_it(explored: Any, tmp_path: Path) -> None:
    condition = Condition(ensemble="NVE", temperature_K=300.0, picoseconds=0.1)
    assert explored(crystal(1), condition)["ended_because"] is None
    assert np.ptp(record(tmp_path)["series"]["total_energy_eV_per_atom"]) < 1e-3


def test_the_same_run_gives_the_same_bytes_and_another_replica_others(explored: Any, tmp_path: Path) -> None:
    def bytes_of(replica: int) -> list[bytes]:
        condition = Condition(ensemble="NPT", temperature_K=300.0, picoseconds=0.03)
        explored(crystal(1), condition, Graded(lambda call, _: 0.2 * call), replica=replica)
        return [(tmp_path / name).read_bytes() for name in explore.OUTPUTS.values()]

    first = bytes_of(0)
    assert bytes_of(0) == first
    assert bytes_of(1)[2] != first[2]


def test_the_stub_has_the_figures_of_a_run(explored: Any, tmp_path: Path) -> None:
    condition = Condition(ensemble="NPT", temperature_K=300.0, picoseconds=0.02)
    metrics = explored(crystal(1), condition)
    series = record(tmp_path)["series"]
    stubbed = explored(crystal(1), condition, step=explore.stub)
    assert set(stubbed) == set(metrics) == set(explore.Metrics.model_fields)
    assert set(record(tmp_path)["series"]) == set(series)
    assert [len(read_atoms(tmp_path / name)) for name in ("structures.parquet", "check.parquet")] == [1, 1]
    assert (stubbed["frames"], stubbed["checks"]) == (1, 1)
    assert {atoms.info["source"] for atoms in read_atoms(tmp_path / "check.parquet")} == {stubbed["source"]}


def test_a_start_that_is_missing_or_a_single_atom_is_the_users_to_change(explored: Any) -> None:
    with pytest.raises(BadInput, match="has no structure 'abc' among its 1"):
        explored(crystal(1), nvt(0.1), start="abc")
    with pytest.raises(BadInput, match="start from a supercell"):
        explored(bulk("Cu"), nvt(0.1))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ensemble": "NVE", "end_temperature_K": 600.0}, "NVE has no thermostat"),
        ({"ensemble": "NVT", "pressure_GPa": 1.0}, "NVT keeps the volume"),
    ],
)
def test_a_condition_without_a_meaning_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        nvt(1.0, **fields)


def test_windows_hold_the_best_of_equal_times_whatever_the_length() -> None:
    atoms = Atoms("Cu")
    windows = Windows(8, width=2)
    for step in range(1000):
        windows.offer(step, float(step % 100), lambda step=step: Frame(step, 3.0, atoms) if step != 199 else None)
        assert len(windows.best) <= 8
    assert windows.width == 128
    assert [frame.step for frame in windows.frames] == [99, 198, 299, 399, 599, 699, 799, 899]


def test_frames_are_spread_in_time_and_grade_around_those_that_are_fixed() -> None:
    frames = [Frame(step, grade, Atoms("Cu")) for step, grade in ((0, 3.0), (10, 3.1), (500, 3.0), (520, 20.0))]
    assert [frame.step for frame in spread(frames, [], 3, 20)] == [0, 500, 520]
    last = Frame(505, 26.0, Atoms("Cu"))
    assert [frame.step for frame in spread(frames, [last], 9, 20)] == [0, 505]
    assert [frame.step for frame in spread(frames, [last], 1, 20)] == [505]
    assert spread([], [], 3, 20) == []
