"""The dry run on the bundled example with stub steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ase.build
import pytest
import yaml

from containers.contract import Request, file_digest
from containers.mace.labelling import mace_label
from containers.mace.teacher.description import Teacher
from containers.mace.teacher.teacher_fetch import FOUNDATION_MODELS
from containers.step import execute
from containers.tensorpot.fit import pace_train
from flows.config.loading import load_config
from flows.config.schema import DistillConfig
from flows.data.recipe import Recipe, resolve
from flows.distill import dry_run
from tasks.artefact import external
from tasks.errors import StoreError, UserError
from tasks.labelling.shard_task import TeacherCall, shard_call
from tasks.labelling.shards import ShardFile, StructurePool
from tasks.run_step import run_unstored
from tasks.settings import Settings
from tasks.workspace import Workspace, open_workspace

FOUNDATION = (f"teacher.model={FOUNDATION_MODELS[0]}",)
CHEAP = {"ingest", "teacher_info"}
TRAJECTORY = ["trajectory", "pool_labels trajectory", "trajectory_errors"]
LIMIT = "convergence.force_mae_meV_per_A=120"
NO_TRAJECTORY = "trajectory.picoseconds=0"


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return open_workspace(tmp_path, Settings(runner="stub", cores=1))


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def steps_in(workspace: Workspace) -> set[str]:
    return {path.name for path in workspace.store.root.iterdir()} - {"locks", "work", "labels"}


def work_off(workspace: Workspace, requests: Path) -> None:
    """Run every request that the store does not know."""
    for file in requests.iterdir():
        request = Request.model_validate_json(file.read_bytes())
        if workspace.store.peek(request) is None:
            folder = workspace.store.stage(request)
            execute(folder)
            workspace.store.publish(folder, request)


def label_all(config: DistillConfig, workspace: Workspace, step: str = "ingest") -> None:
    """Label the structures of a step, once they are made, as the flow does before `pool_labels`."""
    found = list(workspace.store.root.glob(f"{step}/*/outputs/structures.parquet"))
    if not found:
        return
    (ingested,) = found
    pool, model = StructurePool(ingested), external(Path(config.teacher.model))
    teacher = TeacherCall(model=model, params=mace_label.Params(head="Default"), cutoff_A=5.0)
    shard = ShardFile(file=ingested, sha256=file_digest(ingested), structures=len(pool), atoms=int(pool.atoms.sum()))
    with run_unstored(shard_call(shard, teacher, workspace.settings, None), workspace) as (_, folder):
        teacher.store(workspace).commit(folder / "outputs" / "labels.parquet", pool.ids, pool.atoms)


def states(plan: str) -> dict[str, str]:
    steps = plan.split("\nbasis:")[0].splitlines()[1:]
    return {line[:30].strip(): line[30:].split("(")[0].split("key")[0].strip() for line in steps}


def written(workspace: Workspace) -> Any:
    return yaml.safe_load((workspace.run_folder("silicon") / "dry-run" / "input.yaml").read_text())


def test_the_plan_is_written_and_nothing_else_is_made(example: Path, workspace: Workspace) -> None:
    text = dry_run.plan(load_config(example, ("train.maxiter=33", "selection.max_structures=12")), workspace)
    folder = workspace.run_folder("silicon") / "dry-run"
    requests = {f"requests/{step}.json" for step in (*CHEAP, "pool_labels")}
    assert files_in(workspace.run_folder("silicon")) == {f"dry-run/{name}" for name in requests} | {
        "dry-run/plan.json",
        "dry-run/input.yaml",
    }
    assert steps_in(workspace) == CHEAP
    assert str(folder) in text
    assert "mace_label                   would run       (40 of 40 structures are not labelled yet)" in text
    plan = json.loads((folder / "plan.json").read_text())
    assert plan["recipe"]["potential"]["elements"] == ["Si"]
    assert plan["first_attempt"]["maxiter"] == written(workspace)["fit"]["maxiter"] == 33
    assert written(workspace)["backend"]["batch_size"] == 12, "the batch of as many structures"
    first = states(text)
    assert first["ingest"] == first["teacher_info"] == "ran now"
    assert set(first.values()) == {"ran now", "would run"}
    assert list(first)[-4:] == ["student_properties", *TRAJECTORY]
    changed = ("train.maxiter=33", "selection.max_structures=12", "stability.picoseconds=0")
    second = states(dry_run.plan(load_config(example, changed), workspace))
    assert first.pop("stability") == "would run", "without a gate there is no such step"
    assert second == {**first, "ingest": "cached", "teacher_info": "cached"}


def test_its_requests_worked_off_one_by_one_lead_through_all_steps(example: Path, workspace: Workspace) -> None:
    config, seen = load_config(example), set()
    dry_run.plan(config, workspace)
    label_all(config, workspace)
    for _ in range(12):
        seen |= set(states(dry_run.plan(config, workspace)).values())
        work_off(workspace, workspace.run_folder("silicon") / "dry-run" / "requests")
        label_all(config, workspace, "trajectory")
    assert set(states(dry_run.plan(config, workspace)).values()) == {"cached"}
    assert seen == {"would run", "cached"}


def test_dft_files_are_checked_too_and_a_foundation_model_is_not_fetched(
    example: Path, workspace: Workspace, tmp_path: Path
) -> None:
    dft, folder = tmp_path / "dft.xyz", workspace.run_folder("silicon") / "dry-run"
    dft.write_text("the stub reads nothing\n")
    text = dry_run.plan(load_config(example, (f"dft.files=[{dft}]", f"dft.test_files=[{dft}]")), workspace)
    assert {"ingest DFT data", "ingest DFT test data"} <= set(states(text))
    text = dry_run.plan(load_config(example, FOUNDATION), workspace)
    assert "once the foundation models have been fetched" in text
    assert steps_in(workspace) == CHEAP
    fetch = f"requests/teacher_fetch_{FOUNDATION_MODELS[0]}.json"
    assert files_in(folder) == {"requests/ingest.json", fetch}, "the earlier plan leaves nothing behind"


@pytest.mark.parametrize("override", ["pacemaker.elements=[O]", "teacher.head=none such", "pool.files=[nowhere.xyz]"])
def test_a_refused_config_leaves_no_run_folder(example: Path, workspace: Workspace, override: str) -> None:
    with pytest.raises(UserError):
        dry_run.plan(load_config(example, (override,)), workspace)
    assert list((workspace.root / "runs").iterdir()) == []


@pytest.mark.parametrize(
    ("most", "expected"), [({"max_structures": 10}, 10), ({"max_structures": 300}, 40), ({"fraction": 0.5}, 20)]
)
def test_no_more_structures_are_expected_than_the_pool_has(recipe, artefact, most, expected) -> None:
    small = recipe.model_copy(update={"selection": recipe.selection.model_copy(update=most)})
    pool = artefact("ingest", structures=40, atoms=80)
    assert dry_run._expected(small, pool) == (expected, 2 * expected)


STAGES = "train.stages=[{kappa: 0.4, maxiter: 5}, {kappa: 0.02, maxiter: 5}]"


def test_every_stage_is_planned_and_the_best_is_taken_further(
    example: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stubs of all kappas are equal; here the second stage has the smaller error, and the best potential."""
    config = load_config(example, (STAGES, "train.max_attempts=1", "trajectory.picoseconds=0"))
    real, stages = pace_train.stub, ["pace_train stage 1 attempt 1", "pace_train stage 2 attempt 1"]

    def differing(inputs: Any, outputs: Path, params: Any, machine: Any) -> dict[str, Any]:
        metrics = real(inputs, outputs, params, machine)
        with (outputs / pace_train.OUTPUTS["best"]).open("a") as file:
            file.write(f"# kappa {params.loss.kappa}\n")
        return {**metrics, "validation_force_mae_meV_per_A": 1000 * params.loss.kappa}

    monkeypatch.setattr(pace_train, "stub", differing)
    text = dry_run.plan(config, workspace)
    assert text.splitlines()[-1].startswith("train.maxiter has no effect beside train.stages"), "the example has one"
    config = load_config(example, (STAGES, "train.max_attempts=1", "train.maxiter=150", NO_TRAJECTORY, LIMIT))
    plan = states(dry_run.plan(config, workspace))
    assert (written(workspace)["fit"]["loss"]["kappa"], written(workspace)["fit"]["maxiter"]) == (0.4, 5), "the first"
    steps = ["pace_activeset", "pace_corerep", "stability", "evaluate", "student_properties"]
    assert list(plan)[-7:] == [*stages, *steps]
    label_all(config, workspace)
    requests = workspace.run_folder("silicon") / "dry-run" / "requests"
    for _ in range(11):
        plan = states(dry_run.plan(config, workspace))
        work_off(workspace, requests)
    assert set(plan.values()) == {"cached"}
    assert list(plan)[-7:-5] == stages
    active_set = Request.model_validate_json((requests / "pace_activeset.json").read_bytes())
    second = Request.model_validate_json((requests / f"{stages[1].replace(' ', '_')}.json").read_bytes())
    assert active_set.inputs["potential"][0].path.parent.parent.name == second.key


