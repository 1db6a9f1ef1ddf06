"""In which order the user's files are read, what each sees of the others, and the warnings about them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from containers.ingest import ingest
from containers.mace.teacher.description import Teacher
from containers.structures.state import States
from containers.tensorpot.baseline.baseline import Metrics
from flows.config.exploration import Explore
from flows.config.schema import DistillConfig
from flows.data.frame_warnings import frame_warnings
from flows.data.prepare import ingest_all, warn_of_dft
from flows.data.recipe import check_compositions
from flows.data.steps import ingest_call
from flows.run import Run
from tasks.artefact import Artefact, StepCall, external
from tasks.errors import UserError
from tasks.run_step import run_step
from tasks.settings import Settings
from tasks.workspace import Workspace, open_workspace

TABLE = {"pool.extxyz": "pool", "dft.extxyz": "dft", "test.extxyz": "test"}


@pytest.fixture
def order(config: DistillConfig, artefact: Callable[..., Artefact], tmp_path: Path) -> Callable[..., list[Any]]:
    """Reads a pool, DFT data and test data, so many of ten frames with a family in their file: name of the task run,
    the tables it is given and how it compares."""

    def read(**named: int) -> list[Any]:
        files, calls = {"base": (), "seeds": (), "crystals": (), "potential": ()}, []
        for number, (role, name) in enumerate([("pool", "pool"), ("dft", "dft"), ("dft_test", "test")]):
            (tmp_path / f"{name}.extxyz").write_text(str(number))
            files[role] = (external(tmp_path / f"{name}.extxyz"),)

        def step(call: StepCall, workspace: Workspace, name: str) -> Artefact:
            table = TABLE[call.params["file_names"][0]]
            seen = [str(file.sha256).split()[1] for file in call.inputs.get("known", ())]
            calls.append((name, seen, call.params["compare"], call.params["joins"]))
            mark = f"{table}-beside" if "beside" in name else table
            figures = {"structures": 8, "duplicates": 2, "states": States({}).metrics()}
            return artefact("ingest", mark, **figures, frames_with_given_family=named.get(table, 0))

        ingest_all(config, files, Run(open_workspace(tmp_path, Settings()), step=step))
        return calls

    return read


def test_dft_data_are_read_first_and_test_data_last(order: Callable[..., list[Any]]) -> None:
    assert order() == order(pool=10, dft=10) == order(dft=4) == [
        ("ingest DFT data", [], "founders", False),
        ("ingest", ["dft"], "founders", False),
        ("ingest DFT test data", ["dft", "pool"], "every", True),
    ]  # fmt: skip


@pytest.mark.parametrize("named", [{"pool": 10}, {"pool": 1, "dft": 9}])
def test_dft_frames_without_a_family_join_a_pool_whose_files_name_some(
    order: Callable[..., list[Any]], named: dict[str, int]
) -> None:
    assert order(**named)[2:] == [
        ("ingest pool first", [], "founders", False),
        ("ingest DFT data beside the pool", ["pool"], "every", False),
        ("ingest DFT test data", ["dft-beside", "pool"], "every", True),
    ]


@pytest.mark.parametrize("named", [(0, 1, 2, 3), (0,)], ids=["all", "first"])
def test_a_dft_structure_and_its_copies_in_the_pool_are_one_family(
    config: DistillConfig, tmp_path: Path, named: tuple[int, ...]
) -> None:
    """By the real step: the pool holds the DFT structure itself and three copies, all or the first of them named."""
    parent = bulk("Si", cubic=True)
    copies = [parent.copy() for _ in range(4)]
    for seed, atoms in enumerate(copies):
        atoms.rattle(0.02 * seed, seed=seed)
        atoms.info |= {"family": "frame7"} if seed in named else {}
    write(tmp_path / "pool.extxyz", copies)
    parent.calc = SinglePointCalculator(parent, energy=-1.0, forces=np.zeros((8, 3)))
    write(tmp_path / "dft.extxyz", parent)
    given = {name: (external(tmp_path / f"{name}.extxyz"),) for name in ("pool", "dft")}
    files = {"base": (), "seeds": (), "crystals": (), "potential": (), "dft_test": (), **given}
    workspace = open_workspace(tmp_path, Settings(runner="in_process", cores=1))
    found = ingest_all(config, files, Run(workspace, step=lambda call, workspace, name: run_step(call, workspace)))
    tables = [workspace.store.path(table.file("structures")) for table in (found.pool, found.dft) if table]
    assert [set(pq.read_table(path)["family"].to_pylist()) for path in tables] == [{"frame7"}] * 2


def test_crystals_of_compositions_join_the_seeds_and_the_pool(config: DistillConfig, tmp_path: Path) -> None:
    """By stubs: the found crystals are ingested beside the user's seed; their structures join the pool."""
    write(tmp_path / "seed.extxyz", bulk("Si"))
    (tmp_path / "teacher.model").write_text("a model")
    roles = ("base", "pool", "dft", "dft_test", "crystals", "potential")
    files = {**dict.fromkeys(roles, ()), "seeds": (external(tmp_path / "seed.extxyz"),)}
    explore = Explore.model_validate({"compositions": ["Si"], "conditions": [{"temperature_K": 300}]})
    workspace = open_workspace(tmp_path, Settings(runner="stub", cores=1))
    calls: dict[str, StepCall] = {}

    def step(call: StepCall, workspace: Workspace, name: str) -> Artefact:
        calls[name] = call
        return run_step(call, workspace)

    models = [external(tmp_path / "teacher.model")]
    wanted = config.model_copy(update={"explore": explore})
    ingest_all(wanted, files, Run(workspace, step=step), models=models, head="Default")
    assert list(calls) == [
        "ingest seeds",
        "composition_seeds",
        "ingest seeds and found crystals",
        "seed_pool",
        "ingest",
    ]
    assert calls["composition_seeds"].params["compositions"] == ["Si"]
    assert calls["ingest seeds and found crystals"].params["file_names"] == ["seed.extxyz", "composition_seeds.parquet"]
    assert calls["ingest"].params["file_names"] == ["composition_seeds.parquet", "seed_pool.parquet"]


