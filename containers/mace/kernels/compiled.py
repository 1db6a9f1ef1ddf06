"""A MACE model through torch.compile, the way mace-torch's own calculator does it. Imports torch and mace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from mace.tools.compile import prepare
from mace.tools.scripts_utils import extract_model
from torch._dynamo.exc import TorchDynamoException
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.exc import InvalidCxxCompiler

from containers.contract import ProgramMissing, StepError

if TYPE_CHECKING:
    import torch

COMPILE_HINT = "DISTILL_ACCELERATION=none labels without torch.compile."


FEWEST_ATOMS = 32
"""Of a compiled batch. torch assumes what it sees at first, e.g. at least 17 atoms, and compiles again for fewer."""


class Compiled(torch.nn.Module):  # type: ignore[misc]  # torch is not followed
    """`model` compiled once for batches of any size.

    torch compiles another program, which takes as long again, for batches that are very small or have a dimension of
    one. `model` itself does those: few atoms, no edges to speak of, or a single structure.
    """

    def __init__(self, model: torch.nn.Module, device: str) -> None:
        super().__init__()
        self.model = model
        extracted = prepare(extract_model)(model=model, map_location=device).eval().requires_grad_(False)
        self.compiled = torch.compile(extracted, dynamic=True)

    def forward(self, batch: dict[str, torch.Tensor], **options: Any) -> dict[str, torch.Tensor]:
        """What `model` gives for the tensors of a batch; its compiled program makes the forces, so it needs `training`.

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
        except TorchDynamoException as error:
            raise StepError(f"torch.compile failed with this teacher ({_first_line(error)}). {COMPILE_HINT}") from error


def check_compiler() -> None:
    """Raise `ProgramMissing` when torch finds no C++ compiler, which it needs on a CPU and a GPU."""
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise ProgramMissing(
            "acceleration compile needs a C++ compiler and torch finds none: install g++ (the image `mace` has none)."
            f" {COMPILE_HINT}"
        ) from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
