"""The MACE side with the real mace-torch: labels against its own ASE calculator, and the files that are no teacher."""

from __future__ import annotations

import itertools
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pyarrow.parquet as pq
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read, write
from ase.neighborlist import neighbor_list

from containers.contract import BadInput, InputFile, Report, Request, Resources, StepError, file_digest, load_step
from containers.environment import lock_digest
from containers.labels.rows import NOT_FINITE, ROWS
from containers.mace.teacher.description import Teacher, choose_head
from containers.properties.results import Crystal
from containers.step import execute
from containers.structures.state import read_state
from containers.structures.table import structure_id, structures_table, write_table

pytestmark = pytest.mark.e2e

REPOSITORY = Path(__file__).parents[2]
TEACHER = REPOSITORY / "examples" / "silicon" / "teacher.model"
POOL = TEACHER.with_name("pool.extxyz")


def silicon(cell: tuple[float, ...] | list[list[float]], pbc: list[bool], *positions: list[float]) -> Atoms:
    return Atoms(["Si"] * len(positions), positions=positions, cell=cell, pbc=pbc)


def mixed() -> dict[str, Atoms]:
    """One structure of every kind that could go wrong."""
    diamond = bulk("Si", cubic=True)
    diamond.rattle(0.08, seed=1)
    left_handed = bulk("Si", "diamond", a=5.3, cubic=True).repeat((2, 1, 1))
    left_handed.set_cell(left_handed.cell.array @ np.array([[1, 0.03, 0], [0, 0.97, 0.02], [0, 0, 1.02]]), True)
    left_handed.rattle(0.1, seed=2)
    left_handed = Atoms(left_handed, cell=left_handed.cell.array[[1, 0, 2]])
    slab = bulk("Si", cubic=True).repeat((1, 1, 2))
    slab.rattle(0.05, seed=3)
    slab.pbc = (True, True, False)
    cluster = Atoms(diamond, pbc=False, cell=np.zeros((3, 3)))
    wire = silicon([[4.0, 0, 0], [0, 0, 0], [0, 0, 0]], [True, False, False], [0, 0, 0], [1.9, 0.9, 0])
    none, full = [False] * 3, [True] * 3
    return {
        "diamond": diamond,
        "cell smaller than the cutoff": bulk("Si"),
        "one atom in a cell": bulk("Si", "sc", a=2.6),
        "left-handed and sheared": left_handed,
        "slab": slab,
        "wire": wire,
        "cluster": cluster,
        "dimer": silicon((0, 0, 0), none, [0, 0, 0], [2.2, 0.3, 0]),
        "isolated atom": silicon((0, 0, 0), none, [1, 2, 3]),
        "isolated atom in a box": silicon((20, 20, 20), full, [1, 2, 3]),
    }


def write_structures(path: Path, structures: list[Atoms]) -> None:
    for row, atoms in enumerate(structures):
        state = atoms.info.get("state", "")
        atoms.info = {
            "id": structure_id(atoms, state),
            "source": "made.xyz",
            "row": row,
            "group": "test",
            "family": str(row),
            "state": state,
        }
    write_table(path, structures_table(structures))


def run_step(
    folder: Path, step: str, inputs: dict[str, Path], resources: Resources | None = None, **params: object
) -> Report:
    folder.mkdir()
    files = {name: (InputFile(path=path, sha256=file_digest(path)),) for name, path in inputs.items()}
    request = Request(
        step=step,
        version=load_step(step).VERSION,
        lock=lock_digest("mace"),
        params=params,
        inputs=files,
        resources=resources or Resources(),
    )
    (folder / "request.json").write_text(request.model_dump_json())
    return execute(folder)


def label(
    folder: Path,
    structures: list[Atoms],
    model: Path = TEACHER,
    edges_per_batch: int | None = 8000,
    threads: int = 1,
    **params: object,
) -> Report:
    pool = folder.with_suffix(".parquet")
    write_structures(pool, structures)
    resources = Resources(threads=threads, edges_per_batch=edges_per_batch)
    inputs = {"structures": pool, "model": model}
    return run_step(folder, "mace_label", inputs, resources, **{"head": "Default", **params})


