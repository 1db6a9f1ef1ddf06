"""Where and how steps run on this machine. The only place that reads the environment."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from containers.contract import Acceleration, Device, Image
from tasks.errors import UserError
from tasks.guard import MARK, guard

RunnerName = Literal["subprocess", "docker", "apptainer", "in_process", "stub"]


class Settings(BaseSettings):
    """Machine settings from `DISTILL_…` variables; none of them changes a result's cache key."""

    model_config = SettingsConfigDict(env_prefix="DISTILL_", frozen=True, extra="forbid")

    runner: RunnerName = Field(
        "subprocess", description="how steps run: subprocess, docker, apptainer, in_process, or stub"
    )
    work_root: Path = Field(Path(), description="folder that gets store/ and runs/")
    mace_python: Path = Field(Path(sys.executable), description="interpreter that has the mace image's packages")
    tensorpot_python: Path = Field(Path(sys.executable), description="interpreter of the tensorpot image's packages")
    mace_image: str | None = Field(
        None, description="image of the labelling steps: NAME:TAG, NAME:TAG@sha256:DIGEST, or a .sif file"
    )
    tensorpot_image: str | None = Field(None, description="image of the other steps, in the same forms")
    engine_url: str = Field(
        default_factory=lambda: os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock",
        description="socket of the Docker engine, or of another one that speaks its protocol",
    )
    step_memory_GB: float | None = Field(
        None, ge=0.1, le=1e6, description="memory of a step's container; nine tenths of the engine's by default"
    )
    select_memory_GB: float | None = Field(
        None, ge=0.1, le=1e6, description="memory of the selection; half of what it may use by default"
    )
    fit_memory_GB: float | None = Field(
        None, ge=0.1, le=1e6, description="memory of a fit, by which it sizes its batches; half of what it may use"
    )
    inter_op_threads: int | None = Field(
        None, ge=1, description="TensorFlow's operations at a time in a fit; as many as it has threads by default"
    )
    device: Literal["cpu", "cuda", "auto"] = Field(
        "cpu", description="where torch and TensorFlow compute; auto: on a GPU if there is one"
    )
    cores: int = Field(
        default_factory=lambda: (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        ),
        ge=1,
        description="CPU cores that a step may use",
    )
    step_timeout_s: float | None = Field(
        None, gt=0, le=1e8, description="seconds after which a step is ended; none by default"
    )
    label_device: Device | None = Field(
        None, description="where the teacher computes, if not on DISTILL_DEVICE: cuda for a cluster that has the GPUs"
    )
    shard_s: float = Field(
        60, gt=0, le=3600, description="seconds that one shard of the labelling should take on its device"
    )
    edges_per_batch: int | None = Field(
        None, ge=1, description="neighbour pairs that the teacher sees at once; found by a calibration by default"
    )
    acceleration: Acceleration = Field(
        "none", description="kernels of the teacher: none, cuequivariance, or compile; refused if labels differ"
    )
    shards_at_once: int = Field(1, ge=1, description="shards that this machine labels at a time, each on all cores")
    gpu_shards: int | None = Field(
        None, ge=1, description="shards on GPUs at a time, over all runs of a Prefect server; no limit by default"
    )
    dask_address: str | None = Field(None, description="label on a running Dask cluster: tcp://HOST:PORT")
    dask_cluster: str | None = Field(
        None,
        description="label on a Dask cluster made for the run: a class such as distributed.LocalCluster or"
        " dask_jobqueue.SLURMCluster",
    )
    dask_cluster_options: dict[str, Any] = Field({}, description="arguments of that class, as JSON")

    @field_validator("mace_python", "tensorpot_python")
    @classmethod
    def _home(cls, value: Path) -> Path:
        return Path(os.path.expanduser(value))  # noqa: PTH111  that of pathlib raises for an unknown user

    @property
    def teacher_device(self) -> Device:
        """The device that labels shards; a device `auto` must be settled before."""
        return self.label_device or ("cuda" if self.device == "cuda" else "cpu")

    def python(self, image: Image) -> Path:
        """The interpreter that stands for `image` in a subprocess run."""
        return self.mace_python if image == "mace" else self.tensorpot_python

    def image(self, image: Image, device: Device) -> str:
        """The container image of `image`."""
        chosen = self.mace_image if image == "mace" else self.tensorpot_image
        return chosen or f"mace-to-ace/{image}:{device}"


def read_settings() -> Settings:
    """The settings of this process; `UserError` names the variables that are wrong or unknown."""
    if unknown := unknown_variables():
        raise UserError(f"no such setting: {', '.join(unknown)}. python -m flows.distill --help lists them.")
    try:
        return Settings()
    except ValidationError as error:
        lines = [f"DISTILL_{str(problem['loc'][0]).upper()}: {problem['msg']}" for problem in error.errors()]
        raise UserError("\n".join(lines)) from None


def unknown_variables() -> list[str]:
    """Variables that look like settings and are none: a misspelt one would be ignored in silence."""
    known = {f"DISTILL_{name.upper()}" for name in Settings.model_fields}
    return sorted(name for name in os.environ if name.upper().startswith("DISTILL_") and name.upper() not in known)


LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


def prepare_process() -> None:
    """Prepare the environment of this process and its children for servers on this machine.

    A server on this machine is reached without a proxy; the user's own exceptions stay. A SOCKS proxy is left out where
    the HTTP client cannot use one: with it the client would not start at all. Children carry the mark of the guard,
    which ends them when this process is killed.
    """
    own = ",".join(os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY"))
    hosts = [host.strip() for host in own.split(",") if host.strip()]
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join(dict.fromkeys([*hosts, *LOCAL_HOSTS]))
    schemes = ("http", "https", *(("socks5", "socks5h") if find_spec("socksio") else ()))
    for name in [name for name in os.environ if name.lower() in PROXIES]:
        scheme, _, host = os.environ[name].partition("://")
        if host and scheme.lower() not in schemes:
            del os.environ[name]
    os.environ[MARK] = guard()


KERNELS = (
    *("OPENBLAS_CORETYPE", "MKL_CBWR", "NPY_DISABLE_CPU_FEATURES"),
    *("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "TF_ENABLE_ONEDNN_OPTS"),
)
"""Variables by which a user chooses the libraries' kernels. They decide last digits, so every runner passes them on."""


def thread_environment(threads: int) -> dict[str, str]:
    """Variables that the numerical libraries read: they would not see a limit set from outside.

    Threads that wait sleep: on a busy machine, threads that spin took six times the time of the work.
    """
    counts = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
    kernels = {name: os.environ[name] for name in KERNELS if name in os.environ}
    return {
        **kernels,
        **dict.fromkeys(counts, str(threads)),
        "TF_NUM_INTEROP_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
    }


def prefect_environment() -> dict[str, str]:
    """The environment of a Prefect command: ours."""
    return dict(os.environ)


def step_environment(threads: int) -> dict[str, str]:
    """The environment of a step's process: ours without Prefect's keys, with the threads its libraries must obey."""
    repository = str(Path(__file__).parent.parent)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {
        **inherited,
        **thread_environment(threads),
        "TF_USE_LEGACY_KERAS": "1",
        "USER": os.environ.get("USER", "distill"),  # pyace needs a user name at import
        "MPLBACKEND": "Agg",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [repository, os.environ.get("PYTHONPATH", "")])),
    }
