"""Where the shards of the labelling run: threads of this process, or a Dask cluster whose hosts share the work root."""

from __future__ import annotations

import importlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

from prefect.context import FlowRunContext
from prefect.futures import PrefectConcurrentFuture
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from tasks.errors import DistillError, UserError
from tasks.prefect_logging import run_log
from tasks.runners.cancellation import RunEnded
from tasks.settings import Settings

if TYPE_CHECKING:
    from prefect.futures import PrefectWrappedFuture
    from prefect.tasks import Task

    Future = PrefectWrappedFuture[Any, Any]

TICK_S = 1.0
CONNECT_S = 15.0  # to a scheduler; one that refuses is tried again and again so long
END_WORKERS_S = 5.0  # for the workers' answer when a run ends
LOCAL_CLUSTERS = ("distributed.LocalCluster", "dask.distributed.LocalCluster")
NO_SERVER = "Failed to reach API"  # what a task run of Prefect ends with on such a worker
INSTALL = "pip install 'mace-to-ace[dask]'"


def task_runner(settings: Settings) -> TaskRunner[Any]:
    """The task runner that the settings ask for: threads unless they name a Dask cluster.

    Raises:
        UserError: a DISTILL_DASK_... setting is wrong, or the packages for it are not installed.
    """
    if not (settings.dask_address or settings.dask_cluster):
        if settings.dask_cluster_options:
            raise UserError("DISTILL_DASK_CLUSTER_OPTIONS: set DISTILL_DASK_CLUSTER to the class they are for")
        return ThreadPoolTaskRunner(max_workers=settings.shards_at_once)
    if settings.dask_address and settings.dask_cluster:
        raise UserError("DISTILL_DASK_ADDRESS and DISTILL_DASK_CLUSTER: set one of them, not both")
    try:
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError as error:
        raise UserError(f"DISTILL_DASK_...: {error}. Install it: {INSTALL}") from None
    if settings.dask_address:
        return DaskTaskRunner(address=settings.dask_address, client_kwargs={"timeout": CONNECT_S})
    name, options = settings.dask_cluster or "", settings.dask_cluster_options
    if name in LOCAL_CLUSTERS:  # as many workers of one shard each as this machine labels at a time
        ours = {"n_workers": settings.shards_at_once, "threads_per_worker": 1, "dashboard_address": None}
        options = {**ours, **options}
    return DaskTaskRunner(cluster_class=_cluster_class(name), cluster_kwargs=options)


def _cluster_class(name: str) -> Any:
    """Import the class; the signals stay as they are: dask_jobqueue would make Ctrl-C an exit without an error."""
    module, _, attribute = name.rpartition(".")
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        hint = f"Name a class such as distributed.LocalCluster; dask_jobqueue's need: {INSTALL} dask-jobqueue"
        raise UserError(f"DISTILL_DASK_CLUSTER: no class {name!r} ({error}). {hint}") from None
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in before.items():
                signal.signal(number, handler)
    if not callable(found):
        raise UserError(f"DISTILL_DASK_CLUSTER: {name} is no class")
    return found


def run_shards(
    runner: TaskRunner[Any],
    task: Task[..., Any],
    parameters: Sequence[dict[str, Any]],
    names: Sequence[str],
    *,
    tick: Callable[[], object],
    fatal: Callable[[BaseException], bool],
    end: Callable[[], object],
    finished: Callable[[int, Any], object] = lambda number, result: None,
) -> list[Any]:
    """Run `task` once for every one of `parameters`; its result or exception for each, None for one left out.

    Args:
        runner: from `started`.
        names: of the task runs.
        tick: called about once a second while shards run.
        fatal: whether an exception is one that the shards not yet begun would meet too; they are then left out.
        end: ends what the run has running in the process that calls it; it must be picklable. Called here and on
            every Dask worker when the waiting is broken off by an exception such as KeyboardInterrupt.
        finished: called with the place and the result or exception of every shard that ran.
    """
    futures: list[Future] = []
    results: list[Any] = [None] * len(parameters)
    left_out: set[int] = set()
    try:
        with ExitStack() as server:
            if (context := FlowRunContext.get()) and _dask_client(runner) is not None:
                # workers report to the server of this flow run: without its address each would start one of its own
                server.enter_context(temporary_settings({PREFECT_API_URL: str(context.client.api_url)}))
            for name, given in zip(names, parameters, strict=True):
                futures.append(runner.submit(task.with_options(task_run_name=name), given))
        for place in _as_they_end(futures, tick):
            if place in left_out:
                continue
            results[place] = _result(futures[place], names[place])
            finished(place, results[place])
            if isinstance(results[place], BaseException) and not left_out and fatal(results[place]):
                left_out = _leave_out(runner, futures)
    except BaseException:
        _end_all(runner, futures, end)
        raise
    return results


