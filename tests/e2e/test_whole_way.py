"""The flow with real MACE and real pacemaker on a tiny pool: results, cache by content, damage, command line."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ase.io
import pytest
import yaml

from containers.structures.distances import shortest_distance
from containers.tensorpot.student.calculator import calculator

pytestmark = [pytest.mark.e2e, pytest.mark.integration]
REPOSITORY = Path(__file__).parents[2]
EXAMPLE = REPOSITORY / "examples" / "silicon"
STRUCTURES = 90
TINY = {
    "name": "tiny",
    "teacher": {"model": "teacher.model"},
    "pool": {"files": ["pool.extxyz"]},
    "pacemaker": {"functions_per_element": 15, "b_basis": "small"},
    "selection": {"max_structures": 40},
    "train": {"maxiter": 8, "max_attempts": 1, "threads": 1},
    "convergence": {"force_mae_meV_per_A": 100000, "energy_mae_meV_per_atom": 100000},
    "stability": {"picoseconds": 0.1},
    "properties": {"from_pool": 0},
    "trajectory": {"picoseconds": 0},
    "extend": {"rounds": 0},
}


class Bench:
    """A work root with a tiny config; counts the step processes that really start."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.keys: dict[str, str] = {}
        self.started = folder / "started.txt"
        self.python = folder / "counting-python"
        self.python.write_text(f'#!/bin/bash\necho "${{@: -1}}" >> {self.started}\nexec {sys.executable} "$@"\n')
        self.python.chmod(self.python.stat().st_mode | stat.S_IEXEC)
        shutil.copy(EXAMPLE / "teacher.model", folder)
        ase.io.write(folder / "pool.extxyz", ase.io.read(EXAMPLE / "pool.extxyz", f":{STRUCTURES}"))
        (folder / "tiny.yaml").write_text(yaml.safe_dump(TINY))

    def command(
        self, *arguments: str, root: Path | None = None, repository: Path = REPOSITORY, home: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`python -m flows.distill tiny.yaml …` of a repository, in a work root.

        Args:
            home: Prefect's; such a command starts a temporary server of its own.
        """
        self.started.write_text("")
        environment = {
            **self.environment,
            "PYTHONPATH": str(repository),
            "DISTILL_MACE_PYTHON": str(self.python),
            "DISTILL_TENSORPOT_PYTHON": str(self.python),
        }
        if home:
            environment["PREFECT_HOME"] = str(home)
            del environment["PREFECT_API_URL"]
        folder = root or self.folder
        command = [sys.executable, "-m", "flows.distill", str(folder / "tiny.yaml"), "--work-root", str(folder)]
        return subprocess.run(
            [*command, *arguments], cwd=repository, env=environment, capture_output=True, text=True, timeout=900
        )

    def run(self, *arguments: str, **where: Path) -> list[str]:
        """Run the command and return the steps whose processes started, sorted."""
        done = self.command(*arguments, **where)
        assert done.returncode == 0, done.stdout + done.stderr
        return self.computed()

    def computed(self) -> list[str]:
        """Names of the steps that really ran, from the folders their processes were given."""
        return sorted(Path(line).name.rsplit("-", 2)[0] for line in self.started.read_text().splitlines())

    def report(self) -> dict[str, dict[str, int]]:
        return json.loads((self.folder / "runs/tiny/report.json").read_text())

    def entry(self, step: str) -> Path:
        """Where the first run's result of a step lies in the store."""
        key = self.keys["pace_train attempt 1" if step == "pace_train" else step]
        return self.folder / "store" / step / key

    def results(self, names: dict[str, str]) -> list[Path]:
        """Output files of steps, by their names."""
        return [self.entry(step) / "outputs" / name for step, name in names.items()]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory, command_environment: dict[str, str]) -> Bench:
    """A work root after a first run, which had a temporary Prefect server."""
    made = Bench(tmp_path_factory.mktemp("bench"), command_environment)
    steps = [
        "baseline",
        "dataset",
        "evaluate",
        "frames",
        "ingest",
        "mace_label",
        "pace_activeset",
        "pace_corerep",
        "pace_select",
        "pace_train",
        "stability",
        "teacher_info",
    ]
    assert made.run(home=made.folder / "prefect") == steps
    made.keys = json.loads((made.folder / "runs/tiny/manifest.json").read_text())["artefacts"]
    assert made.report()["labels"] == {"computed": STRUCTURES, "reused": 0, "rejected": 0, "rejected_by": {}}
    return made


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_the_published_potential_is_the_students(bench: Bench) -> None:
    folder = bench.folder / "runs" / "tiny"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert {"config", "versions"} <= set(manifest)
    lines = (folder / "in.lammps").read_text()
    assert "pair_style" in lines
    assert "potential.yace Si" in lines
    assert "E0" in lines
    labelled = ase.io.read(folder / "labels.extxyz", ":")
    assert len(labelled) == STRUCTURES
    assert all(atoms.get_potential_energy() < 0 for atoms in labelled)


