"""A switch's flows, brought in line with the binding table.

Two notes say what is to be done: which binding keys may differ, and whether the pipeline may
differ. They are worked off in bundles. What a bundle carries is computed from the binding table
when it is sent, so a change that was overtaken by a later one costs nothing and a repeated one
does no harm.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from openflow_rules import encode
from openflow_rules.compiler import pipeline
from openflow_rules.compiler.parts import Ports
from openflow_rules.tables import Table, binding_cookie
from ryu_lw4o6.comparison import Comparison
from ryu_lw4o6.core.binding import BindingKey, BindingTable
from ryu_lw4o6.core.settings import Instance
from ryu_lw4o6.dialogue import Dialogue, SessionError, SwitchError

LOG = logging.getLogger(__name__)

BINDINGS_PER_BUNDLE = 2000
"""So many that a bundle's fixed cost is small, so few that committing one does not keep the
switch's main thread, which also forwards packets in the userspace datapath, for long."""


@dataclass(eq=False, slots=True)
class _Bundle:
    """A bundle that was sent, and what is true once the switch has confirmed it.

    ``keys`` are in line with the table as it was then. ``refused`` are bindings that the switch
    did not take earlier, and what it said: what there may be of them is gone. ``pipeline`` is the
    new pipeline, None if it stays as it was. ``messages`` has the transaction id of every message
    in the bundle, with the binding it is about.
    """

    keys: dict[BindingKey, None]
    refused: dict[BindingKey, str]
    pipeline: dict[bytes, bytes] | None = None
    messages: dict[int, BindingKey | None] = field(default_factory=dict)
    sent: bool = False
    barrier: int = 0


