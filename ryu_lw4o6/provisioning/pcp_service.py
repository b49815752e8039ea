"""The PCP servers of a controller, and what they share."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence

import eventlet.tpool
from ryu.lib import hub

from ryu_lw4o6.core.binding import Binding, BindingKey, BindingTable
from ryu_lw4o6.core.settings import Instance
from ryu_lw4o6.provisioning.pcp_records import Change, PcpRecords
from ryu_lw4o6.provisioning.pcp_server import PcpServer
from ryu_lw4o6.store import Store, StoreError

LOG = logging.getLogger(__name__)

EXPIRY_SECONDS = 60.0
"""How often mappings that are over are removed from the store; they count for nothing before."""

Provision = Callable[
    [
        Sequence[Binding],
        Sequence[Binding],
        Callable[[Collection[BindingKey]], Collection[BindingKey]],
    ],
    set[BindingKey],
]
"""See ``Service.provision``."""


class PcpService:
    """``servers`` has one for each instance with PCP, by its name. Raises StoreError."""

    def __init__(
        self,
        instances: Iterable[Instance],
        table: BindingTable,
        store: Store,
        provision: Provision,
    ) -> None:
        self._provision = provision
        self.servers: dict[str, PcpServer] = {}
        self._records: PcpRecords | None = None
        for instance in instances:
            if instance.pcp is None:
                continue
            if self._records is None:
                self._records = PcpRecords(store)
            self.servers[instance.name] = PcpServer(instance, table, self._records, self._commit)

    def greenlets(self) -> list[Callable[[], None]]:
        """What is to run for as long as the controller lives."""
        if self._records is None:
            return []
        return [self._expire, *(run for each in self.servers.values() for run in each.greenlets())]

    def _commit(self, changes: Sequence[Change], now: float) -> set[BindingKey]:
        records = self._records
        assert records is not None

        def commit(refused: Collection[BindingKey]) -> set[BindingKey]:
            wanted = [c for c in changes if c.put is None or c.put.key not in refused]
            return records.commit(wanted, now)

        put = [binding for change in changes if (binding := change.put) is not None]
        gone = [binding for change in changes if (binding := change.gone) is not None]
        return self._provision(put, gone, commit)

    def _expire(self) -> None:
        records = self._records
        assert records is not None
        while True:
            hub.sleep(EXPIRY_SECONDS)
            try:
                eventlet.tpool.execute(records.expire, time.time())
            except StoreError as error:
                LOG.error("PCP mappings that are over stay in the store for now: %s", error)