@dataclass
class Row:
    """A row of labels.parquet."""

    id: str
    energy: float | None
    forces: np.ndarray | None
    stress: np.ndarray | None
    reason: str | None
    edges: int | None
    min_distance_A: float | None


def rows(folder: Path) -> list[Row]:
    """What a step wrote to `folder`; the ids as hex."""
    table = pq.read_table(folder / "outputs/labels.parquet")
    assert table.schema.equals(ROWS)
    return [
        Row(
            row["id"].hex(),
            row["energy"],
            None if row["forces"] is None else np.array(row["forces"]).reshape(-1, 3),
            None if row["stress"] is None else np.array(row["stress"]),
            *(row[name] for name in ("reason", "edges", "min_distance_A")),
        )
        for row in table.to_pylist()
    ]


@pytest.fixture(scope="module")
def calculator() -> Callable[[str], object]:
    from mace.calculators import MACECalculator

    return lambda dtype: MACECalculator(model_paths=str(TEACHER), device="cpu", default_dtype=dtype)


def assert_labels_of(calculator, structures: dict[str, Atoms], found: list[Row], energy: float, force: float) -> None:
    """Energies within `energy` eV/atom and forces within `force` eV/Å of the calculator's."""
    for (name, atoms), row in zip(structures.items(), found, strict=True):
        assert row.id == structure_id(atoms), name
        bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        calculator.calculate(bare)
        expected = calculator.results
        assert abs(row.energy - expected["energy"]) / len(bare) <= energy, name
        np.testing.assert_allclose(row.forces, expected["forces"], rtol=0, atol=force, err_msg=name)
        assert (row.stress is not None) == bool(bare.pbc.all()), name
        if row.stress is not None:
            np.testing.assert_allclose(row.stress, expected["stress"], rtol=0, atol=force, err_msg=name)


TOLERANCES = {"float64": (1e-9, 1e-8), "float32": (1e-4, 1e-3)}


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("edges_per_batch", [8000, 40])
def test_labels_are_those_of_the_ase_calculator(tmp_path, calculator, dtype, edges_per_batch):
    structures = mixed()
    report = label(tmp_path / "run", list(structures.values()), dtype=dtype, edges_per_batch=edges_per_batch)
    assert report.error is None
    assert report.metrics["labels"] == len(structures)
    assert_labels_of(calculator(dtype), structures, rows(tmp_path / "run"), *TOLERANCES[dtype])


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_labels_of_a_pool_are_those_of_the_ase_calculator(tmp_path, calculator, dtype):
    pool = dict(enumerate(read(POOL, index="::7")[:40]))
    assert len(pool) == 40
    report = label(tmp_path / "run", list(pool.values()), dtype=dtype, threads=2)
    assert report.metrics["labels"] == 40
    assert_labels_of(calculator(dtype), pool, rows(tmp_path / "run"), *TOLERANCES[dtype])


def test_edges_and_the_shortest_distance_are_those_of_a_plain_search(tmp_path):
    structures = mixed()
    label(tmp_path / "run", list(structures.values()))
    for (name, atoms), row in zip(structures.items(), rows(tmp_path / "run"), strict=True):
        distances = neighbor_list("d", atoms, 5.0, self_interaction=False)
        assert row.edges == len(distances), name
        if len(distances):
            assert row.min_distance_A == pytest.approx(distances.min(), rel=1e-12), name
        else:
            assert row.min_distance_A is None, name