class Programming:
    """The flows of one switch, changed by one greenlet only, which calls ``apply``.

    ``next_hop_mac`` is asked whenever the pipeline is computed; ``on_progress`` is told that
    something was sent, confirmed or refused.
    """

    def __init__(
        self,
        dialogue: Dialogue,
        instance: Instance,
        table: BindingTable,
        next_hop_mac: Callable[[], str | None],
        on_progress: Callable[[], None],
    ) -> None:
        self.pipeline_dirty = True
        self._dialogue = dialogue
        self._instance = instance
        self._table = table
        self._next_hop_mac = next_hop_mac
        self._on_progress = on_progress
        self._encoder = encode.BindingEncoder(instance)
        self._dirty: dict[BindingKey, None] = {}
        self._in_flight: list[_Bundle] = []
        self._refused: dict[BindingKey, str] = {}  # what there may be of them is to be deleted
        self._failed: dict[BindingKey, str] = {}
        self._on_switch: set[BindingKey] = set()  # when all that was sent has been carried out
        self._pipeline: dict[bytes, bytes] = {}  # canonical flow -> message that deletes it

    def compare(self, ports: Ports) -> Comparison:
        """For a dump of the switch's flows; ``correct`` then notes what it has found."""
        return Comparison(self._instance, self._table, self._encoder, ports)

    def correct(self, found: Comparison) -> int:
        """Note every difference between a switch and what should be there; the number of bindings
        that differ."""
        differing = found.differing()
        self._on_switch = found.on_switch
        self._pipeline = found.pipeline
        self.pipeline_dirty = True
        self._failed.clear()
        self._refused.clear()
        self._dirty = {key: None for key in self._dirty if found.is_early(key)} | differing
        return len(differing)

    def touch(self, keys: Iterable[BindingKey]) -> None:
        """These bindings have changed in the table."""
        for key in keys:
            self._dirty[key] = None
            # Mostly there are none, and hashing a key costs more than to see that.
            if self._failed:
                self._failed.pop(key, None)
            if self._refused:
                self._refused.pop(key, None)

    def failure(self, key: BindingKey) -> str | None:
        """What the switch said when it refused the binding with this key."""
        return self._failed.get(key) if self._failed else None

    @property
    def bindings(self) -> int:
        """How many bindings the switch has."""
        return len(self._on_switch)

    @property
    def backlog(self) -> int:
        """How many bindings wait to be confirmed."""
        return len(self._dirty) + sum(len(bundle.keys) for bundle in self._in_flight)

    @property
    def has_pipeline(self) -> bool:
        """Whether the switch has ever been given one."""
        return bool(self._pipeline)

    @property
    def work_left(self) -> bool:
        """Whether there is something to send."""
        return bool(self._dirty or self._refused or self.pipeline_dirty)

    def flows_per_table(self) -> Counter[int]:
        """How many flows each table is to have, but for those that end by themselves."""
        counts = Counter(map(encode.table_of, self._pipeline))
        counts[Table.UPSTREAM_BINDING] += len(self._on_switch)
        counts[Table.DOWNSTREAM_BINDING] += len(self._on_switch)
        return counts

    def underway(self, key: BindingKey) -> bool:
        """Whether the binding with this key is to be sent, or to be confirmed."""
        if self._is_noted(key):
            return True
        for bundle in self._in_flight:
            if key in bundle.keys or (bundle.refused and key in bundle.refused):
                return True
        return False

    def unsent(self, key: BindingKey) -> bool:
        """Whether there is something of the binding with this key that has yet to be sent."""
        return self._is_noted(key) or any(
            not bundle.sent and key in bundle.keys for bundle in self._in_flight
        )

    def _is_noted(self, key: BindingKey) -> bool:
        """Whether there is something of the binding with this key that no bundle has yet."""
        return bool(
            (self._dirty and key in self._dirty) or (self._refused and key in self._refused)
        )

    def apply(self, ports: Ports, go_on: Callable[[], bool]) -> None:
        """Bring the pipeline and all bindings in line, for as long as ``go_on`` says so. Raises
        SessionError.

        While the switch works on one bundle, the next is made: neither waits for the other. A
        change of the pipeline travels alone, since the next one starts from where it led.
        """
        sent: _Bundle | None = None
        while sent is not None or (self.work_left and go_on()):
            following = None
            alone = self.pipeline_dirty or (sent is not None and sent.pipeline is not None)
            if self.work_left and go_on() and not (sent is not None and alone):
                following = self._send_bundle(ports)
            if sent is not None:
                self._confirm(sent)
            sent = following

    def _pipeline_changes(self, ports: Ports) -> tuple[list[bytes], dict[bytes, bytes]]:
        """Messages that turn the pipeline on the switch into the right one, and what it is then."""
        flows = pipeline(self._instance, ports, self._next_hop_mac())
        wanted = {encode.canonical_flow(flow): flow for flow in flows}
        deletes = {key: encode.delete_flow(flow) for key, flow in wanted.items()}
        # What only has new actions is replaced in its place, and so goes on counting.
        replaced = set(deletes.values())
        messages = [
            delete
            for found, delete in self._pipeline.items()
            if found not in wanted and delete not in replaced
        ]
        messages += [
            encode.add_flow(flow) for key, flow in wanted.items() if key not in self._pipeline
        ]
        return messages, deletes

    def _send_bundle(self, ports: Ports) -> _Bundle:
        """Send the next bundle, and a barrier behind it."""
        keys = dict.fromkeys(islice(self._dirty, BINDINGS_PER_BUNDLE))
        for key in keys:
            del self._dirty[key]
        bundle = _Bundle(keys, self._refused)
        self._refused = {}
        self._in_flight.append(bundle)
        pipeline_messages: list[bytes] = []
        if self.pipeline_dirty:
            pipeline_messages, bundle.pipeline = self._pipeline_changes(ports)
            self.pipeline_dirty = False
        self._dialogue.send_all(self._messages_of(bundle, pipeline_messages))
        bundle.sent = True
        self._on_progress()
        bundle.barrier = self._dialogue.request_barrier()
        return bundle

    def _messages_of(self, bundle: _Bundle, pipeline_messages: list[bytes]) -> Iterator[bytes]:
        encoder, on_switch, get = self._encoder, self._on_switch, self._table.get
        carries, about, next_xid = self._instance.carries, bundle.messages, self._dialogue.next_xid

        def xid_for(key: BindingKey | None = None) -> int:
            xid = next_xid()
            about[xid] = key
            return xid

        yield encode.bundle_control(encode.BUNDLE_OPEN, xid_for())
        for message in pipeline_messages:
            yield encode.in_bundle(encode.with_xid(message, xid_for()))
        for key in bundle.refused:
            on_switch.discard(key)
            yield encoder.delete_bundled(binding_cookie(key), xid_for())
        for key in bundle.keys:
            xid = xid_for(key)
            if key in on_switch:
                yield encoder.delete_bundled(binding_cookie(key), xid)
            binding = get(key)
            if binding is not None and carries(binding):
                on_switch.add(key)
                yield encoder.add_bundled(binding, xid)
            else:
                on_switch.discard(key)
        yield encode.bundle_control(encode.BUNDLE_COMMIT, xid_for())

    def _confirm(self, bundle: _Bundle) -> None:
        """Wait until the switch has done with a bundle."""
        self._dialogue.answer(bundle.barrier, "a barrier")
        self._in_flight.remove(bundle)
        errors = self._dialogue.take_errors(bundle.messages)
        if errors:
            self._take_back(bundle, errors)
        else:
            if bundle.pipeline is not None:
                self._pipeline = bundle.pipeline
            for key, error in bundle.refused.items():
                if not self.underway(key):
                    self._failed[key] = error
                    LOG.error("%s: the switch refused binding %s: %s",
                              self._instance.name, key, error)  # fmt: skip
        self._on_progress()

    def _take_back(self, bundle: _Bundle, errors: dict[int, SwitchError]) -> None:
        """The switch refused a part of a bundle: note what is still to be done.

        Depending on when it finds fault with a message, Open vSwitch takes nothing of a bundle or
        all the rest of it. So the rest is sent again, and what there may be of the refused
        bindings is deleted, which is right in both cases.
        """
        bad: dict[BindingKey, str] = {}
        for xid, error in errors.items():
            key = bundle.messages[xid]
            if key is not None:
                bad[key] = str(error)
        if not bad:
            raise SessionError(f"the switch refused a bundle: {next(iter(errors.values()))}")
        self.pipeline_dirty |= bundle.pipeline is not None
        for key in {**bundle.keys, **bundle.refused}:
            said = bad.get(key) or bundle.refused.get(key)
            if said is not None and not self.underway(key):
                self._refused[key] = said
            elif key not in bad:  # of one that has changed since, another bundle will tell
                self._dirty[key] = None
                self._on_switch.add(key)  # perhaps still, so it is deleted first
