from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prefect.task_runners import ThreadPoolTaskRunner

from tasks.errors import UserError
from tasks.labelling.task_runner import task_runner
from tasks.settings import Settings

REPOSITORY = Path(__file__).parents[4]


def test_shards_run_in_threads_in_a_running_cluster_or_in_one_of_our_own() -> None:
    assert task_runner(Settings(shards_at_once=3)) == ThreadPoolTaskRunner(max_workers=3)
    runner: Any = task_runner(Settings(dask_address="tcp://node7:8786"))
    assert (type(runner).__name__, runner.address) == ("DaskTaskRunner", "tcp://node7:8786")
    # a local cluster has workers of one shard each
    options = {"dashboard_address": ":0"}
    settings = Settings(dask_cluster="distributed.LocalCluster", shards_at_once=2, dask_cluster_options=options)
    runner: Any = task_runner(settings)
    assert runner.cluster_kwargs == {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    # the options of another cluster are the user's alone
    options = {"cores": 8, "memory": "16GB"}
    runner: Any = task_runner(Settings(dask_cluster="dask_jobqueue.SLURMCluster", dask_cluster_options=options))
    assert runner.cluster_kwargs == options
    assert runner.cluster_class.__name__ == "SLURMCluster"


def test_a_cluster_class_does_not_take_ctrl_c_from_us() -> None:
    """dask_jobqueue makes it `sys.exit()`: an interrupted run would end with 0, as one that converged."""
    code = """
import signal
from tasks.settings import Settings
from tasks.labelling.task_runner import task_runner
before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
task_runner(Settings(dask_cluster="dask_jobqueue.SLURMCluster"))
assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"dask_address": "tcp://a:1", "dask_cluster": "distributed.LocalCluster"}, "set one of them"),
        ({"dask_cluster": "distributed.NoCluster"}, "DISTILL_DASK_CLUSTER: no class 'distributed.NoCluster'"),
        ({"dask_cluster": "no_such_package.Cluster"}, "pip install 'mace-to-ace"),
        ({"dask_cluster": "LocalCluster"}, "DISTILL_DASK_CLUSTER: no class 'LocalCluster'"),
        ({"dask_cluster": "distributed.__version__"}, "is no class"),
        ({"dask_cluster_options": {"cores": 1}}, "set DISTILL_DASK_CLUSTER"),
    ],
)
def test_wrong_settings_are_named_by_their_names(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match="DISTILL_DASK_") as caught:
        task_runner(Settings(**wrong))
    assert told in str(caught.value)


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prefect_dask.task_runners", None)
    with pytest.raises(UserError, match=r"pip install 'mace-to-ace\[dask\]'"):
        task_runner(Settings(dask_address="tcp://node7:8786"))
    for name in ("prefect_dask", "prefect_dask.task_runners", "dask", "distributed"):
        monkeypatch.setitem(sys.modules, name, None)
    assert task_runner(Settings()) == ThreadPoolTaskRunner(max_workers=1)