def two_headed(path: Path, scaled: bool = True, e0s: tuple[float, ...] = (-1.0, -2.0, -3.0, -4.0)) -> None:
    """An untrained MACE with all that the silicon teacher has not: elements, heads, vectors, pair repulsion.

    Args:
        scaled: a ScaleShiftMACE, else a MACE.
        e0s: eV an atom, of C and Si for the first head, then for the second.
    """
    import torch
    from e3nn import o3
    from mace import modules
    from mace.tools.torch_tools import default_dtype

    torch.manual_seed(1)
    blocks = modules.interaction_classes
    with default_dtype("float64"):
        make = partial(modules.ScaleShiftMACE, atomic_inter_scale=[1.0, 2.0], atomic_inter_shift=[0.1, 0.2])
        model = (make if scaled else modules.MACE)(
            r_max=4.5,
            num_bessel=6,
            num_polynomial_cutoff=5,
            max_ell=2,
            interaction_cls=blocks["RealAgnosticDensityResidualInteractionBlock"],
            interaction_cls_first=blocks["RealAgnosticDensityInteractionBlock"],
            num_interactions=2,
            num_elements=2,
            hidden_irreps=o3.Irreps("4x0e+4x1o"),
            MLP_irreps=o3.Irreps("4x0e"),
            atomic_energies=np.reshape(e0s, (2, 2)),
            avg_num_neighbors=8.0,
            atomic_numbers=[6, 14],
            correlation=3,
            gate=torch.nn.functional.silu,
            pair_repulsion=True,
            heads=["pbe", "scan"],
        )
    torch.save(model, path)


@pytest.mark.parametrize("head", ["pbe", "scan"])
def test_labels_of_a_model_with_heads_vectors_and_elements(tmp_path, head):
    from mace.calculators import MACECalculator

    two_headed(tmp_path / "two.model")
    structures = list(mixed().values())
    for atoms in structures:
        atoms.numbers[::2] = 6
    report = label(tmp_path / "run", structures, tmp_path / "two.model", dtype="float64", head=head)
    assert report.metrics["labels"] == len(structures)
    reference = MACECalculator(model_paths=str(tmp_path / "two.model"), device="cpu", head=head)
    for atoms, row in zip(structures, rows(tmp_path / "run"), strict=True):
        reference.calculate(Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc))
        assert row.energy == pytest.approx(reference.results["energy"], abs=1e-9, rel=1e-12)
        scale = max(1.0, np.abs(reference.results["forces"]).max())
        np.testing.assert_allclose(row.forces, reference.results["forces"], rtol=0, atol=1e-9 * scale)
        if row.stress is not None:
            np.testing.assert_allclose(row.stress, reference.results["stress"], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("scaled", [True, False], ids=["ScaleShiftMACE", "MACE"])
def test_energies_in_float32_beside_all_electron_e0s_are_those_of_float64(tmp_path, scaled):
    """The sum over E0s of 1e5 eV is exact; in float32 it was some 20 meV/atom off. Forces are as exact as ever."""
    from mace.calculators import MACECalculator

    two_headed(tmp_path / "two.model", scaled, e0s=(-1037.123, -7892.456, -45196.49, -535646.2))
    structures = list(mixed().values())
    for atoms in structures:
        atoms.numbers[::2] = 6
    reference = MACECalculator(model_paths=str(tmp_path / "two.model"), default_dtype="float64", head="scan")
    report = label(tmp_path / "run", structures, tmp_path / "two.model", threads=2, dtype="float32", head="scan")
    assert report.metrics["labels"] == len(structures)
    for atoms, row in zip(structures, rows(tmp_path / "run"), strict=True):
        reference.calculate(Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc))
        own = np.zeros(len(atoms)) + np.where(atoms.numbers == 6, -45196.49, -535646.2)
        interaction = abs(reference.results["energy"] - own.sum())
        assert abs(row.energy - reference.results["energy"]) <= 1e-6 * max(interaction, len(atoms))
        scale = max(1.0, np.abs(reference.results["forces"]).max())
        np.testing.assert_allclose(row.forces, reference.results["forces"], rtol=0, atol=1e-4 * scale)