def test_a_composition_that_the_teacher_does_not_know_is_refused(config: DistillConfig, teacher: Teacher) -> None:
    wanted = config.model_copy(update={"explore": Explore.model_construct(compositions=["SiO2", "NiAl"])})
    with pytest.raises(
        UserError, match=r"explore\.compositions: NiAl has Al, which the teacher does not know; .* O, Si"
    ):
        check_compositions(wanted, [teacher])


@pytest.mark.parametrize(
    ("explore", "message"),
    [
        ({"compositions": ["Si"]}, "compositions need conditions"),
        ({"conditions": [{"temperature_K": 300}]}, "conditions need seeds or compositions"),
        ({"compositions": ["Qq"], "conditions": [{"temperature_K": 300}]}, "cannot read 'Qq'"),
    ],
)
def test_compositions_are_checked_with_the_config(explore: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Explore.model_validate(explore)


def test_dft_structures_that_were_not_compared_are_reported(artefact: Any, caplog: pytest.LogCaptureFixture) -> None:
    first = "dft.xyz, frame 9 (from 0): the force on an atom is 120 eV/Å"
    with caplog.at_level("WARNING"):
        for count in ({"dft_not_compared": 0, "dft_not_compared_first": None}, {}):  # the stub reports none
            warn_of_dft(artefact("baseline", **count).read(Metrics))
        assert caplog.text == ""
        warn_of_dft(artefact("baseline", dft_not_compared=3, dft_not_compared_first=first).read(Metrics))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.getMessage().startswith("units and zero of 3 DFT structures were not checked, because the teacher")
    assert first in record.getMessage()


def test_a_file_without_cells_is_named(config: DistillConfig, tmp_path: Path) -> None:
    """Single atoms need none; a frame without a cell among others that have one is named as well."""
    crystal, molecule, atom = bulk("Si", cubic=True), bulk("Si", cubic=True), bulk("Si")[:1]
    molecule.cell, molecule.pbc, atom.cell, atom.pbc = None, False, None, False
    contents = {"cp2k-pos-1.xyz": [molecule, molecule], "mixed.xyz": [molecule, crystal], "atoms.xyz": [atom]}
    for name, structures in contents.items():
        write(tmp_path / name, structures, format="extxyz")
    files = tuple(external(tmp_path / name) for name in contents)
    pool = run_step(ingest_call(config, files), open_workspace(tmp_path, Settings(runner="in_process", cores=1)))
    assert pool.metrics["files_without_cell"] == {"cp2k-pos-1.xyz": 2}
    some, none = frame_warnings(pool.read(ingest.Metrics), "pool")
    assert some.startswith("mixed.xyz (pool): 1 of its frames have no cell, the first is frame 0 (from 0)")
    assert none.startswith("cp2k-pos-1.xyz (pool): none of its 2 frames has a cell; they are taken as molecules")
    assert "Lattice=" in none


NO_STATES = States({}).metrics()


@pytest.mark.parametrize("states", [NO_STATES, {**NO_STATES, "frames": {"total_charge=1": 5}, "distinct": 1}])
def test_sound_frames_are_silent(states: dict[str, Any]) -> None:
    assert frame_warnings(ingest.Metrics.of({"states": states, "unconverged": 0}), "pool") == []


def test_each_doubt_is_one_sentence_with_its_number() -> None:
    states = {
        "frames": {"total_charge=0": 4, "total_charge=1": 2},
        "distinct": 2,
        "formulas_in_several": 1,
        "unsaid": {"total_spin": 6, "external_field": 6},
        "noted": {"not_read": 3, "odd_spin": 5},
        "first": {"not_read": "charge=1 in a.xyz", "odd_spin": "b.xyz", "formula": "HO"},
    }
    first = "OUTCAR: frame 9 (from 0): the SCF did not converge (60 electronic steps, as many as NELM (60) allows)"
    found = ingest.Metrics.of({"states": states, "unconverged": 3, "unconverged_first": first})
    scf, not_read, unsaid, odd, several = frame_warnings(found, "pool")
    assert scf.startswith("3 frames of DFT files are not used, because their SCF did not converge")
    assert first in scf
    assert not_read.startswith("3 frames of the pool have a charge")
    assert "charge=1 in a.xyz" in not_read
    assert unsaid.startswith("6 frames of the pool do not say total_spin")
    assert odd.startswith("5 frames")
    assert "multiplicity" in odd
    assert "2 states (pool: total_charge=0: 4, total_charge=1: 2). 1 compositions" in several
    assert "HO" in several
