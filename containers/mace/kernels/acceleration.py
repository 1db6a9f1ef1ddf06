"""Other kernels for the teacher: cuEquivariance and torch.compile.

Only `accelerated` needs torch and mace, and imports them itself.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from containers.contract import Acceleration, ProgramMissing, StepError

if TYPE_CHECKING:
    import torch


PACKAGES = ("cuequivariance", "cuequivariance_torch")
PLAIN_HINT = "DISTILL_ACCELERATION=none labels without it."


def accelerated(model: torch.nn.Module, acceleration: Acceleration, dtype: str, device: str) -> torch.nn.Module:
    """`model` with other kernels, on `device` and in `dtype`; itself for `none`.

    compile: torch.compile. The first time takes minutes (80-120 s for a small model on one free core), later ones and
    every further process some 10 s from torch's cache in the temporary folder. cuequivariance: NVIDIA's kernels. On a
    CPU both are slower than our own kernels, which is what `none` means there.

    Raises:
        ProgramMissing: a package or the compiler is not installed.
        StepError: the model is not of the class that mace-torch can convert.
    """
    if acceleration == "none":
        return model
    if (name := type(model).__name__) != "ScaleShiftMACE":
        raise StepError(
            f"acceleration {acceleration} works for a ScaleShiftMACE; this teacher is a {name}. {PLAIN_HINT}"
        )
    if acceleration == "cuequivariance" and (missing := [name for name in PACKAGES if find_spec(name) is None]):
        raise ProgramMissing(
            f"acceleration cuequivariance needs the Python package {missing[0]}: pip install cuequivariance"
            " cuequivariance-torch, and for a GPU with CUDA 12 cuequivariance-ops-torch-cu12,"
            f" in the environment of the labelling step. {PLAIN_HINT}"
        )
    from mace.tools import torch_tools

    with torch_tools.default_dtype(dtype):
        typed = model.double() if dtype == "float64" else model.float()
        converted = _compiled(typed, device) if acceleration == "compile" else _cuequivariant(typed, device)
        return converted.to(device).eval().requires_grad_(False)


def _compiled(model: torch.nn.Module, device: str) -> torch.nn.Module:

    from containers.mace.kernels.compiled import Compiled, check_compiler

    check_compiler()
    return Compiled(model, device)


def _cuequivariant(model: torch.nn.Module, device: str) -> torch.nn.Module:
    from mace.cli.convert_e3nn_cueq import run

    return run(model, device=device)
