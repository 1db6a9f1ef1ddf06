"""The user's own keys of pacemaker's sections `fit` and `backend`, checked.

pacemaker ignores a key that it does not know, so only the keys that python-ace 0.4.0rc1 and tensorpotential 0.6.2.1
really read are let through; those that the flow decides are refused with the key of the config that says the same.

Read in `fit`: loss (kappa, L1_coeffs, L2_coeffs, w0_rad, w1_rad, w2_rad, w_orth), optimizer, maxiter, options,
ladder_step, ladder_type, fit_cycles, noise_relative_sigma, noise_absolute_sigma, randomize_func_coeffs,
trainable_parameters, weighting, repulsion, callbacks, early_stopping_patience, min_relative_train_loss_per_iter,
min_relative_test_loss_per_iter. Read in `backend`: evaluator, batch_size, batch_size_reduction,
batch_size_reduction_factor, display_step, gpu_config (gpu_ind, mem_limit), imagetype, and by the evaluator `pyace`
parallel_mode and n_workers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError

from containers.contract import BadInput, Closed
from containers.tensorpot.pacemaker.basis_functions import KINDS, SYMBOL

_STEADY = "the flow adds further cycles and noise itself when a fit needs them, see train.max_attempts"
_SMALLER = "the flow makes the batch smaller itself, and says so, when memory is short"

FIT_DECIDED = {
    "maxiter": "use train.maxiter, or train.stages",
    "optimizer": "use train.optimizer",
    "ladder_step": "use train.ladder_step",
    "early_stopping_patience": "use train.early_stop.patience",
    "min_relative_train_loss_per_iter": "use train.early_stop.min_relative_loss_per_iteration",
    "repulsion": "use pacemaker.reference_potential",
    "fit_cycles": _STEADY,
    "noise_relative_sigma": _STEADY,
    "noise_absolute_sigma": _STEADY,
    "randomize_func_coeffs": "use train.coefficients, or sweep.committee",
    "weighting": "use pacemaker.energy_scale_eV_per_atom and force_scale_eV_per_A (its energy-based policy),"
    " dataset.weights and pacemaker.weight_dft; it would replace the weights of the frames",
    "callbacks": "no code from outside runs in a fit",
}
LOSS_DECIDED = {
    "kappa": "use pacemaker.kappa, or train.stages",
    "L1_coeffs": "use train.l1",
    "L2_coeffs": "use train.l2",
}
BACKEND_DECIDED = {
    "evaluator": "it is always tensorpot",
    "batch_size": "use train.batch_size",
    "batch_size_reduction": _SMALLER,
    "batch_size_reduction_factor": _SMALLER,
    "display_step": "the flow looks at the validation frame every 10 iterations",
    "parallel_mode": "it is read by the evaluator pyace only; use train.threads",
    "n_workers": "it is read by the evaluator pyace only; use train.threads",
}
OPTIONS_DECIDED = {"maxiter": "use train.maxiter, or train.stages"}
OPTIONS_OF = {
    "BFGS": ("gtol", "xrtol", "c1", "c2"),
    "L-BFGS-B": ("gtol", "ftol", "maxcor", "maxls", "maxfun"),
}


class Options(Closed):
    """Options of scipy's optimizers; each optimizer is given those that it knows."""

    gtol: float | None = Field(None, gt=0, description="gradient at which the fit has converged; pacemaker's 1e-8")
    xrtol: float | None = Field(None, ge=0, description="BFGS: relative step at which it has converged")
    c1: float | None = Field(None, gt=0, lt=1, description="BFGS: Armijo's condition")
    c2: float | None = Field(None, gt=0, lt=1, description="BFGS: condition of curvature")
    ftol: float | None = Field(
        None, ge=0, description="L-BFGS-B: relative change of the loss at which it has converged"
    )
    maxcor: int | None = Field(None, ge=1, description="L-BFGS-B: steps that it remembers")
    maxls: int | None = Field(None, ge=1, description="L-BFGS-B: evaluations of one line search")
    maxfun: int | None = Field(None, ge=1, description="L-BFGS-B: evaluations at most")