def test_a_model_that_reads_a_total_charge_gets_mace_s_default(tmp_path, calculator):
    import torch
    from mace.calculators import MACECalculator
    from mace.modules.embeddings import GenericJointEmbedding

    specs = {"total_charge": {"type": "continuous", "per": "graph", "in_dim": 1, "emb_dim": 8}}
    model = torch.load(TEACHER, map_location="cpu", weights_only=False).double()
    width = model.node_embedding.linear.irreps_out.dim
    torch.manual_seed(2)
    model.joint_embedding = GenericJointEmbedding(base_dim=width, embedding_specs=specs, out_dim=width).double()
    model.embedding_specs = specs
    torch.save(model, tmp_path / "charged.model")
    structures = mixed()
    label(tmp_path / "run", list(structures.values()), tmp_path / "charged.model", dtype="float64")
    reference = MACECalculator(model_paths=str(tmp_path / "charged.model"), device="cpu", default_dtype="float64")
    assert_labels_of(reference, structures, rows(tmp_path / "run"), 1e-9, 1e-8)
    plain = calculator("float64")
    plain.calculate(bulk("Si"))
    reference.calculate(bulk("Si"))
    assert plain.results["energy"] != pytest.approx(reference.results["energy"], abs=1e-3)


OMOL = REPOSITORY / "tests" / "data" / "omol.model"
"""Reads `total_charge` and `total_spin`, as MACE-OMOL does."""
KNOWN_eV = [0.16244, 1.17526, 0.31745, 1.85427]
"""Energies of OH, OH+, H2O and H2O+, the first four frames of `charged.xyz`, by MACE's calculator."""


def charged_frames(count: int) -> list[Atoms]:
    return read(OMOL.with_name("charged.xyz"), f":{count}")


@pytest.mark.parametrize(
    ("dtype", "threads", "edges", "graphs"),
    [
        ("float64", 0, 8000, "ours"),
        ("float64", 2, 10, "ours"),
        ("float32", 0, 8000, "ours"),
        ("float64", 0, 10, "MACE"),
    ],
)
def test_charged_frames_are_labelled_with_their_charge_and_spin(dtype, threads, edges, graphs):
    from mace.calculators import MACECalculator

    from containers.mace.labelling.labeller import Labeller, LabelSettings
    from containers.mace.labelling.shard import label_all

    frames = charged_frames(16)
    labeller = Labeller(LabelSettings(OMOL, "Default", dtype, edges))
    labeller.plain_class = graphs == "ours"  # other classes get mace-torch's own graphs
    calculator, expected = MACECalculator(model_paths=str(OMOL), default_dtype="float64"), []
    for frame in frames:
        calculator.calculate(frame)
        expected.append(calculator.results)
        frame.info["state"] = read_state(frame.info, labeller.teacher.reads, "charged.xyz")
    found = label_all(labeller, frames, processes=threads).answers
    for one, results in zip(found, expected, strict=True):
        assert one.energy == pytest.approx(results["energy"], abs=1e-5)
        np.testing.assert_allclose(one.forces, results["forces"], rtol=0, atol=1e-5)
    assert [one.energy for one in found[:4]] == pytest.approx(KNOWN_eV, abs=1e-5)


def test_the_labelling_step_takes_the_state_from_its_table(tmp_path):
    frames = charged_frames(4)
    for frame in frames:
        charge = frame.info["charge"]
        frame.info = {"state": f"total_charge={charge} total_spin=2" if charge else ""}
    report = label(tmp_path / "run", frames, OMOL, dtype="float64")
    assert report.metrics["labels"] == 4
    found = rows(tmp_path / "run")
    assert [row.energy for row in found] == pytest.approx(KNOWN_eV, abs=1e-5)
    assert [row.id for row in found] == [structure_id(frame, frame.info["state"]) for frame in frames]


def test_teacher_info_says_what_the_model_reads_of_a_frame(tmp_path):
    run_step(tmp_path / "run", "teacher_info", {"model": OMOL})
    reads = Teacher.read(tmp_path / "run/outputs/teacher.json").reads
    assert {name: (one.default, one.lowest, one.highest, one.whole) for name, one in reads.items()} == {
        "total_charge": (0, -100, 99, True),
        "total_spin": (1, 0, 100, True),
    }
    assert reads["total_spin"].keys == ("total_spin", "spin", "multiplicity")