def test_every_attempt_that_was_made_is_listed(example: Path, workspace: Workspace) -> None:
    changes = ("convergence.force_mae_meV_per_A=1e-6", "train.max_attempts=2", "extend.rounds=1", NO_TRAJECTORY)
    config = load_config(example, changes)
    dry_run.plan(config, workspace)
    label_all(config, workspace)
    for _ in range(11):
        plan = dry_run.plan(config, workspace)
        work_off(workspace, workspace.run_folder("silicon") / "dry-run" / "requests")
    assert {"pace_train attempt 1", "pace_train attempt 2"} <= set(states(plan))
    assert set(states(plan).values()) == {"cached"}


def test_a_file_in_the_place_of_the_plan_is_reported_and_kept(example: Path, workspace: Workspace) -> None:
    mine = workspace.run_folder("silicon") / "dry-run"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(StoreError, match="in the way"):
        dry_run.plan(load_config(example), workspace)
    assert mine.read_text() == "mine"


NINE = ("Ag", "Al", "Au", "Cu", "Ni", "Pd", "Pt", "Ti", "Zr")


def recipe_of(config: DistillConfig, teacher: Teacher, elements: tuple[str, ...], **pacemaker: Any) -> Recipe:
    knows = teacher.model_copy(update={"elements": elements, "e0s_eV": {"Default": dict.fromkeys(elements, 0.0)}})
    changed = config.model_copy(update={"pacemaker": config.pacemaker.model_copy(update=pacemaker)})
    return resolve(changed, [knows], set(elements), set())


