"""Students that differ by chance: what makes their fits differ, and what their spread is worth. Real tiny fits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ruamel.yaml import YAML

from containers.contract import BadInput, Inputs, Machine, Resources
from containers.tensorpot.evaluation import committee
from containers.tensorpot.fit.pace_train import Params
from containers.tensorpot.frames.frame_file import frame, write_frame
from containers.tensorpot.pacemaker.input import Loss, Potential
from containers.tensorpot.student import calculator as student
from containers.tensorpot.student import committee_calculator
from containers.tensorpot.student.baseline import Baseline
from tests.e2e.copper import copper as cells
from tests.e2e.copper import fitted, write_frames

pytestmark = pytest.mark.e2e
REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples" / "silicon"
MACHINE = Machine(Resources(threads=1))
PARAMS = Params(
    potential=Potential(elements=("Cu",), cutoff=4.0, functions_per_element=12, b_basis="small"),
    loss=Loss(kappa=0.5),
    maxiter=25,
)

copper = partial(cells, scale=(0.95, 1.06), rattle_A=0.1)


class Fits:
    """Fits to one frame, each made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = write_frames(folder, copper(20, 1), copper(5, 2))
        self.test = folder / "test.pckl.gzip"  # some like the training set, some far from it
        write_frame(self.test, frame(copper(6, 3) + copper(6, 4, rattle_A=0.35)))
        Baseline(e0s_eV={"Cu": 0.0}).write(folder / "baseline.json")
        self.made: dict[str, Path] = {}

    def __call__(self, **changes: Any) -> Path:
        """The potential of a fit with these parameters changed."""
        name = " ".join(f"{key}={value}" for key, value in changes.items())
        if name not in self.made:
            self.made[name] = fitted(self.folder / name, self.files, PARAMS.model_copy(update=changes)).path("best")
        return self.made[name]

    def committee(self, *potentials: Path, test: Path | None = None) -> Inputs:
        files = {"potentials": potentials, "baseline": (self.folder / "baseline.json",), "test": (test or self.test,)}
        return Inputs(files)


@pytest.fixture(scope="module")
def fits(tmp_path_factory: pytest.TempPathFactory) -> Fits:
    return Fits(tmp_path_factory.mktemp("fits"))


MEMBERS: tuple[dict[str, Any], ...] = (
    {"bootstrap": 1},
    {"bootstrap": 2},
    {"coefficients": "random", "seed": 1},
)


def test_chance_spreads_a_committee_and_its_spread_tells_of_its_error(fits: Fits, tmp_path: Path) -> None:
    """Both kinds of chance; that a seed alone changes nothing: test_pace_train.py."""
    potentials = [fits(**member) for member in MEMBERS]
    assert len({path.read_bytes() for path in potentials}) == 3
    metrics = committee.run(fits.committee(*potentials), tmp_path, committee.Params(), MACHINE)
    assert metrics["students"] == 3
    assert metrics["force_std_mean_meV_per_A"] > 0.1
    assert metrics["energy_std_mean_meV_per_atom"] > 0
    assert metrics["force_std_error_spearman"] > 0.3
    table = pq.read_table(tmp_path / "committee.parquet")
    far = np.array([name.startswith("4-") for name in table["id"].to_pylist()])
    spread = table["force_std_eV_per_A"].to_numpy()
    assert spread[far].mean() > 1.5 * spread[~far].mean(), "far from the training set the students disagree more"


def test_equal_members_have_no_spread(fits: Fits, tmp_path: Path) -> None:
    one = fits(**MEMBERS[0])
    metrics = committee.run(fits.committee(one, one), tmp_path, committee.Params(), MACHINE)
    assert metrics["force_std_max_meV_per_A"] == metrics["energy_std_max_meV_per_atom"] == 0
    assert metrics["force_std_error_pearson"] is None


def test_the_same_members_give_the_same_file(fits: Fits, tmp_path: Path) -> None:
    inputs = fits.committee(*(fits(**member) for member in MEMBERS[:2]))
    written = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        committee.run(inputs, tmp_path / name, committee.Params(), MACHINE)
        written.append((tmp_path / name / "committee.parquet").read_bytes())
    assert written[0] == written[1]