class OwnLoss(Closed):
    """Parts of the loss that only those who know them want."""

    w0_rad: float = Field(0.0, ge=0, description="weight of the size of the radial functions")
    w1_rad: float = Field(0.0, ge=0, description="weight of their slope")
    w2_rad: float = Field(0.0, ge=0, description="weight of their curvature: smoother ones")
    w_orth: float = Field(0.0, ge=0, description="weight of their overlap")


Trained = Literal["func", "radial", "all"]


class OwnFit(Closed):
    """The keys of `fit` that are the user's."""

    loss: OwnLoss | None = None
    options: Options | None = None
    ladder_type: Literal["power_order", "body_order"] = Field("power_order", description="which functions come first")
    trainable_parameters: str | list[str] | dict[str, Trained | list[Trained]] | None = Field(
        None, description="blocks (and func or radial) that are fitted; all where it is missing"
    )
    min_relative_test_loss_per_iter: float | None = Field(
        None, gt=0, description="early stop when the validation loss falls by less an iteration; only with early_stop"
    )


class GpuConfig(Closed):
    """`backend.gpu_config`."""

    gpu_ind: int | None = Field(None, ge=-1, description="which GPU; -1: none")
    mem_limit: int | None = Field(None, ge=0, description="MB of the GPU at most")


class OwnBackend(Closed):
    """The keys of `backend` that are the user's."""

    gpu_config: GpuConfig | None = None
    imagetype: Literal["png", "pdf", "svg"] | None = Field(None, description="of the pictures in the working folder")


Model = TypeVar("Model", bound=Closed)


def own_fit(keys: Mapping[str, Any]) -> OwnFit:
    """Return the user's part of `fit`; `BadInput` for an unknown key, one that the flow decides, or a wrong value."""
    refuse_strange(keys, set(OwnFit.model_fields), FIT_DECIDED, "fit")
    for part, model, decided in (("loss", OwnLoss, LOSS_DECIDED), ("options", Options, OPTIONS_DECIDED)):
        if isinstance(keys.get(part), Mapping):
            refuse_strange(keys[part], set(model.model_fields), decided, f"fit.{part}")
    return _validated(OwnFit, keys, "fit")


def own_backend(keys: Mapping[str, Any]) -> OwnBackend:
    """Return the user's part of `backend`; raises `BadInput` like `own_fit`."""
    refuse_strange(keys, set(OwnBackend.model_fields), BACKEND_DECIDED, "backend")
    return _validated(OwnBackend, keys, "backend")


def check_blocks(own: OwnFit, elements: Sequence[str]) -> None:
    """Raise `BadInput` when `trainable_parameters` names a block that a potential of these elements has not."""
    trained = own.trainable_parameters
    names = [trained] if isinstance(trained, str) else list(trained or [])
    for name in names if trained not in ("func", "radial") else []:
        symbols = SYMBOL.findall(name)
        if name not in ("ALL", *KINDS) and ("".join(symbols) != name or not set(symbols) <= set(elements)):
            raise BadInput(
                f"fit.trainable_parameters names {name!r}: write func, radial, ALL, UNARY, BINARY, ... or symbols of"
                f" {', '.join(elements)} in a row"
            )


def options_for(optimizer: str, options: Options | None) -> dict[str, Any] | None:
    """Return options for one optimizer, None where none is for it; pacemaker's own, which they replace, are kept."""
    given = {} if options is None else options.model_dump(exclude_none=True, include=set(OPTIONS_OF[optimizer]))
    return {"gtol": 1e-8, "disp": True, **given} if given else None


def refuse_strange(keys: Mapping[str, Any], known: set[str], decided: Mapping[str, str], where: str) -> None:
    """Raise `BadInput` for keys that are not the user's to give."""
    for key in keys:
        if key in decided:
            raise BadInput(f"{where}.{key} is not yours to set: {decided[key]}")
        if key not in known:
            near = get_close_matches(str(key), known | set(decided), n=1)
            hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
            raise BadInput(f"{where}.{key} is no key that pacemaker reads: {hint}")


def _validated(model: type[Model], keys: Mapping[str, Any], where: str) -> Model:
    try:
        return model.model_validate(keys)
    except ValidationError as error:
        deepest = max(error.errors(), key=lambda each: len(each["loc"]))  # of all the forms that a value may have
        place = ".".join([where, *(str(part) for part in deepest["loc"] if "[" not in str(part))])
        raise BadInput(f"{place}: {deepest['msg']}, not {deepest['input']!r}") from None
