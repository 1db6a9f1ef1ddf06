"""Other kernels for a teacher: torch.compile is admitted, a spoiled model is not."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.io import read

from containers.contract import ProgramMissing, StepError
from containers.mace.kernels.acceleration import PACKAGES
from containers.mace.labelling.parity import PROBES, AccelerationRefused, check_parity, probe_structures

pytestmark = pytest.mark.e2e

EXAMPLE = Path(__file__).parents[2] / "examples" / "silicon"
TEACHER = EXAMPLE / "teacher.model"
EDGES = 2000


def labeller(dtype: str, acceleration: str = "none", model: Path = TEACHER):
    from containers.mace.labelling.labeller import Labeller, LabelSettings

    return Labeller(LabelSettings(model, "Default", dtype, EDGES, acceleration=acceleration))


@pytest.fixture(scope="module")
def pool() -> list[Atoms]:
    return read(EXAMPLE / "pool.extxyz", ":")


@pytest.fixture(scope="module")
def reference():
    return labeller("float64")


def spoiled(path: Path, factor: float) -> Path:
    """The teacher with the weights of its second readout changed."""
    import torch

    model = torch.load(TEACHER, map_location="cpu", weights_only=False)
    with torch.no_grad():
        for weights in model.readouts[1].parameters():
            weights *= factor
    torch.save(model, path)
    return path


def smallest(path: Path) -> Path:
    """An untrained MACE that torch compiles in half the time of the example's teacher."""
    import mace  # noqa: F401  before e3nn
    import torch
    from e3nn import o3
    from mace import modules
    from mace.tools.torch_tools import default_dtype

    torch.manual_seed(1)
    blocks = modules.interaction_classes
    with default_dtype("float64"):
        model = modules.ScaleShiftMACE(
            r_max=4.0,
            num_bessel=4,
            num_polynomial_cutoff=5,
            max_ell=1,
            interaction_cls=blocks["RealAgnosticResidualInteractionBlock"],
            interaction_cls_first=blocks["RealAgnosticInteractionBlock"],
            num_interactions=1,
            num_elements=1,
            hidden_irreps=o3.Irreps("2x0e"),
            MLP_irreps=o3.Irreps("2x0e"),
            atomic_energies=np.array([-3.0]),
            avg_num_neighbors=8.0,
            atomic_numbers=[14],
            correlation=2,
            gate=torch.nn.functional.silu,
            atomic_inter_scale=1.0,
            atomic_inter_shift=0.1,
        )
    torch.save(model, path)
    return path


@pytest.fixture
def compiler_cache(tmp_path, monkeypatch):
    """A place of our own for what torch compiles: the test compiles for real and leaves nothing."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))


def test_float32_without_acceleration_is_within_the_bounds(pool, reference):
    found = check_parity(reference, labeller("float32"), probe_structures(pool))
    assert found["parity_structures"] == PROBES
    assert 0 < found["parity_force_eV_per_A"] < 1e-4  # rounding: not zero, and far below the bound


def test_a_spoiled_teacher_is_refused_with_the_numbers(tmp_path, pool, reference):
    with pytest.raises(AccelerationRefused, match=r"eV/atom, .* eV/Å and .* on 8 structures of this pool; .*Si"):
        check_parity(reference, labeller("float32", model=spoiled(tmp_path / "spoiled.model", 1.01)), pool[:8])


@pytest.mark.long
def test_a_compiled_teacher_is_admitted_and_labels_batches_of_every_size(compiler_cache, pool, tmp_path):
    model = smallest(tmp_path / "smallest.model")
    reference, compiled = labeller("float64", model=model), labeller("float32", "compile", model)
    found = check_parity(reference, compiled, probe_structures(pool))
    assert found["parity_structures"] == PROBES
    dimer, alone = Atoms("Si2", [[0, 0, 0], [2.2, 0.3, 0]]), Atoms("Si", [[1, 2, 3]], cell=[20] * 3, pbc=True)
    slab = bulk("Si", cubic=True).repeat((1, 1, 2))
    slab.rattle(0.05, seed=3)
    slab.pbc = (True, True, False)
    for batch in ([dimer], [alone], [alone, alone], [dimer, alone, bulk("Si", "sc", a=2.6)], [slab], pool[:30]):
        assert check_parity(reference, compiled, batch)["parity_structures"] == len(batch)


def test_a_teacher_that_torch_cannot_compile_is_told_with_the_mend(monkeypatch, pool):
    import torch._inductor.config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", (None, "no-such-compiler"))
    with pytest.raises(ProgramMissing, match=r"needs a C\+\+ compiler.*DISTILL_ACCELERATION=none"):
        labeller("float32", "compile").prepare()


def test_the_model_s_class_must_be_one_that_mace_torch_can_convert(tmp_path):
    import torch
    from mace.modules import MACE

    model = torch.load(TEACHER, map_location="cpu", weights_only=False)
    model.__class__ = MACE
    torch.save(model, tmp_path / "plain.model")
    with pytest.raises(StepError, match="works for a ScaleShiftMACE; this teacher is a MACE"):
        labeller("float32", "compile", tmp_path / "plain.model").prepare()


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in PACKAGES), reason=f"{' and '.join(PACKAGES)} not installed"
)
def test_a_teacher_converted_to_cuequivariance_is_admitted(pool, reference):
    found = check_parity(reference, labeller("float32", "cuequivariance"), probe_structures(pool))
    assert found["parity_structures"] == PROBES
    assert np.isfinite(list(found.values())).all()