@contextmanager
def started(settings: Settings) -> Iterator[TaskRunner[Any]]:
    """The task runner of the settings, its cluster made or reached; `UserError` when there is none as they say."""
    with task_runner(settings) as runner:
        if isinstance(runner, ThreadPoolTaskRunner):
            yield runner
            return
        import dask

        try:
            # a cluster and its local workers do not log every connection
            logging.getLogger("distributed").setLevel(logging.WARNING)
            with dask.config.set({"distributed.nanny.pre-spawn-environ.DASK_LOGGING__DISTRIBUTED": "warning"}):
                client = _dask_client(runner)
        except Exception as error:  # a cluster class raises what it likes
            name = "ADDRESS" if settings.dask_address else "CLUSTER or DISTILL_DASK_CLUSTER_OPTIONS"
            place = settings.dask_address or f"{settings.dask_cluster} {settings.dask_cluster_options}"
            raise UserError(f"DISTILL_DASK_{name}: no Dask cluster at {place}: {error}") from error
        # it may have none for hours, in a queue, or for ever, for want of `n_workers`
        if not client.scheduler_info()["workers"]:
            run_log().warning("the Dask cluster has no worker yet: shards wait until one comes (was n_workers given?)")
        yield runner


def _dask_client(runner: TaskRunner[Any]) -> Any:
    """The runner's connection to its cluster, made at the first call; None for threads."""
    return None if isinstance(runner, ThreadPoolTaskRunner) else runner.client  # type: ignore[attr-defined]


def _as_they_end(futures: Sequence[Future], tick: Callable[[], object]) -> Iterator[int]:
    ended: SimpleQueue[int] = SimpleQueue()
    for place, future in enumerate(futures):
        future.add_done_callback(lambda _, place=place: ended.put(place))  # type: ignore[misc]
    ticked = time.monotonic()
    left = len(futures)
    while left:
        if time.monotonic() >= ticked + TICK_S:
            ticked = time.monotonic()
            tick()
        try:
            place = ended.get(timeout=max(0.0, ticked + TICK_S - time.monotonic()))
        except Empty:
            continue
        left -= 1
        yield place


def _result(future: Future, name: str) -> Any:
    """The result or exception of a shard. A cluster then forgets it, or it would run again when its worker dies."""
    try:
        if isinstance(future, PrefectConcurrentFuture):
            return future.result()
        from distributed import KilledWorker

        wrapped = future.wrapped_future
        if wrapped.cancelled():  # not by us
            raise DistillError(f"{name}: the Dask cluster was lost while it ran. What is labelled is kept: run again.")
        try:
            # a task that ended with what is no Exception leaves `result()` waiting for ever
            error = wrapped.exception() if wrapped.status == "error" else None
            if isinstance(error, KilledWorker):
                raise DistillError(f"{name}: {error}")
            if str(error).startswith(NO_SERVER):
                raise UserError(
                    f"the workers of the Dask cluster do not see this run's Prefect server ({error}). Start one that"
                    " they reach (prefect server start --host ...) and set PREFECT_API_URL to its address."
                )
            return error or future.result()
        finally:
            wrapped.release()
    except (Exception, RunEnded) as error:  # noqa: BLE001  the caller's business
        return error


def _leave_out(runner: TaskRunner[Any], futures: Sequence[Future]) -> set[int]:
    """Cancel the shards that have not begun; their places."""
    client = _dask_client(runner)
    if client is None:
        return {place for place, future in enumerate(futures) if future.wrapped_future.cancel()}
    if client.status != "running":  # a shard that waits is lost, and its result says so
        return set()
    begun = {key for keys in client.processing().values() for key in keys}
    waiting = {
        place
        for place, future in enumerate(futures)
        if not future.wrapped_future.done() and future.wrapped_future.key not in begun
    }
    client.cancel([futures[place].wrapped_future for place in waiting])
    return waiting


def _end_all(runner: TaskRunner[Any], futures: Sequence[Future], end: Callable[[], object]) -> None:
    client = _dask_client(runner)
    if client is None:
        for future in futures:
            future.wrapped_future.cancel()
    end()
    if client is None:
        return

    def end_on_workers() -> None:
        with suppress(OSError):  # the scheduler is gone: so are its tasks
            client.cancel([future.wrapped_future for future in futures])
            client.run(end, on_error="ignore")

    ending = threading.Thread(target=end_on_workers, daemon=True)
    ending.start()
    ending.join(END_WORKERS_S)  # a worker that hangs does not answer
