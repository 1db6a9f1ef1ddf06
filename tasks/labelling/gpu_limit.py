"""How many shards are on GPUs at a time, over all runs and hosts of a Prefect server that stays.

The temporary server of a single command counts the shards of that run alone. Such servers may share one database, so
the run's limit has a name of its own; it stays there afterwards, of no use and no harm, also when the run was killed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from prefect.client.base import ServerType
from prefect.client.orchestration import get_client
from prefect.concurrency.sync import concurrency
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.runtime import flow_run

from containers.contract import Device
from tasks.runners.cancellation import refuse_ended
from tasks.settings import Settings

GPU_LIMIT = "mace-to-ace-gpu"
LEASE_S = 60  # the server's least: so long a holder that was killed keeps its slot
ASK_S = 5.0  # a shard that waits looks this often whether its run has ended


class _DropPolling(logging.Filter):
    """Drops a record that Prefect logs as an error whenever a shard that waits looks up after ASK_S."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "ConcurrencySlotAcquisition" not in record.getMessage()


_quiet = _DropPolling()


def ensure_gpu_limit(settings: Settings, device: Device) -> None:
    """Make the server's limit, or set it to what the settings say now; nothing where there is no limit."""
    if settings.gpu_shards is None or device != "cuda":
        return
    with get_client(sync_client=True) as client:
        # a temporary server has no service that takes slots back from runs that were killed
        name = _own_limit() if client.server_type == ServerType.EPHEMERAL else GPU_LIMIT
        try:
            client.upsert_global_concurrency_limit_by_name(name, settings.gpu_shards)
        except ObjectAlreadyExists:  # another run was faster
            client.upsert_global_concurrency_limit_by_name(name, settings.gpu_shards)


@contextmanager
def gpu_slot(settings: Settings, device: Device) -> Iterator[None]:
    """Hold one slot of the limit during the block; nothing where there is no limit.

    Raises:
        RunEnded: the flow run was ended while its shard waited.
    """
    if settings.gpu_shards is None or device != "cuda":
        yield
        return
    logging.getLogger("prefect._internal.concurrency").addFilter(_quiet)
    with get_client(sync_client=True) as client:
        try:  # the run's own limit where it has one: a Dask worker does not see of what kind the server is
            name = client.read_global_concurrency_limit_by_name(_own_limit()).name
        except ObjectNotFound:
            name = GPU_LIMIT
    with ExitStack() as slot:
        while True:
            try:
                slot.enter_context(
                    concurrency(
                        name,
                        timeout_seconds=ASK_S,
                        lease_duration=LEASE_S,
                        strict=True,  # a limit that somebody deleted is an error
                        raise_on_lease_renewal_failure=False,  # a server that rests for a minute ends no shard
                    )
                )
                break
            except TimeoutError:
                refuse_ended(flow_run.id)
        yield


def _own_limit() -> str:
    return f"{GPU_LIMIT}-{flow_run.id}"