def test_the_structure_for_lammps_is_a_training_structure(bench: Bench) -> None:
    """The potential gives the structure that LAMMPS reads the energy of the structure that was fitted."""
    folder = bench.folder / "runs" / "tiny"
    source = bench.report()["metrics"]["frames"]["lammps_structure"]
    (fitted,) = (
        atoms
        for atoms in ase.io.read(folder / "frames.extxyz", ":")
        if atoms.info["side"] == "train" and f"{atoms.info['source']}, row {atoms.info['row']} (from 0)" == source
    )
    read = ase.io.read(folder / "structure.data", format="lammps-data")
    student = calculator(folder)
    energies = [student.get_potential_energy(atoms) for atoms in (read, fitted)]
    assert energies[0] == pytest.approx(energies[1], abs=1e-6)
    assert "read_data structure.data" in (folder / "in.lammps").read_text().splitlines()


def test_pacemaker_finds_in_the_run_folder_what_its_input_names(bench: Bench) -> None:
    """That the fit is then the same: test_repair.py."""
    (fit,) = (folder for folder in (bench.folder / "runs" / "tiny" / "fit").iterdir() if folder.is_dir())
    assert fit.name == "1-attempt-1"
    data = yaml.safe_load((fit / "input.yaml").read_text())["data"]
    for key, step in (("filename", "train"), ("test_filename", "validation")):
        assert (fit / data[key]).read_bytes() == (bench.entry("frames") / f"outputs/{step}.pckl.gzip").read_bytes()


def copy_of_repository(folder: Path) -> None:
    """What the command needs of this repository."""
    for name in ("flows", "tasks", "containers", "examples"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))


def test_another_prefect_server_and_another_place_of_the_repository_change_nothing(
    bench: Bench, tmp_path: Path
) -> None:
    elsewhere, moved = tmp_path / "repository", tmp_path / "work"
    copy_of_repository(elsewhere)
    place = subprocess.run(
        [sys.executable, "-c", "import flows.config; print(*flows.__path__)"],
        cwd=elsewhere, env={**bench.environment, "PYTHONPATH": str(elsewhere)}, capture_output=True, text=True,
    )  # fmt: skip
    assert str(elsewhere) in place.stdout, "the control: the copy is what runs"
    shutil.copytree(bench.folder, moved)
    assert bench.run(root=moved, repository=elsewhere, home=tmp_path / "prefect") == []


def test_the_step_of_the_documentation_runs_in_the_flow(bench: Bench, tmp_path: Path) -> None:
    """docs/develop/extending.md: its blocks, applied to a copy of the repository."""
    copy_of_repository(tmp_path)
    page = (REPOSITORY / "docs" / "develop" / "extending.md").read_text()
    blocks = re.findall(r"^   ```(python|diff)\n(.*?)^   ```$", page, flags=re.DOTALL | re.MULTILINE)
    assert [kind for kind, _ in blocks] == ["python", "diff", "diff", "diff", "diff"]
    for kind, block in blocks:
        head, _, text = textwrap.dedent(block).partition("\n")
        path = tmp_path / head.split()[1]
        if kind == "python":
            path.write_text(text)
            continue
        lines = text.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] != "+")
        after = "".join(line[1:] for line in lines if line[0] != "-")
        assert path.read_text().count(before) == 1, f"{path.name} has no such place: {before}"
        path.write_text(path.read_text().replace(before, after))
    assert bench.run(repository=tmp_path) == ["closest_pairs"]
    (pairs,) = bench.folder.glob("store/closest_pairs/*/outputs/pairs.json")
    frames = ase.io.read(bench.folder / "runs/tiny/frames.extxyz", ":")
    shortest = min(shortest_distance(atoms, 5.0) for atoms in frames if atoms.info["side"] == "train")
    assert json.loads(pairs.read_text()) == {"Si-Si": pytest.approx(shortest, abs=1e-6)}


def test_a_training_option_refits_with_the_same_labels_and_not_converged_is_exit_code_3(bench: Bench) -> None:
    options = ("train.maxiter=9", "name=refit", "convergence.force_mae_meV_per_A=0.001")
    done = bench.command(*(word for option in options for word in ("--set", option)))
    assert done.returncode == 3, done.stdout + done.stderr
    assert "not converged: force MAE" in done.stdout
    assert bench.computed() == ["evaluate", "pace_activeset", "pace_corerep", "pace_train", "stability"]


def test_damaged_results_are_made_again_and_nothing_that_used_them(bench: Bench) -> None:
    outputs = {
        "ingest": "structures.parquet",
        "teacher_info": "teacher.json",
        "dataset": "dataset.parquet",
        "pace_train": "interim.yaml",
        "evaluate": "parity.parquet",
    }
    assert made_again(bench, *bench.results(outputs)) == sorted(outputs)


