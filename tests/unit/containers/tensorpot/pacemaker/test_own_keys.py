from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from containers.contract import BadInput
from containers.tensorpot.pacemaker import own_keys
from containers.tensorpot.pacemaker.own_keys import own_backend, own_fit
from flows.config.schema import DistillConfig, Pacemaker


def keys_of(section: type[Any], prefix: str) -> set[str]:
    """Every key of a section of the config, with those of the sections in it."""
    keys = set()
    for name, field in section.model_fields.items():
        keys.add(prefix + name)
        for inner in (field.annotation, *getattr(field.annotation, "__args__", ())):
            if hasattr(inner, "model_fields"):
                keys |= keys_of(inner, f"{prefix}{name}.")
    return keys


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"maxiter": 3}, "fit.maxiter is not yours to set: use train.maxiter"),
        ({"repulsion": "auto"}, "use pacemaker.reference_potential"),
        ({"weighting": {"type": "EnergyBasedWeightingPolicy"}}, "use dataset.weights"),
        ({"callbacks": ["os.system"]}, "no code from outside runs"),
        ({"loss": {"kappa": 0.3}}, "fit.loss.kappa is not yours to set: use pacemaker.kappa"),
        ({"loss": {"w_rad": 0.3}}, "fit.loss.w_rad is no key that pacemaker reads: did you mean w[0-2]_rad"),
        ({"loss": {"w1_rad": -1.0}}, "fit.loss.w1_rad"),
        ({"loss": 3}, "fit.loss"),
        ({"options": {"maxiter": 3}}, "fit.options.maxiter is not yours to set"),
        ({"options": {"gtoll": 1e-3}}, "did you mean gtol"),
        ({"options": {"gtol": float("inf")}}, "fit.options.gtol"),
        ({"trainable_params": "func"}, "did you mean trainable_parameters"),
        ({"trainable_parameters": {"ALL": ["radal"]}}, "fit.trainable_parameters.*radal"),
        ({"zzz": 1}, "known are ladder_type"),
    ],
)
def test_keys_of_fit_that_are_not_the_user_s_are_refused_with_the_mend(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        own_fit(keys)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"evaluator": "pyace"}, "always tensorpot"),
        ({"batch_size": 3}, "use train.batch_size"),
        ({"n_workers": 3}, "use train.threads"),
        ({"gpuconfig": {}}, "did you mean gpu_config"),
        ({"gpu_config": {"gpu_index": 0}}, "gpu_config.gpu_index"),
    ],
)
def test_keys_of_backend_are_refused_likewise(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(BadInput, match=told):
        own_backend(keys)


def test_the_config_refuses_them_with_their_place() -> None:
    with pytest.raises(ValidationError, match=r"fit\n.*use train.optimizer"):
        Pacemaker(fit={"optimizer": "BFGS"})
    with pytest.raises(ValidationError, match=r"backend\n.*use train.batch_size"):
        Pacemaker(backend={"batch_size": 3})


@pytest.mark.parametrize("table", ["FIT_DECIDED", "LOSS_DECIDED", "BACKEND_DECIDED", "OPTIONS_DECIDED"])
def test_every_key_of_the_config_that_is_advised_exists(table: str) -> None:
    known = keys_of(DistillConfig, "")
    advised = [
        word.strip(",;")
        for advice in getattr(own_keys, table).values()
        for word in advice.replace(": ", " ").split()
        if "." in word.strip(",;")
    ]
    assert {word for word in advised if word not in known} == set()
