"""Load a MACE model and describe it. Imports torch and mace: only steps import this, inside `run`."""

from __future__ import annotations

from pathlib import Path

import mace  # noqa: F401  first: it sets how e3nn and torch unpickle
import numpy as np
import torch
from ase.data import chemical_symbols
from mace.modules import MACE
from mace.modules.extensions import PolarMACE

from containers.arrays import Floats
from containers.contract import BadInput, StepError
from containers.mace.teacher.description import Teacher
from containers.structures.state import Quantity, quantity

GIVE_MODEL = "Give a model that mace-torch saved (NAME.model)."


def load_model(path: Path, device: str = "cpu") -> torch.nn.Module:
    """Return the MACE model in `path`, in evaluation mode, its weights frozen.

    From then on torch fuses no operations in this process: fused ones change the last digits of later calls.

    A `.model` file is a pickle: opening it runs its code.

    Raises:
        BadInput: the file is not a MACE model with energies.
        StepError: `device` is cuda and torch sees none.
    """
    check_device(device)
    torch.jit.set_fusion_strategy([])
    try:
        model = torch.load(path, map_location=device, weights_only=False)
    except MemoryError:
        raise
    except Exception as error:  # bytes that are not a pickle can raise anything
        raise BadInput(
            f"{path} cannot be opened as a MACE model ({type(error).__name__}: {error}). {GIVE_MODEL}"
        ) from error
    reason = ""
    if isinstance(model, torch.jit.ScriptModule):
        reason = "it is compiled TorchScript (a LAMMPS export?); the model before its conversion is needed"
    elif isinstance(model, dict):
        reason = "it holds a dictionary (a checkpoint or state dict), not the model"
    elif not isinstance(model, MACE):
        reason = f"it holds a {type(model).__name__}, which is not a MACE with energies"
    if reason:
        raise BadInput(f"{path} is not a MACE model that can be a teacher: {reason}. {GIVE_MODEL}")
    model.eval()
    model.requires_grad_(False)
    return model


def check_device(device: str) -> None:
    """Raise `StepError` when `device` is cuda and torch sees none."""
    if device == "cuda" and not torch.cuda.is_available():
        raise StepError("torch sees no CUDA device; set the device to cpu, or install a CUDA build of torch")


def model_heads(model: torch.nn.Module) -> list[str]:
    """Return the names of the readouts; models from before there were heads have one, `Default`."""
    return list(getattr(model, "heads", None) or ["Default"])


def reference_energies(model: torch.nn.Module) -> Floats:
    """Return E0s [heads, elements] in eV, in the model's order. A model keeps them in the type of its weights.

    Raises:
        BadInput: their number does not fit heads and elements.
    """
    energies = np.atleast_2d(model.atomic_energies_fn.atomic_energies.detach().cpu().double().numpy().copy())
    if energies.shape != (wanted := (len(model_heads(model)), len(model.atomic_numbers))):
        raise BadInput(f"the model needs reference energies of shape {wanted}, it has {energies.shape}. {GIVE_MODEL}")
    return energies


def describe(model: torch.nn.Module) -> Teacher:
    """Describe elements, cutoff, heads and reference energies of a model, and what it reads of a frame.

    Raises:
        BadInput: reference energies do not fit, or it reads what frames cannot give it.
    """
    heads = model_heads(model)
    numbers = [int(number) for number in model.atomic_numbers]
    order = np.argsort(numbers)
    elements = [chemical_symbols[numbers[place]] for place in order]
    energies = reference_energies(model)
    return Teacher(
        model_class=type(model).__name__,
        dtype=str(next(model.parameters()).dtype).removeprefix("torch."),
        elements=tuple(elements),
        r_max_A=round(float(model.r_max), 6),  # kept as float32 in the model: 4.9 must not become 4.900000095
        num_interactions=int(model.num_interactions),
        heads=tuple(heads),
        e0s_eV={
            head: dict(zip(elements, (float(energy) for energy in row[order]), strict=True))
            for head, row in zip(heads, energies, strict=True)
        },
        reads=reads(model),
    )


def reads(model: torch.nn.Module) -> dict[str, Quantity]:
    """Return what a model reads of a frame beside its geometry, by mace-torch's name.

    A PolarMACE reads charge and spin by its nature; others what `embedding_specs` declares (MACE-OMOL).

    Raises:
        BadInput: it reads something of each atom, or a vector.
    """
    if isinstance(model, PolarMACE):
        return {
            "external_field": quantity("external_field", lowest=0, highest=0),
            "total_charge": quantity("total_charge"),
            "total_spin": quantity("total_spin", lowest=1),
        }
    found: dict[str, Quantity] = {}  # as `mace.modules.embeddings.GenericJointEmbedding` reads them
    for name, spec in sorted(model.embedding_specs.items()) if hasattr(model, "joint_embedding") else ():
        if spec["per"] != "graph":
            raise BadInput(f"the teacher reads {name} of each atom, which is not carried to it. Give another teacher")
        limits = {}
        if spec["type"] == "categorical":
            lowest = -spec.get("offset", 0)
            limits = {"lowest": lowest, "highest": lowest + spec["num_classes"] - 1, "whole": True}
        elif spec["in_dim"] != 1:
            raise BadInput(
                f"the teacher reads {spec['in_dim']} numbers of each frame as {name}, and only one is carried to it."
                " Give another teacher"
            )
        found[name] = quantity(name, spec.get("key"), **limits)
    return found