def test_the_reader_learns_of_functions_by_block_and_of_times(config: DistillConfig, teacher: Teacher) -> None:
    lines = dry_run.basis_lines(recipe_of(config, teacher, NINE, cutoff=5.0, functions_per_element=250), 1000)
    assert lines[0] == "basis: 9 elements, 81 blocks, 2,187 functions, 7,398 parameters"
    assert lines[1] == "  Ag Al Au Cu Ni Pd Pt Ti Zr   243 functions: unary 27, binary 216"
    assert "a fit of 1,000 atoms" in lines[2]
    assert "iterations of BFGS" in lines[2]
    assert lines[2].endswith(" and 9.6 GB of memory")


def test_a_budget_too_small_for_the_elements_is_refused_before_labelling(
    config: DistillConfig, teacher: Teacher
) -> None:
    with pytest.raises(UserError, match=r"pacemaker.functions_per_element is 8, .* at least 9"):
        recipe_of(config, teacher, NINE, functions_per_element=8)


def test_bfgs_costs_the_square_of_the_parameters() -> None:
    few, many = (dry_run.fit_seconds(250, parameters, 2, 1000, 10, "BFGS") for parameters in (100, 5000))
    assert many - few == pytest.approx(10 * 1.3e-9 * 5000**2, rel=1e-3)
    assert dry_run.fit_seconds(250, 5000, 2, 1000, 10, "L-BFGS-B") < few


def test_an_exploration_has_the_cost_of_its_first_round(workspace: Workspace, tmp_path: Path) -> None:
    """Five starts of the stub, each of another kind; two of them in two runs each of 3 ps at level 1 of 2."""
    ase.build.bulk("Si").write(tmp_path / "POSCAR")
    conditions = [{"temperature_K": 300, "picoseconds": 6, "starts": ["bulk", "slab"], "replicas": 2}]
    explore = {"seeds": [str(tmp_path / "POSCAR")], "levels": 2, "conditions": conditions}
    teacher = {"model": str(Path(__file__).parents[4] / "examples" / "silicon" / "teacher.model")}
    config = DistillConfig.model_validate({"name": "silicon", "teacher": teacher, "explore": explore})
    text = dry_run.plan(config, workspace)
    assert "round 1: 4 runs, about 1 min on 1 cores with steps of 1 fs, then at most 50 labels" in text
    assert states(text)["explore"] == "would run"
    assert "seed_pool" in steps_in(workspace)
