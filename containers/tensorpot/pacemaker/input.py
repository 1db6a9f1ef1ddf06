"""pacemaker's `input.yaml` as typed models. Pure: nothing here runs a program or needs pyace.

pacemaker ignores keys that it does not know, so everything that reaches the file passes through a closed model.
Source: https://pacemaker.readthedocs.io/en/latest/pacemaker/inputfile/ and what python-ace 0.4.0rc1 really does.
"""

from __future__ import annotations

import re
from io import StringIO
from typing import Annotated, Any, Literal

from pydantic import Field
from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from containers.contract import Closed
from containers.tensorpot.pacemaker.basis import Potential, Preset, shape
from containers.tensorpot.pacemaker.basis_functions import KINDS
from containers.tensorpot.pacemaker.blocks import Overrides, at_random
from containers.tensorpot.pacemaker.own_keys import check_blocks, options_for, own_backend, own_fit

__all__ = ["EarlyStop", "Fit", "Loss", "Overrides", "PacemakerInput", "Potential", "Preset", "Start", "shape"]

Start = Literal["fresh", "continue", "extend"]
Optimizer = Literal["BFGS", "L-BFGS-B"]
Kappa = Annotated[float, Field(ge=0, le=1)] | Literal["auto"]

TRAIN_FILE = "train.pckl.gzip"
VALIDATION_FILE = "validation.pckl.gzip"
START_FILE = "start.yaml"

PLAIN = re.compile("[A-Za-z][A-Za-z0-9_./-]*")
WORDS_OF_YAML = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
"""Not text to a reader of YAML 1.1: nobelium is No, and the pair of nitrogen and oxygen NO."""


class _Representer(SafeRepresenter):
    """Text and numbers that no reader takes for something else: YAML 1.1 has text in 1e-8, and a truth value in No."""

    def represent_str(self, data: str) -> ScalarNode:
        plain = PLAIN.fullmatch(data) and data.lower() not in WORDS_OF_YAML
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=None if plain else '"')

    def represent_float(self, data: float) -> ScalarNode:
        node = super().represent_float(data)
        if "." not in node.value:
            node.value = node.value.replace("e", ".0e")
        return node


_Representer.add_representer(str, _Representer.represent_str)
_Representer.add_representer(float, _Representer.represent_float)


class Regularisation(Closed):
    """Regularisation of the coefficients; the defaults are pacemaker's own."""

    l1: float = Field(1e-8, ge=0, description="L1 regularisation of the coefficients")
    l2: float = Field(1e-8, ge=0, description="L2 regularisation of the coefficients")


class Loss(Regularisation):
    """Loss of the fit. pacemaker knows one number for the balance of energies and forces, kappa."""

    kappa: Kappa = Field(
        0.3, description="share of the forces, more starves the energies; auto: by the variances of both"
    )

    def section(self) -> dict[str, Any]:
        """`fit.loss`."""
        return {"kappa": self.kappa, "L1_coeffs": self.l1, "L2_coeffs": self.l2}


class EarlyStop(Closed):
    """When the fit ends before its iterations are used up."""

    min_relative_loss_per_iteration: float = Field(
        5e-5, gt=0, description="the train loss must fall by at least this share an iteration"
    )
    patience: int = Field(200, ge=2, description="iterations over which it must not, before the fit ends")


class Schedule(Closed):
    """Iterations and batches of a fit, as the config's `train` has them too."""

    maxiter: int = Field(
        150,
        ge=1,
        description="iterations of one attempt, step of a ladder and cycle at most; train.stages have their own",
    )
    batch_size: Literal["auto"] | Annotated[int, Field(ge=1)] = Field(
        "auto", description="structures a batch; auto: about 1,500 atoms, fewer where memory is short"
    )
    ladder_step: int | None = Field(
        None, ge=1, description="grow the basis by so many functions at a time; null: all at once"
    )
    early_stop: EarlyStop | None = Field(None, description="end a fit whose loss falls too slowly; null: never")


class Minimisation(Schedule):
    """How the loss is minimised: what a repair of a fit may change, beside the loss."""

    optimizer: Optimizer = Field(
        "BFGS", description="L-BFGS-B needs less memory: BFGS takes 8 bytes times the square of the parameters"
    )
    cycles: int = Field(
        1, ge=1, description="fits one after another, each from the best before with noise; the lowest loss is kept"
    )
    noise: float = Field(0.0, ge=0, description="relative noise on the coefficients between two cycles")
    batch_share: float = Field(
        1.0, gt=0, le=1, description="of a batch auto, which the step alone knows: less after one out of memory"
    )