@pytest.mark.parametrize(
    ("spec", "says"),
    [({"per": "atom", "in_dim": 1}, "reads field of each atom"), ({"in_dim": 3}, "reads 3 numbers of each frame")],
)
def test_a_model_that_reads_what_frames_cannot_give_is_refused(tmp_path, spec, says):
    import torch

    model = torch.load(OMOL, map_location="cpu", weights_only=False)
    model.embedding_specs = {"field": {"per": "graph", "type": "continuous", "emb_dim": 4, **spec}}
    torch.save(model, tmp_path / "odd.model")
    report = run_step(tmp_path / "run", "teacher_info", {"model": tmp_path / "odd.model"})
    assert report.error.kind == "BadInput"
    assert f"the teacher {says}" in report.error.message


def test_a_polar_mace_reads_charge_and_spin_by_its_nature():
    """Its class alone tells; its own package is not needed for that."""
    import torch
    from mace.modules.extensions import PolarMACE

    from containers.mace.teacher.model import reads

    model = PolarMACE.__new__(PolarMACE)
    torch.nn.Module.__init__(model)
    found = reads(model)
    assert set(found) == {"total_charge", "total_spin", "external_field"}
    assert (found["total_spin"].default, found["total_spin"].lowest) == (1, 1)


def test_a_pool_with_one_geometry_in_two_states_is_refused_before_labelling(tmp_path):
    from flows.config.loading import load_config
    from flows.distill.dry_run import plan
    from tasks.errors import StepFailed
    from tasks.settings import Settings
    from tasks.workspace import open_workspace

    config = load_config(OMOL.with_name("omol.yaml"), ("dataset.likeness_A=0",))
    workspace = open_workspace(tmp_path, Settings(runner="in_process", cores=1))
    with pytest.raises(
        StepFailed, match=r"charged.xyz: frame 1 .*total_charge=1 total_spin=2.*of charged.xyz: frame 0"
    ):
        plan(config, workspace)
    neutral = tmp_path / "cation.xyz"
    write(neutral, charged_frames(80)[1::2])
    told = plan(config.model_copy(update={"pool": config.pool.model_copy(update={"files": [str(neutral)]})}), workspace)
    assert "(40 of 40 structures are not labelled yet)" in told
    assert "states" not in told


def test_what_can_be_fast_is_fast(tmp_path):
    """All of the silicon teacher; of a model with vectors all but the convolution of the second layer."""
    from containers.mace.kernels.contraction import use_fast_contractions
    from containers.mace.kernels.convolution import use_fast_convolutions
    from containers.mace.teacher.model import load_model

    two_headed(tmp_path / "two.model")
    models = load_model(TEACHER), load_model(tmp_path / "two.model").float()
    assert [(use_fast_convolutions(model), use_fast_contractions(model)) for model in models] == [(2, 2), (1, 3)]


def test_forces_and_stress_are_gradients_of_the_energy(tmp_path):
    """Central differences over one coordinate and one strain."""
    start, step = mixed()["diamond"], 1e-4
    moved, strained = [start.copy(), start.copy()], [start.copy(), start.copy()]
    for sign, atoms in zip((1, -1), moved, strict=True):
        atoms.positions[3, 1] += sign * step
    for sign, atoms in zip((1, -1), strained, strict=True):
        atoms.set_cell(atoms.cell.array @ np.diag([1 + sign * step, 1, 1]), scale_atoms=True)
    label(tmp_path / "run", [start, *moved, *strained], dtype="float64")
    labelled = rows(tmp_path / "run")
    energies = [row.energy for row in labelled]
    assert labelled[0].forces[3, 1] == pytest.approx(-(energies[1] - energies[2]) / (2 * step), abs=1e-5)
    slope = (energies[3] - energies[4]) / (2 * step) / start.get_volume()
    assert labelled[0].stress[0] == pytest.approx(slope, abs=1e-7)


