"""The stub of the core step, and the table of the pair terms."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from containers.contract import BadInput, Inputs, Machine
from containers.tensorpot.core import pace_corerep
from containers.tensorpot.core.inner_radius import PairCore, _choose, check_r_in
from containers.tensorpot.student.baseline import Baseline, PairTerm
from containers.tensorpot.student.calculator import pair_term
from containers.tensorpot.student.lammps_table import NO_TERMS, POINTS, table_text

LJ = PairTerm(form="lj", epsilon_eV=0.2, sigma_A=2.1, inner_A=4.0, outer_A=5.0)
ZBL = PairTerm(form="zbl", inner_A=1.1, outer_A=2.2)


def stubbed(folder: Path, core: str, baseline: Baseline) -> dict[str, object]:
    outputs = folder / "outputs"
    outputs.mkdir(parents=True)
    (folder / "interim.yaml").write_text("species: []\n")
    baseline.write(folder / "baseline.json")
    files = {"interim": (folder / "interim.yaml",), "baseline": (folder / "baseline.json",)}
    return pace_corerep.stub(Inputs(files), outputs, pace_corerep.Params(core=core), Machine())


def test_the_stub_writes_what_is_declared_in_the_form_of_the_real_thing(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        metrics = stubbed(tmp_path / folder, "zbl", Baseline(e0s_eV={"Ni": 0.0, "Al": 0.0}))
    outputs = tmp_path / "a" / "outputs"
    assert {path.name for path in outputs.iterdir()} == set(pace_corerep.OUTPUTS.values())
    pairs = json.loads((outputs / "core_repulsion.json").read_text())["pairs"]
    assert set(pairs) == {"Al-Al", "Al-Ni", "Ni-Ni"}
    core = PairCore.model_validate(pairs["Al-Ni"])
    curves = (core.energy_eV, core.zbl_eV, core.force_eV_per_A, core.zbl_force_eV_per_A)
    assert {len(curve) for curve in curves} == {len(core.distance_A)}
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert metrics["functions"] == {"Al": 1, "Ni": 1}
    assert metrics["yaml_bytes"] == (outputs / "potential.yaml").stat().st_size
    assert metrics["yace_bytes"] == (outputs / "potential.yace").stat().st_size
    for name in pace_corerep.OUTPUTS.values():
        assert (outputs / name).read_bytes() == (tmp_path / "b" / "outputs" / name).read_bytes()


def test_without_a_core_there_are_no_curves(tmp_path: Path) -> None:
    stubbed(tmp_path, "none", Baseline(e0s_eV={"Ni": 0.0}))
    assert json.loads((tmp_path / "outputs" / "core_repulsion.json").read_text()) == {"pairs": {}}
    assert (tmp_path / "outputs" / "reference.table").read_text() == NO_TERMS
    assert NO_TERMS.count("\n") == 1
    assert NO_TERMS.startswith("#")


def test_a_table_has_a_section_for_each_pair_with_our_values() -> None:
    lines = table_text({"Al-Al": LJ, "Al-Ni": ZBL}).splitlines()
    for name, term in (("Al-Al", LJ), ("Al-Ni", ZBL)):
        start = lines.index(name)
        assert lines[start + 1].split()[:4] == ["N", str(POINTS), "RSQ", "0.2"]
        assert float(lines[start + 1].split()[4]) == term.outer_A
        rows = np.array([line.split() for line in lines[start + 3 : start + 3 + POINTS]], dtype=float)
        assert rows[:, 0].tolist() == list(range(1, POINTS + 1))
        energies, slopes = pair_term(name, term.model_dump(), rows[:, 1])
        assert (np.abs(energies) > 1e-3).any()
        # the distances are written with 15 digits, the wall of r^-12 turns the last one into 1e-13 of its value
        np.testing.assert_allclose(rows[:, 2], energies, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(rows[:, 3], -slopes, rtol=1e-9, atol=1e-9)
        assert rows[-1, 2:].tolist() == [0.0, 0.0]


def test_a_given_r_in_is_of_a_known_pair_and_inside_the_cutoff() -> None:
    assert check_r_in({"Ni-Al": 1.6}, ["Al-Al", "Al-Ni"], 5.0) == {"Al-Ni": 1.6}
    with pytest.raises(BadInput, match="r_in_A has Si-Si; the pairs of the potential are Al-Al"):
        check_r_in({"Si-Si": 1.6}, ["Al-Al"], 5.0)
    with pytest.raises(BadInput, match=r"r_in_A of Al-Al is 5 Å: give one between 0\.5 Å and the cutoff, 5 Å"):
        check_r_in({"Al-Al": 5.0}, ["Al-Al"], 5.0)


def test_nothing_heavy_is_imported() -> None:
    modules = "containers.tensorpot.core.pace_corerep, containers.tensorpot.baseline.baseline"
    code = f"import sys, {modules}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"tensorflow", "pyace", "pandas", "torch", "prefect"} & set(done.stdout.split())


class Hole:
    """A fit whose dimer attracts outside every core."""

    cutoff = 5.0

    def dimer(self, r_in: dict[str, float], pair: str, distances: Any) -> tuple[Any, Any]:
        """Energies that fall on the way in to r_in, and rise inside it."""
        energies = np.where(distances > r_in[pair], distances, 50.0 - distances)
        return energies, energies


def test_a_bonded_pair_that_never_rises_gets_a_core_all_the_same() -> None:
    """A run that ends there would lose its fit and its report: the verdict names the pair."""
    chosen = _choose(Hole(), {"Cu-Cu": 2.3}, "Cu-Cu", 2.2)
    assert 2.2 <= chosen <= 2.3


@pytest.mark.parametrize(
    ("shortest", "given", "baseline", "named"),
    [
        (2.2, "auto", {}, {"Cu-Cu": 0.5}),
        (4.0, "auto", {}, {}),
        (None, "auto", {}, {}),
        (2.2, {"Cu-Cu": 2.0}, {}, {}),
        (2.2, "auto", {"Cu-Cu": ZBL}, {"Cu-Cu": 0.5}),
        (2.2, "auto", {"Cu-Cu": LJ}, {}),
    ],
)
def test_a_fall_counts_where_training_has_bonds_and_nobody_chose_it(
    shortest: float | None, given: Any, baseline: dict[str, PairTerm], named: dict[str, float]
) -> None:
    one = pace_corerep._stub_core("Cu-Cu").model_copy(update={"falls_eV": 0.5, "shortest_distance_A": shortest})
    params = pace_corerep.Params(core="reference" if baseline else "zbl", r_in_A=given)
    assert pace_corerep.bonded_falls({"Cu-Cu": one}, params, Baseline(e0s_eV={"Cu": 0.0}, pairs=baseline)) == named
    level = one.model_copy(update={"falls_eV": 0.0})
    assert pace_corerep.bonded_falls({"Cu-Cu": level}, params, Baseline(e0s_eV={"Cu": 0.0}, pairs=baseline)) == {}
