"""The worker's container gets every setting of the machine that makes sense in it, and its documentation names them."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from tasks.settings import Settings

REPOSITORY = Path(__file__).parents[2]
NOT_THERE = {
    *("runner", "mace_python", "tensorpot_python", "engine_url"),  # its runner is docker, its socket is mounted
    *("dask_address", "dask_cluster", "dask_cluster_options"),  # its image has no Dask
}


def test_the_worker_passes_the_settings_on_and_the_documentation_names_them() -> None:
    compose = yaml.safe_load((REPOSITORY / "deployments" / "compose.yaml").read_text())
    passed = {name for name in compose["services"]["worker"]["environment"] if name.startswith("DISTILL_")}
    assert passed == {f"DISTILL_{name.upper()}" for name in Settings.model_fields if name not in NOT_THERE}
    named = set(re.findall(r"DISTILL_[A-Z_]+", (REPOSITORY / "docs" / "operate" / "worker.md").read_text()))
    assert named == passed | {"DISTILL_RUNNER"}