def test_labels_that_are_not_finite_have_a_reason_and_spoil_no_neighbour(tmp_path):
    good = mixed()["diamond"]
    overlapping = silicon((0, 0, 0), [False] * 3, [0, 0, 0], [0, 0, 0])
    flat = silicon([[5, 0, 0], [5, 0, 0], [0, 0, 5]], [True] * 3, [0, 0, 0], [2, 2, 2])
    lost = silicon((5, 5, 5), [True] * 3, [0, 0, 0], [np.nan, 2, 2])
    report = label(tmp_path / "run", [good, overlapping, flat, lost], dtype="float64", edges_per_batch=100_000)
    assert (report.metrics["labels"], report.metrics["refused"], report.metrics["set_aside"]) == (1, 3, 0)
    found = rows(tmp_path / "run")
    assert [row.reason is None for row in found] == [True, False, False, False]
    assert [row.energy is None for row in found] == [False, True, True, True]
    assert found[1].reason.startswith(NOT_FINITE)
    assert "0.000 Å" in found[1].reason
    label(tmp_path / "alone", [good], dtype="float64")
    np.testing.assert_allclose(found[0].forces, rows(tmp_path / "alone")[0].forces, rtol=0, atol=1e-10)


def test_a_cell_too_large_for_a_neighbour_list_has_a_reason(tmp_path):
    huge = silicon((1e8, 1e8, 1e8), [True] * 3, [0, 0, 0], [2, 2, 2])
    report = label(tmp_path / "run", [mixed()["diamond"], huge])
    assert (report.metrics["labels"], report.metrics["refused"]) == (1, 1)
    assert "the cell is too large for a neighbour list (1e+08 Å)" in rows(tmp_path / "run")[1].reason


def test_a_molecule_far_from_the_origin_has_the_labels_of_one_near_it(tmp_path):
    """In a process whose address space has no room for a grid that reaches to the origin."""
    shift = 2.0**20  # Å; exact, so that the dimers differ by nothing else
    dimer = silicon((0, 0, 0), [False] * 3, [0, 0, 0], [2.25, 0.25, 0])
    slab = silicon((5, 5, 5), [True, True, False], [0, 0, 0], [1.5, 1.5, 1.5])
    near = [dimer, slab]
    far = [dimer.copy(), slab.copy()]
    far[0].positions += shift
    far[1].positions[:, 2] -= shift
    label(tmp_path / "near", near)
    with limited_memory(2e9):
        report = label(tmp_path / "far", far)
    assert report.metrics["labels"] == 2
    for one, other in zip(rows(tmp_path / "near"), rows(tmp_path / "far"), strict=True):
        assert (one.edges, one.min_distance_A) == (other.edges, other.min_distance_A)
        assert one.edges >= 2
        assert one.energy == pytest.approx(other.energy, abs=1e-6)
        np.testing.assert_allclose(one.forces, other.forces, rtol=0, atol=1e-6)


