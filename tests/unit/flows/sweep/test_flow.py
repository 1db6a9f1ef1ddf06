"""The students of a sweep, its refusals before anything runs, and the cost of one failure."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from containers.memory import SHARE
from flows.config.exploration import Explore
from flows.config.loading import load_config, with_absolute_paths
from flows.config.schema import DistillConfig
from flows.config.training import Stage
from flows.data.prepare import Prepared
from flows.data.training_set import TrainingSet
from flows.fit.attempts import Attempt
from flows.fit.repairs import first_plan
from flows.fit.student import FittedStudent
from flows.sweep import flow, students
from flows.sweep.__main__ import parser, with_more
from flows.sweep.committee import members
from flows.sweep.students import Wanted, share
from flows.sweep.variants import refuse_too_many, variants, varied
from tasks.errors import DistillError, StepCancelled, StepFailed, StoreError, UserError
from tasks.settings import Settings
from tasks.studies.sweep import SweepSummary
from tasks.workspace import Workspace, open_workspace

OURS = SHARE * 16
"""GB that all fits may have on a machine with 16 GB."""


@pytest.fixture
def base(config: DistillConfig) -> DistillConfig:
    """The defaults, files absolute."""
    return with_absolute_paths(config, Path("/somewhere"))


def swept(base: DistillConfig, **values: Any) -> DistillConfig:
    return DistillConfig.model_validate({**base.model_dump(), "sweep": {**base.sweep.model_dump(), **values}})


def test_every_combination_is_one_student_of_its_own_name(base: DistillConfig) -> None:
    vary = {"pacemaker.cutoff": [4.5, 6, 4.5, 6.0], "train.maxiter": [10, 20]}
    found = variants(swept(base, vary=vary))
    assert [one.name for one in found] == [
        "cutoff=4.5 maxiter=10", "cutoff=4.5 maxiter=20", "cutoff=6 maxiter=10", "cutoff=6 maxiter=20",
    ]  # fmt: skip
    assert [(one.config.pacemaker.cutoff, one.config.train.maxiter) for one in found] == [
        (4.5, 10), (4.5, 20), (6.0, 10), (6.0, 20),
    ]  # fmt: skip
    assert all(one.config.sweep.vary == {} for one in found)
    unchanged = found[0].config.model_copy(update={"pacemaker": base.pacemaker, "train": base.train})
    assert unchanged == base.model_copy(update={"extend": unchanged.extend})
    assert unchanged.extend.rounds == 0, "a student is judged as it was fitted"


def test_a_key_that_changes_nothing_beside_stages_is_not_varied(base: DistillConfig) -> None:
    staged = base.model_copy(update={"train": base.train.model_copy(update={"stages": [Stage(kappa=0.3, maxiter=9)]})})
    with pytest.raises(UserError, match=r"sweep.vary: maxiter=300: train.maxiter has no effect beside train.stages"):
        variants(swept(staged, vary={"train.maxiter": [150, 300]}))


def test_keys_with_the_same_last_word_and_long_values_have_names_of_their_own(base: DistillConfig) -> None:
    stages = [[], [{"kappa": 0.3, "maxiter": 10}, {"kappa": 0.02, "maxiter": 5}]]
    vary = {"train.stages": stages, "selection.potential": [None], "convergence.force_mae_meV_per_A": [1.0]}
    assert [one.name for one in variants(swept(base, vary=vary))] == [
        "stages 1 potential=None force_mae_meV_per_A=1.0", "stages 2 potential=None force_mae_meV_per_A=1.0",
    ]  # fmt: skip
    (one,) = variants(swept(base, vary={"dft.files": [[]], "pool.files": [["/a"]], "train.seed": [2]}))
    assert one.name == "dft.files 1 pool.files 1 seed=2"


@pytest.mark.parametrize(
    ("vary", "message"),
    [
        ({"pacemaker.cutof": [4.5]}, "sweep.vary: cutof=4.5: unknown key pacemaker.cutof: did you mean cutoff"),
        ({"train.maxiter": [10, 0]}, "sweep.vary: maxiter=0: train.maxiter: .* greater than or equal to 1"),
        ({"train.maxiter": ["ten"]}, "train.maxiter: .* valid integer, not 'ten'"),
        ({"train.maxiter.more": [1]}, "maxiter has no keys below it"),
        ({"pool.files": [["pool.extxyz"]]}, "absolute paths"),
        ({"teacher.model": ["other.model"]}, "absolute paths"),
    ],
)
def test_a_wrong_combination_is_refused_before_anything_runs(
    base: DistillConfig, vary: dict[str, list[Any]], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        variants(swept(base, vary=vary))


@pytest.mark.parametrize(
    ("sweep_section", "message"),
    [
        ({"vary": {"train.maxiter": []}}, "has no values"),
        *(
            ({"vary": {key: [1, 2]}}, "the same for every student")
            for key in ("name", "preset", "sweep.at_once", "extend.rounds")
        ),
        ({"committee": 1}, "a committee of one has no spread"),
        ({"vary": {"train.threads": [1, 2]}}, "threads are no part of a result"),
    ],
)
def test_what_no_sweep_can_do_is_refused_with_the_config(
    base: DistillConfig, sweep_section: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        swept(base, **sweep_section)
    with pytest.raises(UserError, match=r"sweep\.vary .* sweep\.committee"):
        flow.checked(base)  # a sweep of nothing


def test_a_sweep_explores_nothing(base: DistillConfig) -> None:
    wanted = base.model_copy(update={"explore": Explore(seeds=["POSCAR"], conditions=[{"temperature_K": 300.0}])})
    with pytest.raises(
        UserError, match=r"flows\.sweep fits the same data .* pool\.files: \[runs/.*/dataset\.parquet\]"
    ):
        flow.checked(swept(wanted, vary={"train.maxiter": [10, 20]}))


def test_only_what_decides_the_data_has_data_of_its_own(base: DistillConfig) -> None:
    vary = {"train.maxiter": [10, 20], "pacemaker.cutoff": [4.5, 5.0]}
    keys = {one.name: one.data_key for one in variants(swept(base, vary=vary))}
    assert keys["maxiter=10 cutoff=4.5"] == keys["maxiter=20 cutoff=4.5"] != keys["maxiter=10 cutoff=5.0"]


@pytest.mark.parametrize(
    ("at_once", "threads", "fits"), [(1, 8, True), (2, "auto", True), (3, "auto", False), (2, 2, False)]
)
def test_fits_never_have_more_threads_than_there_are_cores(
    base: DistillConfig, at_once: int, threads: Any, fits: bool
) -> None:
    config = swept(base, at_once=at_once)
    config = config.model_copy(update={"train": config.train.model_copy(update={"threads": threads})})
    with nullcontext() if fits else pytest.raises(UserError, match=r"sweep\.at_once"):
        refuse_too_many(config, cores=2)


@pytest.mark.parametrize(
    ("settings", "at_once", "cores", "memory_GB"),
    [
        ({"cores": 5, "fit_memory_GB": 6}, 1, 5, 6),
        ({"cores": 5, "fit_memory_GB": 6}, 2, 2, 3),
        ({"cores": 2}, 1, 2, None),
        ({"cores": 2}, 4, 1, OURS / 4),
        *(
            ({"runner": runner, "step_memory_GB": gigabytes, "cores": 2}, 2, 1, memory_GB)
            for runner in ("docker", "apptainer")  # no more than their containers have
            for gigabytes, memory_GB in ((0.1, SHARE * 0.1), (1e6, OURS / 2))
        ),
        ({"cores": 2, "dask_address": "tcp://there:8786"}, 2, 1, None),  # that of its workers
        ({"cores": 2, "dask_address": "tcp://there:8786", "fit_memory_GB": 6}, 2, 1, 3),
    ],
)
def test_fits_at_once_share_cores_and_memory(
    settings: dict[str, Any], at_once: int, cores: int, memory_GB: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(students, "available_bytes", lambda: 16e9)
    found = share(Settings(**settings), at_once)
    assert (found.cores, found.fit_memory_GB) == (cores, memory_GB)


def test_members_differ_by_more_than_pacemakers_seed(base: DistillConfig) -> None:
    assert members(swept(base, committee=2)) == [{"bootstrap": 42}, {"bootstrap": 43}]
    assert members(swept(base, committee=2, differ_by="coefficients")) == [
        {"coefficients": "random", "seed": 42}, {"coefficients": "random", "seed": 43},
    ]  # fmt: skip


def test_values_come_from_the_command_line_too(base: DistillConfig) -> None:
    words = ["--vary", "pacemaker.cutoff=4.5,auto", "--vary", "train.stages=[],[{kappa: 0.3, maxiter: 9}]"]
    config = with_more(swept(base, vary={"train.l2": [0.0]}), parser().parse_args(words).vary)
    assert config.sweep.vary == {
        "train.l2": [0.0], "pacemaker.cutoff": [4.5, "auto"], "train.stages": [[], [{"kappa": 0.3, "maxiter": 9}]],
    }  # fmt: skip
    assert config.model_copy(update={"sweep": base.sweep}) == base


@pytest.mark.parametrize("option", ["train.maxiter", "train.maxiter=", "=1,2", "train.maxiter=[1", "name=a,b"])
def test_a_wrong_option_is_refused(base: DistillConfig, option: str) -> None:
    with pytest.raises(UserError, match="--vary"):
        with_more(base, [option])


class Fits:
    """In place of fitting: a student for each, or what failed."""

    def __init__(self, artefact: Any, broken: dict[str, Exception]) -> None:
        self.artefact, self.broken = artefact, broken

    def __call__(self, wanted: list[Wanted], at_once: int, workspace: Workspace) -> list[FittedStudent | Exception]:
        return [self.broken.get(one.name) or self._fitted(one) for one in wanted]

    def _fitted(self, one: Wanted) -> FittedStudent:
        recipe = one.prepared.recipe
        train = one.prepared.config.train
        fit = self.artefact("pace_train", one.name, iterations=train.maxiter)
        core = self.artefact("pace_corerep", one.name, functions={"Si": 7})
        errors = {"teacher_force_mae_meV_per_A": 1000 / train.maxiter, "teacher_structures": 9}
        plan = first_plan(recipe.stages[0])
        return FittedStudent(
            recipe=recipe, training=one.training, fit=fit,
            attempts=[Attempt("pace_train attempt 1", plan, "converged", 5.0, fit)],
            active_set=self.artefact("pace_activeset"), core=core,
            stability=self.artefact("stability", stable=True) if train.maxiter > 10 else None,
            evaluation=self.artefact("evaluate", **errors, student_us_per_atom=1.0 * train.maxiter),
        )  # fmt: skip


@pytest.fixture
def published(prepared: Prepared, artefact: Any, monkeypatch: pytest.MonkeyPatch) -> list[SweepSummary]:
    """The summaries of a sweep whose data and fits are made up; `Fits` may be replaced."""

    class Made(flow.Data):
        def of(self, one: Any) -> Prepared:
            return prepared.with_config(one.config)

    seen: list[SweepSummary] = []
    frames = artefact("frames", train_structures=40)
    monkeypatch.setattr(flow, "Data", Made)
    monkeypatch.setattr(flow, "training_set", lambda *_: TrainingSet(artefact("pace_select"), frames))
    monkeypatch.setattr(flow, "fit_all", Fits(artefact, {}))
    monkeypatch.setattr(flow, "publish_study", lambda summary, _: seen.append(summary))
    return seen


def take(config: DistillConfig, root: Path) -> DistillConfig:
    workspace = open_workspace(root, Settings())
    return flow._sweep(config, variants(config), flow.Data(workspace), workspace)


VARY = {"train.maxiter": [10, 20, 21]}
FAILED = StepFailed("pace_train", "Diverged", "the loss is infinite", Path("x"))
CANCELLED = StepCancelled("pace_select", "Cancelled", "somebody wants it to end", Path("x"))


def test_the_best_is_taken_or_the_cheapest_that_is_nearly_as_good(
    base: DistillConfig, published: list[SweepSummary], tmp_path: Path
) -> None:
    assert take(swept(base, vary=VARY), tmp_path).train.maxiter == 21
    assert take(swept(base, vary=VARY, take="cheapest", within=0.06), tmp_path).train.maxiter == 20
    assert take(swept(base, vary=VARY, take="cheapest", within=0.04), tmp_path).train.maxiter == 21
    assert published[-1].chosen_config["train"]["maxiter"] == 21
    assert [one.stable for one in published[-1].students] == [None, True, True]


@pytest.mark.parametrize("where", ["fit", "training set"])
def test_a_student_that_fails_costs_itself_alone(
    base: DistillConfig, published: list[SweepSummary], artefact: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    where: str,
) -> None:  # fmt: skip
    def selected(prepared: Prepared, run: Any) -> Any:
        if where == "training set" and prepared.config.train.maxiter == 21:
            raise FAILED
        return TrainingSet(artefact("pace_select"), artefact("frames", train_structures=40))

    monkeypatch.setattr(flow, "training_set", selected)
    monkeypatch.setattr(flow, "fit_all", Fits(artefact, {"maxiter=21": FAILED}))
    assert take(swept(base, vary=VARY), tmp_path).train.maxiter == 20
    assert [(one.name, one.step, one.message) for one in published[-1].failures] == [
        ("maxiter=21", "pace_train", "the loss is infinite")
    ]
    assert [one.name for one in published[-1].students] == ["maxiter=10", "maxiter=20"]


@pytest.mark.parametrize("error", [FAILED, CANCELLED])
def test_a_sweep_without_any_student_fails_and_a_cancelled_selection_ends_it(
    base: DistillConfig, published: list[SweepSummary], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    error: DistillError,
) -> None:  # fmt: skip
    selections = []

    def selected(prepared: Prepared, run: Any) -> Any:
        selections.append(run)
        raise error

    monkeypatch.setattr(flow, "training_set", selected)
    with pytest.raises(type(error)) as caught:
        take(swept(base, vary=VARY), tmp_path)
    assert caught.value is error
    assert published == []
    assert len(selections) == (1 if error is CANCELLED else 3)


@pytest.mark.parametrize("error", [StoreError("no space left"), CANCELLED])
def test_what_is_no_failure_of_a_student_ends_the_sweep(
    recipe: Any, data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: DistillError
) -> None:
    results, fatal_ones = [FAILED, error], list[bool]()

    def ran(*_: Any, fatal: Callable[[BaseException], bool], **__: Any) -> list[Any]:
        fatal_ones.extend(map(fatal, results))
        return results

    monkeypatch.setattr(students, "run_shards", ran)
    wanted, workspace = [Wanted(name, recipe, data) for name in ("a", "b")], open_workspace(tmp_path, Settings())
    with pytest.raises(type(error)) as caught:
        students.fit_all(wanted, 1, workspace)
    assert caught.value is error
    assert fatal_ones == [False, True]
    results[1] = FAILED
    assert students.fit_all(wanted, 1, workspace) == [FAILED, FAILED]


def test_what_the_data_refuse_is_reported_with_the_student(
    base: DistillConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(config: DistillConfig, *_: Any) -> Any:
        if config.pacemaker.cutoff == 4.0:
            raise FAILED
        raise UserError("pacemaker.overrides: no pair reaches it")

    monkeypatch.setattr(flow, "resolve_inputs", refused)
    monkeypatch.setattr(flow, "user_files", lambda config: {})
    monkeypatch.setattr(flow, "teacher_files", lambda config: {})
    data = flow.Data(open_workspace(tmp_path, Settings()))
    failing, impossible = variants(swept(base, vary={"pacemaker.cutoff": [4.0, 5.0]}))
    data.check(failing)
    with pytest.raises(UserError, match=r"sweep\.vary: cutoff=5\.0: pacemaker\.overrides"):
        data.check(impossible)


def test_the_chosen_config_reads_back_the_same(example: Path, tmp_path: Path) -> None:
    config = varied(load_config(example), {"train.l1": 1e-8, "pacemaker.cutoff": 5}, "test")
    values = copy.deepcopy(config.model_dump(mode="json", exclude={"sweep"}))
    path = tmp_path / "chosen.yaml"
    with path.open("w") as file:
        YAML(typ="safe", pure=True).dump(values, file)
    assert load_config(path) == config
