from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import ValidationError

from tasks.guard import MARK, guard
from tasks.settings import KERNELS, Settings, prepare_process, step_environment, thread_environment, unknown_variables

REPOSITORY = Path(__file__).parents[3]
VALUES = {
    "runner": ("in_process", "in_process"),
    "work_root": ("/data", Path("/data")),
    "mace_python": ("/mace/python", Path("/mace/python")),
    "tensorpot_python": ("/pace/python", Path("/pace/python")),
    "device": ("cuda", "cuda"),
    "cores": ("3", 3),
    "step_timeout_s": ("1.5", 1.5),
    "mace_image": ("my/mace:2", "my/mace:2"),
    "tensorpot_image": ("my.sif", "my.sif"),
    "engine_url": ("unix:///run/other.sock", "unix:///run/other.sock"),
    "step_memory_GB": ("2.5", 2.5),
    "select_memory_GB": ("1.5", 1.5),
    "fit_memory_GB": ("1.5", 1.5),
    "inter_op_threads": ("2", 2),
    "label_device": ("cuda", "cuda"),
    "shard_s": ("30", 30.0),
    "edges_per_batch": ("4000", 4000),
    "acceleration": ("compile", "compile"),
    "shards_at_once": ("2", 2),
    "gpu_shards": ("4", 4),
    "dask_address": ("tcp://127.0.0.1:8786", "tcp://127.0.0.1:8786"),
    "dask_cluster": ("distributed.LocalCluster", "distributed.LocalCluster"),
    "dask_cluster_options": ('{"n_workers": 2}', {"n_workers": 2}),
}


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_comes_from_its_variable(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    text, value = VALUES[name]
    assert getattr(Settings(), name) != value
    monkeypatch.setenv(f"DISTILL_{name.upper()}", text)
    assert getattr(Settings(), name) == value
    assert unknown_variables() == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("RUNNER", "podman"),
        ("CORES", "0"),
        ("CORES", "two"),
        ("STEP_TIMEOUT_S", "0"),
        ("STEP_TIMEOUT_S", "inf"),
        ("DEVICE", ""),
    ],
)
def test_a_bad_value_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, text: str) -> None:
    monkeypatch.setenv(f"DISTILL_{name}", text)
    with pytest.raises(ValidationError):
        Settings()


def test_unknown_names_are_found_and_defaults_and_interpreters_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISTILL_RUNER", "DISTILL_CORE", "DISTILL_CORES", "OTHER_CORE"):
        monkeypatch.setenv(name, "1")
    assert unknown_variables() == ["DISTILL_CORE", "DISTILL_RUNER"]
    with pytest.raises(ValidationError):
        Settings(runer="stub")
    settings = Settings(mace_python=Path("m"), tensorpot_python=Path("t"))
    assert (settings.python("mace"), settings.python("tensorpot")) == (Path("m"), Path("t"))
    assert 1 <= Settings().cores <= (os.cpu_count() or 1)
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("DISTILL_MACE_PYTHON", "~/env/bin/python")
    assert Settings().mace_python == Path("/home/ada/env/bin/python")


def test_the_environment_of_a_step_has_its_threads_and_nothing_of_prefect_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "64")
    monkeypatch.setenv("PREFECT_API_KEY", "secret")
    monkeypatch.setenv("MY_PROXY", "there")
    before = dict(os.environ)
    environment = step_environment(3)
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS")
    assert {environment[name] for name in names} == {"3"}
    assert environment["TF_NUM_INTEROP_THREADS"] == "1"
    assert not [name for name in environment if name.startswith("PREFECT_")]
    assert environment["MY_PROXY"] == "there"
    assert dict(os.environ) == before, "this process keeps its environment"


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No proxies of the caller's; what is changed is put back."""
    before = dict(os.environ)
    for name in before:
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.usefixtures("clean_environment")
def test_a_server_on_this_machine_is_never_behind_a_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect's client is httpx."""
    for name in ("http_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "mine.example, .own.example")
    monkeypatch.setenv("NO_PROXY", "other.example")
    prepare_process()
    client = httpx.Client()
    own = ["http://mine.example", "http://a.own.example", "http://other.example"]
    for url in (*own, *(f"http://{host}:4200/api" for host in ("127.0.0.1", "localhost", "[::1]"))):
        assert client._transport_for_url(httpx.URL(url)) is client._transport, url
    for url in ("http://prefect.example/api", "https://prefect.example/api"):
        assert client._transport_for_url(httpx.URL(url)) is not client._transport, url


@pytest.mark.usefixtures("clean_environment")
@pytest.mark.parametrize("name", ["all_proxy", "ALL_PROXY", "http_proxy"])
def test_a_proxy_that_the_client_cannot_use_does_not_keep_it_from_starting(monkeypatch, name) -> None:
    monkeypatch.setenv(name, "socks4://proxy.example:1080")
    with pytest.raises(ValueError, match="socks4"):
        httpx.Client()
    prepare_process()
    httpx.Client()


@pytest.mark.usefixtures("clean_environment")
def test_children_carry_the_mark_of_the_guard() -> None:
    prepare_process()
    assert os.environ[MARK] == guard()


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("PYTHONPATH", None, str(REPOSITORY)),
        ("PYTHONPATH", "", str(REPOSITORY)),
        ("PYTHONPATH", "/mine", f"{REPOSITORY}{os.pathsep}/mine"),
        ("USER", None, "distill"),
        ("USER", "ada", "ada"),
    ],
)
def test_a_step_has_our_path_first_and_always_a_user_name(
    monkeypatch: pytest.MonkeyPatch, name: str, before: str | None, after: str
) -> None:
    monkeypatch.delenv(name, raising=False)
    if before is not None:
        monkeypatch.setenv(name, before)
    assert step_environment(1)[name] == after


def test_a_choice_of_kernels_reaches_a_container_too(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KERNELS:
        monkeypatch.delenv(name, raising=False)
    assert not set(KERNELS) & set(thread_environment(1))
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    assert thread_environment(1)["OPENBLAS_CORETYPE"] == "Haswell"
    assert "PATH" not in thread_environment(1)