@contextmanager
def limited_memory(more: float) -> Iterator[None]:
    """So many bytes of address space beyond what is taken."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (int(used + more), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def test_the_neighbours_are_those_of_mace_torch():
    """Also of a tilted slab, whose atoms lie beside the cell that mace-torch and we make for it."""
    from mace.data.neighborhood import get_neighborhood

    from containers.mace.labelling.graphs import GraphMaker

    random = np.random.default_rng(1)
    cells = [[[6, 0, 3], [0, 7, -4], [0, 0, 9]], [[6, 1, 0], [2, 7, 1], [0, 3, 8]], [[4, 0, 0], [0, 30, 0], [0, 0, 2]]]
    for cell in cells:
        for pbc in itertools.product([False, True], repeat=3):
            atoms = silicon(cell, list(pbc), *random.uniform(-20, 20, (30, 3)).tolist())
            graph = GraphMaker(5.0, (14,)).graph(atoms)
            edges, shifts, _, _ = get_neighborhood(atoms.positions, 5.0, pbc, atoms.cell.array.copy())
            found = pairs(graph.edges, graph.unit_shifts @ graph.cell)
            assert found == pairs(edges, shifts)
            assert len(found) > 0


def pairs(edges: np.ndarray, shifts: np.ndarray) -> list[tuple[float, ...]]:
    return sorted(map(tuple, np.hstack([edges.T, np.round(shifts, 9) + 0.0]).tolist()))


def test_atoms_too_far_apart_for_a_neighbour_list_have_a_reason(tmp_path):
    apart = silicon((0, 0, 0), [False] * 3, [0, 0, 0], [1e5, 1e5, 1e5])
    long = silicon((0, 0, 0), [False] * 3, [0, 0, 0], [2, 0, 0], [0, 0, 1e5])
    report = label(tmp_path / "run", [apart, long])
    assert (report.metrics["labels"], report.metrics["refused"]) == (1, 1)
    assert "too large for a neighbour list (1e+05 Å)" in rows(tmp_path / "run")[0].reason


def test_a_neighbour_list_that_finds_no_memory_is_set_aside(monkeypatch):
    from containers.mace.labelling import graphs
    from containers.mace.labelling.predictions import Unlabelled

    def failing(words: str):
        def neighbour_list(*_: object, **__: object):
            raise RuntimeError(words)

        return neighbour_list

    maker = graphs.GraphMaker(5.0, (14,))
    monkeypatch.setattr(graphs, "neighbour_list", failing("Failed to allocate seed array."))
    assert isinstance(maker.graph(bulk("Si")), Unlabelled)
    monkeypatch.setattr(graphs, "neighbour_list", failing("another"))
    with pytest.raises(RuntimeError, match="another"):
        maker.graph(bulk("Si"))


def test_elements_that_the_teacher_does_not_know_have_a_reason(tmp_path):
    report = label(tmp_path / "run", [bulk("Si"), bulk("Ge")])
    assert (report.metrics["labels"], report.metrics["refused"]) == (1, 1)
    row = rows(tmp_path / "run")[1]
    assert (row.reason, row.energy, row.edges) == ("the teacher does not know Ge; it knows Si", None, None)


def test_a_gpu_s_refusal_of_memory_is_a_memory_error_also_from_torchscript():
    """TorchScript, of which a MACE has much, turns torch's OutOfMemoryError into a plain RuntimeError."""
    import torch

    from containers.mace.labelling.labeller import _memory_errors

    words = "CUDA out of memory. Tried to allocate 2.00 GiB."
    compiled = f"The following operation failed in the TorchScript interpreter.\nRuntimeError: {words}"
    for error in (torch.OutOfMemoryError(words), RuntimeError(compiled)):
        with pytest.raises(MemoryError, match="out of memory"), _memory_errors():
            raise error
    with pytest.raises(RuntimeError, match="another"), _memory_errors():
        raise RuntimeError("another")


def test_an_unknown_head_is_refused(tmp_path):
    head = label(tmp_path / "head", [bulk("Si")], head="pbe")
    assert head.error.kind == "BadInput"
    assert "'pbe'" in head.error.message
    assert "Default" in head.error.message


def test_a_head_must_be_chosen_where_there_are_several(tmp_path):
    two_headed(tmp_path / "two.model")
    run_step(tmp_path / "run", "teacher_info", {"model": tmp_path / "two.model"})
    teacher = Teacher.read(tmp_path / "run/outputs/teacher.json")
    assert teacher.heads == ("pbe", "scan")
    assert teacher.elements == ("C", "Si")
    assert teacher.e0s_eV == {"pbe": {"C": -1.0, "Si": -2.0}, "scan": {"C": -3.0, "Si": -4.0}}
    assert (teacher.r_max_A, teacher.dtype) == (4.5, "float64")
    with pytest.raises(BadInput, match="pbe, scan"):
        choose_head(teacher, None)
    refused = label(tmp_path / "unknown", [bulk("Si")], tmp_path / "two.model", head="Default")
    assert refused.error.kind == "BadInput"


def test_teacher_info_says_what_the_model_is(tmp_path):
    report = run_step(tmp_path / "run", "teacher_info", {"model": TEACHER})
    assert report.error is None
    teacher = Teacher.read(tmp_path / "run/outputs/teacher.json")
    assert teacher.elements == ("Si",)
    assert teacher.heads == ("Default",)
    assert (teacher.r_max_A, teacher.num_interactions, teacher.dtype) == (5.0, 2, "float32")
    assert teacher.model_class == "ScaleShiftMACE"
    assert set(teacher.e0s_eV["Default"]) == {"Si"}
    assert -10 < teacher.e0s_eV["Default"]["Si"] < 0


