"""The convergence loop with the real teacher and the real pacemaker: the bundled example, far too few structures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ase.io
import pyarrow.parquet as pq
import pytest
from ase.calculators.singlepoint import SinglePointCalculator

from containers.structures.table import labels_table, structure_id, write_table
from containers.tensorpot.baseline import baseline
from containers.tensorpot.dataset import dataset
from flows.config.schema import DistillConfig
from flows.data.prepare import Ingested, Prepared
from flows.data.recipe import resolve
from flows.data.training_set import training_set
from flows.fit.rounds import Results, extend
from flows.fit.student import make_student
from flows.run import Run
from tasks.artefact import Artefact, StepCall, external
from tasks.run_step import run_step
from tasks.settings import Settings
from tasks.workspace import Workspace, open_workspace
from tests.e2e.copper import teacher_of

pytestmark = pytest.mark.e2e
EXAMPLE = Path(__file__).parents[2] / "examples" / "silicon"
CONFIG = {
    "name": "extended",
    "teacher": {"model": "teacher.model"},
    "pool": {"files": ["pool.extxyz"]},
    "pacemaker": {"functions_per_element": 30, "b_basis": "small"},
    "selection": {"max_structures": 12},
    "train": {"maxiter": 25, "max_attempts": 1, "threads": 1},
    "stability": {"picoseconds": 0},
    "properties": {"from_pool": 0},
    "trajectory": {"picoseconds": 0},
    "convergence": {"force_mae_meV_per_A": 1, "energy_mae_meV_per_atom": 1},
}


def labelled(path: Path) -> Path:
    """The example's pool with the labels of its teacher."""
    from mace.calculators import MACECalculator

    teacher = MACECalculator(model_paths=str(EXAMPLE / "teacher.model"), device="cpu", default_dtype="float64")
    structures = ase.io.read(EXAMPLE / "pool.extxyz", ":")
    for row, atoms in enumerate(structures):
        teacher.calculate(atoms)
        atoms.calc = SinglePointCalculator(atoms, **{key: teacher.results[key] for key in ("energy", "forces")})
        atoms.info |= {"id": structure_id(atoms), "source": "pool.extxyz", "row": row}
    write_table(path, labels_table(structures))
    return path


def e0_eV() -> float:
    """The teacher's energy of a silicon atom."""
    import mace  # noqa: F401  before torch loads the pickle
    import torch

    model = torch.load(EXAMPLE / "teacher.model", map_location="cpu", weights_only=False)
    return float(model.atomic_energies_fn.atomic_energies.flatten()[0])


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return open_workspace(tmp_path_factory.mktemp("root"), Settings(runner="in_process", cores=1))


@pytest.fixture(scope="module")
def data(workspace: Workspace) -> dict[str, Artefact]:
    """Baseline and data set of the labelled pool."""
    inputs = {"labels": (external(labelled(workspace.root / "labels.parquet")),)}
    asked = {
        "baseline": baseline.Params(elements=("Si",), cutoff=5.0, teacher_e0s_eV={"Si": e0_eV()}),
        "dataset": dataset.Params(elements=("Si",), teachers=("example",)),
    }
    return {
        name: run_step(StepCall(step=name, params=params.model_dump(mode="json"), inputs=inputs), workspace)
        for name, params in asked.items()
    }


def distilled(workspace: Workspace, data: dict[str, Artefact], **changes: Any) -> tuple[Results, Run]:
    """The first fit, and what the loop makes of it. Steps run here and now; nothing asks for a server."""
    config = DistillConfig.model_validate({**CONFIG, "extend": changes})
    teacher = teacher_of("Si", 5.0, e0_eV())
    pool = data["dataset"].model_copy(update={"metrics": {"elements": ["Si"]}})  # its files are read by nobody here
    recipe = resolve(config, [teacher], {"Si"}, set())
    prepared = Prepared(config, recipe, Ingested(pool, None, None), infos=(teacher,), models={}, **data)
    run = Run(workspace, step=lambda call, workspace, name: run_step(call, workspace))
    student = make_student(prepared, training_set(prepared, run), run)
    return extend(prepared, student, run), run


@pytest.mark.long
def test_a_round_of_structures_lowers_the_test_error_and_says_so(
    workspace: Workspace, data: dict[str, Artefact]
) -> None:
    found, run = distilled(workspace, data, rounds=1, structures=40)
    (only,) = found.extensions.rounds
    assert (only.kind, only.before.structures, only.after.structures) == ("structures", 12, 52)
    assert sum(only.added_by.values()) == 40
    print(found.extensions.sentence(), only)
    for side in ("validation", "test"):
        before, after = (getattr(size, side)["force_mae_meV_per_A"] for size in (only.before, only.after))
        assert after < 0.9 * before
    assert only.helped
    assert only.chosen
    assert "1 round of extension; 1 helped" in found.extensions.sentence()
    first, then = (run.done[name].metrics for name in ("evaluate", "evaluate round 1"))
    assert then["teacher_gamma_share_above_1"] < first["teacher_gamma_share_above_1"]


def test_what_is_added_is_of_the_training_side(workspace: Workspace, data: dict[str, Artefact]) -> None:
    found, run = distilled(workspace, data, rounds=1, structures=40)
    selection, table = (
        pq.read_table(workspace.store.path(artefact.file(name)))
        for artefact, name in ((found.best.training.selection, "selection"), (data["dataset"], "dataset"))
    )
    sides = dict(zip(table["id"].to_pylist(), table["side"].to_pylist(), strict=True))
    assert {sides[key] for key in selection["id"].to_pylist()} == {"train"}
    first = pq.read_table(workspace.store.path(run.done["pace_select"].file("selection")))
    kept = ["id", "order", "how"]
    assert selection.slice(0, 12).select(kept).equals(first.sort_by("order").select(kept))
    weights = selection["weight"].to_numpy()
    assert weights.mean() == pytest.approx(1.0)  # anew: what was added by its errors stands for few
    assert weights[12:].mean() < weights[:12].mean()
    assert found.best.training.frames.metrics["train_structures"] == 52


@pytest.mark.long
def test_what_nothing_reaches_stops_before_the_rounds_are_used_up(
    workspace: Workspace, data: dict[str, Artefact]
) -> None:
    """No round halves the error: both kinds are tried once, from the best student, and the reason is told."""
    found, _ = distilled(workspace, data, rounds=10, structures=40, min_gain=0.9)
    print(found.extensions.sentence())
    assert found.extensions.why == "no_gain"
    assert sorted(one.kind for one in found.extensions.rounds) == ["functions", "structures"]
    assert not any(one.helped for one in found.extensions.rounds)
    rounds = found.extensions.rounds
    errors = [size.validation["force_mae_meV_per_A"] for one in rounds for size in (one.before, one.after)]
    assert found.best.fit.metrics["validation_force_mae_meV_per_A"] == pytest.approx(min(errors))
    assert "did not help" in found.extensions.sentence()


def test_a_budget_that_is_reached_stops_it(workspace: Workspace, data: dict[str, Artefact]) -> None:
    found, _ = distilled(workspace, data, rounds=10, max_structures=12, max_functions_per_element=30)
    assert not found.extensions.rounds
    assert found.extensions.why == "nothing_left"
    assert "extend.max_structures (12) is reached" in found.extensions.sentence()
