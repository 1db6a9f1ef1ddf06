"""Other kernels for the teacher: cuEquivariance and torch.compile. Imports torch; mace where it is needed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch

from containers.contract import Acceleration, ProgramMissing, StepError

PACKAGES = ("cuequivariance", "cuequivariance_torch")
PLAIN_HINT = "DISTILL_ACCELERATION=none labels without it."
FEWEST_ATOMS = 32
"""In a compiled batch. torch assumes what it sees at first, e.g. at least 17 atoms, and compiles again for fewer."""


def accelerated(model: torch.nn.Module, acceleration: Acceleration, dtype: str, device: str) -> torch.nn.Module:
    """Return `model` with other kernels, on `device` and in `dtype`; itself for `none`.

    compile: torch.compile. The first time takes minutes (80-120 s for a small model on one free core), later ones and
    every further process some 10 s from torch's cache in the temporary folder. cuequivariance: NVIDIA's kernels. On a
    CPU both are slower than our own kernels, which is what `none` means there.

    Raises:
        ProgramMissing: a package or the C++ compiler is not installed.
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
        if acceleration == "compile":
            converted: torch.nn.Module = Compiled(typed, device)
        else:
            from mace.cli.convert_e3nn_cueq import run

            converted = run(typed, device=device)
        return converted.to(device).eval().requires_grad_(False)


class Compiled(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
    """`model` compiled once for batches of any size, the way mace-torch's own calculator does it.

    torch compiles another program, which takes as long again, for batches that are very small or have a dimension of
    one. `model` itself does those: few atoms, no edges to speak of, or a single structure.

    Raises:
        ProgramMissing: torch finds no C++ compiler, which it needs on a CPU and a GPU.
    """

    def __init__(self, model: torch.nn.Module, device: str) -> None:
        # these take seconds, which only torch.compile needs
        from mace.tools.compile import prepare
        from mace.tools.scripts_utils import extract_model
        from torch._dynamo.exc import TorchDynamoException
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler as error:
            raise ProgramMissing(
                "acceleration compile needs a C++ compiler and torch finds none: install g++ (the image `mace` has"
                f" none). {PLAIN_HINT}"
            ) from error
        super().__init__()
        self.model, self.failure = model, TorchDynamoException
        extracted = prepare(extract_model)(model=model, map_location=device).eval().requires_grad_(False)
        self.compiled = torch.compile(extracted, dynamic=True)

    def forward(self, batch: dict[str, torch.Tensor], **options: Any) -> dict[str, torch.Tensor]:
        """Compute what `model` gives for a batch; its compiled program makes the forces, so it needs `training`.

        Raises:
            StepError: torch could not compile the model.
        """
        atoms, edges, structures = len(batch["positions"]), batch["edge_index"].shape[1], len(batch["ptr"]) - 1
        if min(atoms, edges) < FEWEST_ATOMS or structures == 1:
            return self.model(batch, **options)
        for name in ("positions", "node_attrs"):  # compiled code cannot turn this on itself
            batch[name].requires_grad_(True)
        try:
            return self.compiled(batch, training=True, **options)
        except self.failure as error:
            reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            raise StepError(f"torch.compile failed with this teacher ({reason}). {PLAIN_HINT}") from error