def test_what_is_no_potential_is_told(fits: Fits, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text("no potential")
    with pytest.raises(BadInput, match=r"broken\.yaml is not a B-basis"):
        committee.run(fits.committee(fits(**MEMBERS[0]), broken), tmp_path, committee.Params(), MACHINE)


def test_the_published_calculator_says_what_the_step_says(fits: Fits, tmp_path: Path) -> None:
    paths = [fits(**member) for member in MEMBERS[:2]]
    for name, path in zip("12", paths, strict=True):
        (tmp_path / name).mkdir()
        (tmp_path / name / "potential.yaml").write_bytes(path.read_bytes())
        Baseline(e0s_eV={"Cu": 0.0}).write(tmp_path / name / "baseline.json")
    (tmp_path / "committee.json").write_text(json.dumps({"students": ["1", "2"]}))
    (tmp_path / "committee.py").write_bytes(Path(committee_calculator.__file__).read_bytes())
    (tmp_path / "calculator.py").write_bytes(Path(student.__file__).read_bytes())
    cell = copper(1, 3)[0].atoms
    ase.io.write(tmp_path / "cell.json", cell)
    code = (
        "import ase.io, json; from committee import committee; atoms = ase.io.read('cell.json');"
        "atoms.calc = committee(); forces = atoms.get_forces();"
        "print(json.dumps([atoms.get_potential_energy(), forces.tolist(), atoms.calc.results['force_std'].tolist()]))"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    energy, forces, deviations = json.loads(done.stdout.splitlines()[-1])
    single = [student.load(path, tmp_path / "1" / "baseline.json", None) for path in paths]
    each = [_answer(one, cell) for one in single]
    assert energy == pytest.approx(np.mean([answer["energy"] for answer in each]), abs=1e-9)
    np.testing.assert_allclose(forces, np.mean([answer["forces"] for answer in each], axis=0), atol=1e-9)
    half = (each[0]["forces"] - each[1]["forces"]) / 2
    np.testing.assert_allclose(deviations, np.sqrt((half**2).mean(axis=1)), atol=1e-9)


def _answer(calculator: Any, atoms: Atoms) -> dict[str, Any]:
    calculator.calculate(atoms)
    return dict(calculator.results)


def command(root: Path, environment: dict[str, str], module: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *words, "--work-root", str(root)],
        cwd=REPOSITORY, env={**environment, "OMP_NUM_THREADS": "1", "DISTILL_CORES": "2"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, command_environment: dict[str, str]) -> Path:
    """The work root of a sweep over two cutoffs, two fits at a time, and a committee of the better one."""
    root = tmp_path_factory.mktemp("sweep")
    ase.io.write(root / "pool.extxyz", ase.io.read(EXAMPLE / "pool.extxyz", ":60"))
    config = {
        "name": "tiny",
        "teacher": {"model": str(EXAMPLE / "teacher.model"), "head": None, "dtype": "float32"},
        "pool": {"files": [str(root / "pool.extxyz")]},
        "pacemaker": {"functions_per_element": 15, "b_basis": "small"},
        "selection": {"max_structures": 30},
        "train": {"maxiter": 5, "max_attempts": 1},
        "stability": {"picoseconds": 0.05},
        "trajectory": {"picoseconds": 0},
        "properties": {"from_pool": 0},
        "convergence": {"force_mae_meV_per_A": 100000, "energy_mae_meV_per_atom": 100000},
        "sweep": {"at_once": 2, "committee": 2},
    }
    with (root / "tiny.yaml").open("w") as file:
        YAML(typ="safe", pure=True).dump(config, file)
    vary = ("--vary", "pacemaker.cutoff=4.0,5.0")
    done = command(root, command_environment, "flows.sweep", str(root / "tiny.yaml"), *vary)
    assert done.returncode == 0, done.stdout + done.stderr
    return root


@pytest.mark.long
def test_a_sweep_compares_cutoffs_by_error_and_time(swept: Path) -> None:
    found = json.loads((swept / "runs/tiny/sweep/sweep.json").read_text())
    by_name = {one["name"]: one["figures"] for one in found["students"]}
    assert set(by_name) == {"cutoff=4.0", "cutoff=5.0"}
    assert by_name["cutoff=4.0"]["student_us_per_atom"] < by_name["cutoff=5.0"]["student_us_per_atom"]
    assert all(0 < one["force_mae_meV_per_A"] < 5000 for one in by_name.values())
    assert found["teacher_reach_A"] == 10.0


@pytest.mark.long
def test_its_committee_has_a_spread(swept: Path) -> None:
    told = json.loads((swept / "runs/tiny/committee/committee.json").read_text())
    assert told["students"] == ["1", "2"]
    assert told["figures"]["force_std_mean_meV_per_A"] > 0


@pytest.mark.long
def test_the_chosen_config_gives_the_run_folder_and_fits_nothing_again(
    swept: Path, command_environment: dict[str, str]
) -> None:
    before = sorted(path.name for path in (swept / "store" / "pace_train").iterdir())
    done = command(swept, command_environment, "flows.distill", str(swept / "runs/tiny/sweep/chosen.yaml"))
    assert done.returncode in (0, 3), done.stdout + done.stderr
    assert sorted(path.name for path in (swept / "store" / "pace_train").iterdir()) == before
    folder = swept / "runs" / "tiny"
    report = json.loads((folder / "report.json").read_text())
    assert {name: hit for name, hit in report["cached"].items() if not hit} == {}
    sweep = json.loads((folder / "sweep" / "sweep.json").read_text())
    errors = [one["figures"]["force_mae_meV_per_A"] for one in sweep["students"]]
    assert report["fidelity"]["teacher"]["force_mae_meV_per_A"] == min(errors)
    assert (folder / "committee" / "committee.py").is_file(), "what the sweep published stays"