def test_damaged_tables_of_the_pool_are_made_again_from_the_label_store(bench: Bench) -> None:
    """By no process of a step; beside them results of which none uses another."""
    tables = [bench.entry("pool_labels") / "outputs" / f"labels.{ending}" for ending in ("parquet", "extxyz", "cfg")]
    outputs = {"baseline": "baseline.json", "pace_activeset": "potential.asi", "pace_select": "selection.parquet"}
    assert made_again(bench, *tables, *bench.results(outputs)) == sorted(outputs)


def test_what_is_missing_and_labels_of_a_damaged_file_are_made_again_and_nothing_that_used_them(bench: Bench) -> None:
    """An entry of the store, and a file of the label store; beside them results of which none uses another."""
    (rows,) = bench.folder.glob("store/labels/*/fresh/*.arrow")
    table = bench.entry("pool_labels") / "outputs" / "labels.parquet"
    whole = table.read_bytes()
    flip(rows)
    for step in ("pool_labels", "dataset"):
        shutil.rmtree(bench.entry(step))
    outputs = {"frames": "train.pckl.gzip", "pace_corerep": "potential.yaml"}
    assert made_again(bench, *bench.results(outputs)) == ["dataset", "frames", "mace_label", "pace_corerep"]
    assert bench.report()["labels"]["computed"] == STRUCTURES
    assert table.read_bytes() == whole
    assert len(list(bench.folder.glob("store/labels/*/damaged/*.arrow"))) == 1


def made_again(bench: Bench, *paths: Path) -> list[str]:
    """The steps that a run starts after damage to these files, each of which then has its former bytes."""
    whole = [path.read_bytes() for path in paths]
    for path in paths:
        flip(path)
    computed = bench.run()
    assert [path.read_bytes() for path in paths] == whole
    return computed


@contextmanager
def changed(path: Path, content: bytes) -> Iterator[None]:
    """A file of the user's with other content, restored in any case."""
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


def test_other_bytes_of_the_same_structures_only_ingest_again(bench: Bench) -> None:
    pool = bench.folder / "pool.extxyz"
    with changed(pool, pool.read_bytes().replace(b"Si ", b"Si  ", 1)):
        assert bench.run() == ["ingest"]


def test_a_changed_structure_recomputes_what_depends_on_it(bench: Bench) -> None:
    """One that the selection left out: the fit stays, because its frames have the same bytes."""
    pool = bench.folder / "pool.extxyz"
    structures = ase.io.read(pool, ":")
    used = {atoms.info["row"] for atoms in ase.io.read(bench.folder / "runs/tiny/frames.extxyz", ":")}
    structures[min(set(range(STRUCTURES)) - used)].positions[0, 0] += 1e-3
    altered = bench.folder / "altered.extxyz"
    ase.io.write(altered, structures)
    with changed(pool, altered.read_bytes()):
        computed = bench.run()
    assert computed == ["baseline", "dataset", "frames", "ingest", "mace_label", "pace_select"]
    assert bench.report()["labels"] == {"computed": 1, "reused": STRUCTURES - 1, "rejected": 0, "rejected_by": {}}


def test_a_changed_teacher_recomputes_what_depends_on_it(bench: Bench) -> None:
    import torch

    teacher = bench.folder / "teacher.model"
    model = torch.load(teacher, weights_only=False, map_location="cpu")
    model.scale_shift.scale *= 1.01
    torch.save(model, bench.folder / "other.model")
    with changed(teacher, (bench.folder / "other.model").read_bytes()):
        computed = bench.run()
    assert {"teacher_info", "mace_label", "dataset", "pace_train", "pace_activeset", "evaluate"} <= set(computed)
    assert "ingest" not in computed


def test_a_flipped_byte_in_the_teacher_is_never_ignored(bench: Bench) -> None:
    """This one leaves a model, which is another teacher: all its labels are missing."""
    teacher = bench.folder / "teacher.model"
    data = bytearray(teacher.read_bytes())
    data[len(data) // 2] ^= 1
    with changed(teacher, bytes(data)):
        assert "teacher_info" in bench.run("--dry-run")
        plan = json.loads((bench.folder / "runs/tiny/dry-run/plan.json").read_text())
    (line,) = (line for line in plan["steps"] if "mace_label" in line)
    assert f"would run       ({STRUCTURES} of {STRUCTURES} structures are not labelled yet)" in line


def test_a_second_run_computes_nothing_also_after_other_inputs(bench: Bench) -> None:
    assert bench.run() == []
    assert bench.report()["labels"] == {"computed": 0, "reused": STRUCTURES, "rejected": 0, "rejected_by": {}}