class Randomness(Closed):
    """Choices by chance in a fit, as the config's `train` has them too."""

    seed: int = Field(42, ge=0, le=2**32 - 1, description="seed of the selection and of pacemaker")
    coefficients: Literal["zero", "random"] = Field(
        "zero", description="what the coefficients are before the fit; random ones differ by the seed"
    )
    bootstrap: int | None = Field(
        None, ge=0, description="seed by which training structures are drawn with replacement; null: each once"
    )


class Fit(Randomness, Minimisation):
    """A fit but for its potential. A new key of it is a field here, of one of the bases where a user may set it or a
    repair change it, and a line in `section`."""

    loss: Loss = Loss()
    display_step: int = Field(10, ge=1, description="iterations between two looks at the validation frame")
    keep: Literal["best", "last"] = Field(
        "best", description="the potential that counts: of the smallest validation errors, or the last"
    )
    core: bool = Field(
        True, description="ask pacemaker for a ZBL core (fit.repulsion: auto), which only its own output gets"
    )
    fit: dict[str, Any] = Field({}, description="the user's own keys of pacemaker's section fit, see own_keys.OwnFit")
    backend: dict[str, Any] = Field({}, description="the user's own keys of its section backend, see OwnBackend")

    def section(self, laddered: bool) -> dict[str, Any]:
        """`fit`; raises `BadInput` when a key of the user's own is not one for the user."""
        own = own_fit(self.fit)
        loss = self.loss.section() | (own.loss.model_dump(exclude_defaults=True) if own.loss else {})
        section: dict[str, Any] = {"loss": loss, "optimizer": self.optimizer, "maxiter": self.maxiter}
        if (options := options_for(self.optimizer, own.options)) is not None:
            section["options"] = options
        if laddered and self.ladder_step is not None:
            section |= {"ladder_step": self.ladder_step, "ladder_type": own.ladder_type}
        if self.cycles > 1:
            section |= {"fit_cycles": self.cycles, "noise_relative_sigma": self.noise}
        if own.trainable_parameters is not None:
            section["trainable_parameters"] = own.trainable_parameters
        if self.early_stop is not None:
            if own.min_relative_test_loss_per_iter is not None:
                section["min_relative_test_loss_per_iter"] = own.min_relative_test_loss_per_iter
            section["min_relative_train_loss_per_iter"] = self.early_stop.min_relative_loss_per_iteration
            section["early_stopping_patience"] = self.early_stop.patience
        if self.core:
            section["repulsion"] = "auto"
        return section


class PacemakerInput(Closed):
    """A whole `input.yaml`. File names are relative: the step gives the files these names in its working folder.

    `start`: `fresh` begins at zero coefficients; `continue` takes the basis and coefficients of START_FILE (named by a
    string and without a ladder: with one, pacemaker would end at once without an iteration); `extend` grows a start
    whose basis is not complete, as an interrupted ladder leaves it.
    """

    potential: Potential
    fit: Fit
    batch_size: int = Field(ge=1, description="structures evaluated at a time")
    start: Start = "fresh"

    def sections(self) -> dict[str, Any]:
        """Return the content of the file."""
        own = own_fit(self.fit.fit)
        check_blocks(own, self.potential.elements)
        potential: str | dict[str, Any] = START_FILE
        section = self.potential.section()
        if self.start != "continue":
            drawn = at_random(section) if self.fit.coefficients == "random" else section
            potential = drawn | ({"initial_potential": START_FILE} if self.start == "extend" else {})
        fit, trained = self.fit.section(laddered=self.start != "continue"), own.trainable_parameters
        if "ALL" not in section["functions"] and trained in (None, "func", "radial", "ALL"):
            names = KINDS[: max(len(block) for block in self.potential.functions().blocks)]
            every = list(names) if trained in (None, "ALL") else dict.fromkeys(names, trained)
            fit["trainable_parameters"] = every  # by name: without ALL, pacemaker would permute all elements
        return {
            "seed": self.fit.seed,
            "data": {"filename": TRAIN_FILE, "test_filename": VALIDATION_FILE},
            "potential": potential,
            "fit": fit,
            "backend": {
                "evaluator": "tensorpot",
                "batch_size": self.batch_size,
                "batch_size_reduction": False,  # what follows a lack of memory is decided by the flow, visibly
                "display_step": self.fit.display_step,
                **own_backend(self.fit.backend).model_dump(exclude_none=True),
            },
        }

    def text(self) -> str:
        """Return the file, block style, keys in the order of `sections`; readers of YAML 1.1 and 1.2 read the same."""
        writer = YAML(typ="safe", pure=True)
        writer.Representer = _Representer
        writer.default_flow_style = None
        writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
        file = StringIO()
        writer.dump(self.sections(), file)
        return file.getvalue()