def _no_pickle(path: Path) -> None:
    path.write_text("8\nLattice=...\n")


def _another_pickle(path: Path) -> None:
    import torch

    torch.save([1, 2, 3], path)


def _state_dict(path: Path) -> None:
    import torch

    torch.save(torch.load(TEACHER, map_location="cpu", weights_only=False).state_dict(), path)


def _another_network(path: Path) -> None:
    import torch

    torch.save(torch.nn.Linear(2, 2), path)


def _compiled(path: Path) -> None:
    import torch

    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))


def _cut(path: Path) -> None:
    path.write_bytes(TEACHER.read_bytes()[:5000])


@pytest.mark.parametrize(
    "write",
    [_no_pickle, _another_pickle, _state_dict, _another_network, _compiled, _cut, lambda path: path.touch()],
    ids=["text", "list", "state dict", "linear", "compiled", "cut", "empty"],
)
def test_a_file_that_is_no_teacher_is_refused(tmp_path, write):
    wrong = tmp_path / "wrong.model"
    write(wrong)
    report = run_step(tmp_path / "run", "teacher_info", {"model": wrong})
    assert report.error.kind == "BadInput"
    assert str(wrong) in report.error.message
    assert "mace-torch" in report.error.message


class _Answers(BaseHTTPRequestHandler):
    """A web site with the teacher at /teacher.model, a page that is no model at /page, and nothing else."""

    def do_GET(self):
        content = {"/teacher.model": TEACHER.read_bytes(), "/page.model": b"<html>sign in</html>"}.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write(content or b"")

    def log_message(self, *_):
        pass


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # where mace-torch keeps its downloads
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answers) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_foundation_model_is_fetched(tmp_path, site):
    from containers.mace.teacher.teacher_fetch import fetch

    fetch("small", f"{site}/teacher.model", tmp_path / "teacher.model")
    assert (tmp_path / "teacher.model").read_bytes() == TEACHER.read_bytes()


@pytest.mark.parametrize(("page", "says"), [("nothing.model", "path of the file"), ("page.model", "Delete")])
def test_a_failed_download_says_what_to_do(tmp_path, site, page, says):
    from containers.mace.teacher.teacher_fetch import fetch

    with pytest.raises(StepError, match=says):
        fetch("small", f"{site}/{page}", tmp_path / "teacher.model")
    assert not (tmp_path / "teacher.model").exists()


def test_the_names_are_those_of_mace_torch():
    from mace.calculators.foundations_models import mace_mp_urls, mace_off_urls

    from containers.mace.teacher.teacher_fetch import FOUNDATION_MODELS, MATERIALS_MODELS, address

    assert set(MATERIALS_MODELS) == set(mace_mp_urls)
    assert {address(name) for name in FOUNDATION_MODELS} == {*mace_mp_urls.values(), *mace_off_urls.values()}


def test_the_teacher_is_timed_as_labeller_and_as_calculator_in_both_arithmetics() -> None:
    from containers.mace.properties.teacher_speed import teacher_speed

    atoms = bulk("Si")
    crystal = Crystal(
        formula="Si", space_group="Fd-3m", cell_A=atoms.cell.tolist(), numbers=(14, 14),
        scaled_positions=atoms.get_scaled_positions().tolist(), lattice_A={"a": 5.43}, energy_eV_per_atom=-5,
        volume_A3_per_atom=20,
    )  # fmt: skip
    found = teacher_speed(TEACHER, "Default", [crystal], "cpu")
    assert found.atoms >= 64
    names = {f"{runtime}_{dtype}" for runtime in ("labeller", "mace") for dtype in ("float32", "float64")}
    assert set(found.atoms_per_s) == names
    assert min(found.atoms_per_s.values()) > 0
    assert teacher_speed(TEACHER, "Default", [], "cpu").cell == ""
