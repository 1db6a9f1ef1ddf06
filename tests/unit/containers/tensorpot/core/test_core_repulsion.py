"""Where the core begins, the stub of the core step, and the table of the pair terms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from containers.contract import BadInput, Inputs, Machine
from containers.tensorpot.core import pace_corerep
from containers.tensorpot.core.inner_radius import (
    CLOSEST,
    MARGIN,
    RAISED,
    PairCore,
    _choose,
    blend_width,
    candidates,
    check_r_in,
    choose_gentle_r_in,
    choose_r_in,
    distances_inward,
    falls_by,
    rises_inward,
)
from containers.tensorpot.student.baseline import Baseline, PairTerm
from containers.tensorpot.student.calculator import pair_term, zbl
from containers.tensorpot.student.lammps_table import NO_TERMS, POINTS, table_text

Floats = NDArray[np.float64]


def blended(fit: Floats, r_in: float, distances: Floats) -> Floats:
    """A dimer: the fit outside r_in, ZBL of silicon inside the blend, a smooth step between."""
    x = np.clip((r_in - distances) / blend_width(r_in), 0, 1)
    share = x * x * (3 - 2 * x)
    return (1 - share) * fit + share * zbl(14, 14, distances)[0]


@pytest.mark.parametrize("start", [1.83, 1.8286612, 0.5, 2.0])
def test_distances_go_from_the_start_to_the_closest_in_even_steps(start: float) -> None:
    distances = distances_inward(start)
    assert distances[0] == pytest.approx(start, abs=1e-9)
    assert distances[-1] == CLOSEST
    steps = -np.diff(distances)
    assert steps[1:] == pytest.approx(0.01)
    assert (steps > 0).all()
    assert (steps <= 0.01 + 1e-9).all()


def test_candidates_of_r_in_are_only_raised_never_inside_the_data_and_inside_the_cutoff() -> None:
    tried = list(candidates(1.8, 5.0))
    assert tried[0] == 1.8
    assert (np.diff(tried) > 0).all()
    assert max(tried) == pytest.approx(1.8 + RAISED)
    for shortest in (1.7104885921645847, 1.4900000004, 2.123456789):
        first = next(candidates(shortest, 5.0))
        assert shortest - 1e-6 < first <= shortest
    assert max(candidates(2.5, 3.0)) < 3.0


def test_the_shortest_distance_is_taken_where_the_fit_lies_below_zbl_and_there_may_be_none() -> None:
    assert choose_r_in(1.8, 5.0, lambda r_in, d: blended(3.0 - d, r_in, d)) == 1.8
    assert choose_r_in(1.5, 5.0, lambda r_in, distances: distances) is None
    assert rises_inward(np.array([0.0, 0.1, 5.0]))
    assert not rises_inward(np.array([0.0, 0.1, 0.1]))
    assert not rises_inward(np.array([0.0, np.nan, 5.0]))


def test_the_energy_must_rise_from_a_tenth_outside() -> None:
    """The fit falls inward from 1.95 to 1.9 Å: r_in moves out until the blend has taken over there."""

    def energy(r_in: float, distances: Floats) -> Floats:
        dent = -10 * np.clip(1.95 - distances, 0.0, 0.05)
        return blended(3.0 - distances + dent, r_in, distances)

    chosen = choose_r_in(1.86, 5.0, energy)
    assert chosen > 1.86
    assert rises_inward(energy(chosen, np.append(np.arange(chosen + MARGIN, CLOSEST, -0.01), CLOSEST)))
    before = chosen - 0.02
    assert not rises_inward(energy(before, distances_inward(before + MARGIN, 0.005)))


def test_r_in_moves_out_when_the_fit_is_far_above_zbl() -> None:
    """At 1.5 Å the fit is above ZBL, so blending there would go down: only farther out does it rise."""

    def energy(r_in: float, distances: Floats) -> Floats:
        return blended(40 * np.exp(-4 * (distances - 1.5)), r_in, distances)

    chosen = choose_r_in(1.5, 5.0, energy)
    assert chosen > 1.5
    assert rises_inward(energy(chosen, distances_inward(chosen)))
    assert not rises_inward(energy(1.5, distances_inward(1.5)))


def test_a_flat_pair_begins_where_it_is_wanted_and_rises_from_there() -> None:
    """Training never sees the pair: its fit is exactly zero."""

    def energy(r_in: float, distances: Floats) -> Floats:
        return blended(np.zeros_like(distances), r_in, distances)

    assert choose_gentle_r_in(2.22, 2.22, 5.0, energy) == 2.22

    # a fit that repels all the way keeps the shortest distance
    def repels(r_in: float, distances: Floats) -> Floats:
        return blended(0.1 * np.exp(4.0 - distances), r_in, distances)

    assert choose_gentle_r_in(4.0, 2.22, 5.0, repels) < 4.0  # ZBL at 4 Å lies below it: farther in it does not
    assert falls_by(np.array([0.0, 0.2, 0.1, 3.0])) == pytest.approx(0.1)
    assert falls_by(np.array([0.0, np.nan])) == np.inf


@pytest.mark.parametrize("depth", [-0.3, 0.3])
def test_a_pair_that_training_has_far_apart_alone_is_not_raised_into_the_data(depth: float) -> None:
    """A fit that attracts at 4 Å, or repels there and falls into a hole farther in: no r_in makes its dimer rise."""

    def energy(r_in: float, distances: Floats) -> Floats:
        return blended(depth * np.sin(2 * (distances - 5.0)), r_in, distances)

    chosen = choose_gentle_r_in(4.0, 2.22, 5.0, energy)
    assert 2.22 <= chosen <= 4.0
    falls = {r_in: falls_by(energy(r_in, distances_inward(4.0 + MARGIN, 0.005))) for r_in in (2.25, 3.0, 3.5, 4.0)}
    assert falls_by(energy(chosen, distances_inward(4.0 + MARGIN, 0.005))) <= min(falls.values())
    assert rises_inward(energy(chosen, distances_inward(chosen - blend_width(chosen))))


# ---- the stub of the core step, and the table of the pair terms


LJ = PairTerm(form="lj", epsilon_eV=0.2, sigma_A=2.1, inner_A=4.0, outer_A=5.0)
ZBL = PairTerm(form="zbl", inner_A=1.1, outer_A=2.2)


class Hole:
    """A fit whose dimer attracts outside every core."""

    cutoff = 5.0

    def dimer(self, r_in: dict[str, float], pair: str, distances: Any) -> tuple[Any, Any]:
        """Energies that fall on the way in to r_in, and rise inside it."""
        energies = np.where(distances > r_in[pair], distances, 50.0 - distances)
        return energies, energies


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


def test_a_given_r_in_is_checked_and_a_bonded_pair_that_never_rises_gets_a_core() -> None:
    assert check_r_in({"Ni-Al": 1.6}, ["Al-Al", "Al-Ni"], 5.0) == {"Al-Ni": 1.6}
    with pytest.raises(BadInput, match="r_in_A has Si-Si; the pairs of the potential are Al-Al"):
        check_r_in({"Si-Si": 1.6}, ["Al-Al"], 5.0)
    with pytest.raises(BadInput, match=r"r_in_A of Al-Al is 5 Å: give one between 0\.5 Å and the cutoff, 5 Å"):
        check_r_in({"Al-Al": 5.0}, ["Al-Al"], 5.0)
    # A run that ends there would lose its fit and its report: the verdict names the pair.
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
