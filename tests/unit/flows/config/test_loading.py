from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from containers.mace.teacher.teacher_fetch import FOUNDATION_MODELS
from flows.config.loading import load_config, teacher_files, user_files
from flows.config.schema import DistillConfig
from tasks.errors import UserError

MINIMAL = {"name": "silicon", "teacher": {"model": "teacher.model"}, "pool": {"files": ["pool.extxyz"]}}
REPOSITORY = Path(__file__).parents[4]


def teacher(**changes: object) -> dict[str, object]:
    return {"teacher": {"model": "teacher.model", **changes}}


def written(folder: Path, values: object) -> Path:
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_defaults_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths start at the file, `~` is the home folder, and a foundation model stays a name."""
    config = load_config(written(tmp_path, MINIMAL))
    sizes = (config.pacemaker.functions_per_element, config.selection.max_structures, config.train.maxiter)
    assert sizes == (250, 300, 150)
    assert config.pacemaker.force_share == pytest.approx(0.3)
    assert config.convergence.force_mae_meV_per_A == "auto"
    assert (config.pool.files, config.teacher.model) == ([f"{tmp_path}/pool.extxyz"], f"{tmp_path}/teacher.model")
    monkeypatch.setenv("HOME", "/home/ada")
    values = {
        **MINIMAL, "teacher": {"model": FOUNDATION_MODELS[0], "committee": ["~/c.model", FOUNDATION_MODELS[1]]},
        "pool": {"files": ["~/p.xyz"]}, "dft": {"files": ["~/d.xyz"], "test_files": ["~/e.xyz"]},
        "dataset": {"base": "~/runs/old"}, "selection": {"potential": "~/p.yaml"},
    }  # fmt: skip
    config = load_config(written(tmp_path, values))
    first, (second, third), dft = config.teacher.model, config.teacher.committee, config.dft
    assert (first, third) == FOUNDATION_MODELS[:2]
    found = [second, *config.pool.files, *dft.files, *dft.test_files, config.dataset.base, config.selection.potential]
    names = ["c.model", "p.xyz", "d.xyz", "e.xyz", "runs/old", "p.yaml"]
    assert found == [f"/home/ada/{name}" for name in names]


def test_overrides_reach_nested_keys(tmp_path: Path) -> None:
    overrides = ("train.maxiter=7", "pacemaker.elements=[Si, O]", "name=other", "dataset.weights.my-group=2")
    overrides += ("teacher.committee=[b.model]", "teacher.max_force_std=0.2", "labels.max_force_eV_per_A=30")
    config = load_config(written(tmp_path, MINIMAL), overrides)
    assert (config.train.maxiter, config.pacemaker.elements, config.name) == (7, ["Si", "O"], "other")
    assert config.dataset.weights == {"my-group": 2}
    assert (config.teacher.committee, config.teacher.max_force_std) == ([f"{tmp_path}/b.model"], 0.2)
    assert (config.labels.max_force_eV_per_A, config.labels.min_distance_A) == (30, 0.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trian": {}}, "unknown key trian: did you mean train?"),
        ({"train": {"maxitr": 3}}, "unknown key train.maxitr: did you mean maxiter?"),
        ({"train": {"maxiter": "many"}}, "train.maxiter: .*integer.*, not 'many'"),
        ({"train": {"maxiter": "150"}}, "train.maxiter: .*integer.*, not '150'"),
        ({"train": {"maxiter": True}}, "train.maxiter: .*integer.*, not True"),
        ({"train": {"maxiter": 0}}, "train.maxiter: .*greater than or equal to 1, not 0"),
        ({"pacemaker": {"cutoff": 0}}, "pacemaker.cutoff: .*'auto' or .*greater than 0, not 0"),
        ({"pacemaker": {"elements": ["Xx"]}}, "'Xx' is not a chemical element"),
        ({"pacemaker": {"loss_stress": -0.1}}, "pacemaker.loss_stress: .*greater than or equal to 0"),
        ({"pacemaker": {"loss_stress": 0.1, "loss_energy": 0}}, "loss_stress: .*loss_energy must be above 0"),
        ({"pacemaker": {"r_in_A": {"Si": 1.5}}}, "'Si' is no pair of elements"),
        ({"pacemaker": {"lj": {"Si-O": {"epsilon_eV": 1, "sigma_A": 2}}}}, "'Si-O' is no pair.*alphabetic order"),
        (
            {"pacemaker": {"zbl": "difference", "reference_potential": "lj"}},
            "zbl: difference needs reference_potential",
        ),
        ({"pacemaker": {"lj": {"Si-Si": {"epsilon_eV": 1.0, "sigma_A": 2.0}}}}, "reference_potential is not lj"),
        ({"pacemaker": {"energy_weights": False, "force_scale_eV_per_A": 2.0}}, "need energy_weights: true"),
        ({"pacemaker": {"r_in_A": {"Si-Si": 1.5}, "reference_potential": "none"}}, "reference_potential is none"),
        ({"dataset": {"weights": {"bulk": 0}}}, "dataset.weights.bulk: .*greater than 0"),
        ({"dataset": {"reference_energies": "dft"}}, "dataset.reference_energies: .*'isolated_atoms'"),
        ({"selection": {"projections": "full"}}, "selection: full projections need coefficients: give potential"),
        ({"pacemaker": {"loss_energy": 0, "loss_forces": 0}}, "loss_energy \\+ loss_forces must be above 0"),
        ({"dft": {"energy_key": ""}}, "dft.energy_key: .*at least 1 character"),
        ({"pool": {"files": []}}, "give structures: pool.files, or explore.seeds"),
        ({"name": "../up"}, "name: "),
        ({"split": {"validation": 0.6, "test": 0.5}}, "split: .*must leave something to train on"),
        ({"train": {"maxiter": float("inf")}}, "train.maxiter"),
        (teacher(committee=["b.model", "b.model"]), "teacher.committee: names a model twice"),
        (teacher(committee=["teacher.model"]), "teacher.committee: .*or teacher.model again"),
        (teacher(committee="b.model"), "teacher.committee: .*list"),
        (teacher(max_force_std=0.2), "teacher.max_force_std: one model has no deviation"),
        (teacher(committee=["b.model"], max_force_std=0), "teacher.max_force_std: .*greater than 0"),
        ({"labels": {"max_force_eV_per_A": 0}}, "labels.max_force_eV_per_A: .*greater than 0, not 0"),
        ({"labels": {"min_distance_A": "0.5"}}, "labels.min_distance_A: .*number, not '0.5'"),
        ({"max-iter": 3}, "unknown key max-iter; known here: name, "),
        ({"train": {"max-iter": 3}}, "unknown key train.max-iter: did you mean maxiter?"),
        ({"train": {"stages": [{"kappa": 0.3, "max-iter": 3}]}}, r"train.stages.0.max-iter: did you mean maxiter\?"),
        ({"train": {"early_stop": {"patiense": 1}}}, "unknown key train.early_stop.patiense: did you mean patience?"),
        ({"dataset": {"weights": {"my-group": 0}}}, "dataset.weights.my-group: .*greater than 0"),
        ({"labels": {"max_force": 9}}, "unknown key labels.max_force: did you mean max_force_eV_per_A"),
    ],
)
def test_wrong_values_name_the_key_and_the_file(tmp_path: Path, change: dict[str, object], message: str) -> None:
    path = written(tmp_path, {**MINIMAL, **change})
    with pytest.raises(UserError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["- a\n- b\n", "", "a: [1", "\x00", "name: a\nname: b\n"])
def test_a_file_that_is_no_config_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"config\.yaml"):
        load_config(path)


@pytest.mark.parametrize("override", ["train.maxiter", "=3", "name.sub=3", "train.maxiter=[1"])
def test_a_wrong_override_is_refused(tmp_path: Path, override: str) -> None:
    with pytest.raises(UserError, match="--set"):
        load_config(written(tmp_path, MINIMAL), (override,))


def test_the_example_and_the_deployments_are_the_same_science() -> None:
    example = yaml.safe_load((REPOSITORY / "examples/silicon/distill.yaml").read_text())
    deployments = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text())["deployments"]
    shipped = DistillConfig.model_validate(example)
    for deployment in deployments:
        config = DistillConfig.model_validate(deployment["parameters"]["config"])
        assert (REPOSITORY / config.teacher.model).is_file()
        assert all((REPOSITORY / file).is_file() for file in config.pool.files)
        same = {"teacher": shipped.teacher, "pool": shipped.pool}
        assert config.model_copy(update=same) == shipped


def test_an_early_stop_by_the_validation_loss_needs_a_patience(tmp_path: Path) -> None:
    own = {**MINIMAL, "pacemaker": {"fit": {"min_relative_test_loss_per_iter": 1e-4}}}
    with pytest.raises(UserError, match=r"min_relative_test_loss_per_iter needs train\.early_stop"):
        load_config(written(tmp_path, own))
    assert load_config(written(tmp_path, {**own, "train": {"early_stop": {"patience": 30}}})).train.early_stop


def config_of(**changes: object) -> DistillConfig:
    return DistillConfig.model_validate({**MINIMAL, "pool": {"files": [str(Path(__file__))]}, **changes})


def test_crystals_of_files_are_found_beside_the_config(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, {**MINIMAL, "properties": {"from_pool": 0, "files": ["crystal.cif"]}}))
    assert config.properties.files == [str(tmp_path / "crystal.cif")]
    assert config.properties.wanted
    (tmp_path / "pool.extxyz").touch()
    with pytest.raises(UserError, match=r"crystal\.cif"):
        user_files(config)


def test_a_base_gives_its_data_set_its_selection_and_its_baseline(tmp_path: Path) -> None:
    assert user_files(config_of())["base"] == ()
    names = ["dataset.parquet", "selection.parquet", "baseline.json"]
    for name in names:
        (tmp_path / name).write_text(name)
    assert [file.path.name for file in user_files(config_of(dataset={"base": str(tmp_path)}))["base"]] == names
    (tmp_path / names[0]).unlink()
    with pytest.raises(UserError, match=r"dataset\.base: .*dataset\.parquet.*runs/NAME"):
        user_files(config_of(dataset={"base": str(tmp_path)}))


def test_a_missing_model_is_named_with_its_key_and_a_foundation_model_has_no_file_yet() -> None:
    named = config_of(teacher={"model": FOUNDATION_MODELS[0]})
    assert teacher_files(named) == {FOUNDATION_MODELS[0]: None}
    with pytest.raises(UserError, match=r"teacher\.model: .*none\.model"):
        teacher_files(config_of(teacher={"model": "none.model"}))
    with pytest.raises(UserError, match=r"\$HOME/my\.model.*Variables such as \$HOME are not expanded, ~ is"):
        teacher_files(config_of(teacher={"model": "$HOME/my.model"}))
