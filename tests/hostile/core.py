"""The inside of a relay without QUIC: attachments on connections that write down what they are told, and no crypto.

For attacks in thousands of variations. A `Visitor` speaks raw bytes; its SETUP is behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from relay.access import Access
from relay.attachment import Attachment, Surroundings
from relay.forwarding.book import ForwardingSettings
from relay.forwarding.forwarder import Forwarder
from relay.limits import Limits, LimitSettings
from relay.tally import Tally
from tests.relay.forwarding.fakes import send_all
from tests.sim.relay import ANYBODY
from tradewind.moqt import messages as m
from tradewind.moqt.parameters import SetupOptions
from tradewind.moqt.profiles import PROFILES, Profile
from tradewind.moqt.settings import ALL_QUIRKS, SessionSettings
from tradewind.quic.connection import Connection
from tradewind.quic.egress import Offered, Part, Writable
from tradewind.quic.events import DatagramReceived, Stopped, StreamData, StreamReset

BY_DRAFT: dict[int, Profile] = {profile.draft: profile for profile in PROFILES.values()}


class Recorder:
    """Stands for a `Connection`: takes everything, writes it down, checks that nothing is said after the end."""

    def __init__(self, draft: int, number: int) -> None:
        self.id = number
        self.protocol = f"moqt-{draft}"
        self.transport = "quic"
        self.is_client = False
        self.path = ""
        self.peer_address = (f"203.0.113.{number}", 1000)
        self.closed: tuple[int, str] | None = None
        self.sent: dict[int, bytearray] = {}
        self.ended: set[int] = set()
        self._next = {"bidi": 1, "uni": 3}

    @property
    def is_closed(self) -> bool:
        return self.closed is not None

    def open_bidi(self) -> int | None:
        return self._open("bidi")

    def open_uni(self) -> int | None:
        return self._open("uni")

    def send(self, stream: int, data: bytes, fin: bool = False) -> None:
        assert self.closed is None
        if stream not in self.ended:
            self.sent.setdefault(stream, bytearray()).extend(data)
            if fin:
                self.ended.add(stream)

    def reset(self, stream: int, code: int) -> None:
        self.ended.add(stream)

    def stop(self, stream: int, code: int) -> None:
        pass

    def consumed(self, stream: int, size: int) -> None:
        assert size >= 0

    def close(self, code: int, reason: str) -> None:
        assert self.closed is None
        self.closed = (code, reason)

    def offer(self, stream: int, parts: Sequence[Part], fin: bool) -> Offered:
        if stream in self.ended or self.closed is not None:
            return Offered.STOPPED
        self.send(stream, b"".join(parts), fin)
        return Offered.TAKEN

    def unsent(self, stream: int) -> int:
        return 0

    def datagram(self, parts: Sequence[Part], expires: float) -> bool:
        return sum(map(len, parts)) < 1200

    def writable_bytes(self, now: float) -> int:
        return self.writable(now).session_bytes

    def writable(self, now: float) -> Writable:
        return Writable(0 if self.closed else 16_384, 100, 1200)

    def _open(self, kind: str) -> int | None:
        if self.closed is not None or self._next[kind] > 400:
            return None
        self._next[kind] += 4
        return self._next[kind] - 4


class Core:
    """Forwarding, access and limits, and whoever is attached."""

    def __init__(self, access: Access = ANYBODY) -> None:
        self.forwarder = Forwarder(ForwardingSettings(linger_s=1.0, answer_timeout_s=1.0))
        self.access = access
        self.limits = Limits(LimitSettings())
        self.tally = Tally()
        self.now = 50.0
        self.visitors: list[Visitor] = []

    def join(self, draft: int) -> Visitor:
        visitor = Visitor(self, draft, len(self.visitors) + 1)
        self.visitors.append(visitor)
        return visitor

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.tally.now = self.now
        self.forwarder.handle_deadline(self.now)
        for visitor in self.visitors:
            due = visitor.attachment.next_deadline()
            if visitor.attached and due is not None and due <= self.now:
                visitor.attachment.handle_deadline(self.now, self.now)
        self.settle()

    def settle(self) -> None:
        """Let everybody send, see who was closed, and check everything."""
        send_all(self.forwarder, self.now)
        for visitor in self.visitors:
            if visitor.attached and visitor.recorder.closed is not None:
                visitor.attachment.end(self.now)
                visitor.attached = False
        self.forwarder.check_invariants()
        self.limits.check_invariants()
        for visitor in self.visitors:
            if visitor.attached:
                visitor.attachment.session.check_invariants()
                visitor.attachment.check_invariants()


class Visitor:
    """One connection, from outside."""

    def __init__(self, core: Core, draft: int, number: int) -> None:
        self.core = core
        self.profile = BY_DRAFT[draft]
        self.recorder = Recorder(draft, number)
        self.attached = True
        self.attachment = Attachment(
            cast("Connection", self.recorder),
            number,
            0,
            Surroundings(core.forwarder, core.access, core.limits, SessionSettings(), ALL_QUIRKS, core.tally),
            core.now,
        )
        self._next = {"bidi": 0, "uni": 2}
        self._next_request = 0
        self.attachment.start(core.now)
        options = SetupOptions(path="/live", authority="relay.test")
        if draft > 16:
            self.uni(m.encode(self.profile, m.Setup(options)))
        else:
            self.bidi(m.encode(self.profile, m.ClientSetup(SetupOptions(path="/live", max_request_id=1000))))
        assert self.attachment.session.is_ready

    @property
    def closed(self) -> int | None:
        """The code with which the relay closed it."""
        return None if self.recorder.closed is None else self.recorder.closed[0]

    def request_id(self) -> int:
        self._next_request += 2
        return self._next_request - 2

    def bidi(self, data: bytes = b"", fin: bool = False) -> int:
        """Bytes on a new bidirectional stream."""
        return self._stream("bidi", data, fin)

    def uni(self, data: bytes = b"", fin: bool = False) -> int:
        """Bytes on a new unidirectional stream."""
        return self._stream("uni", data, fin)

    def request(self, data: bytes, fin: bool = False) -> int:
        """Bytes where the draft has requests; returns the stream."""
        if self.profile.request_streams:
            return self.bidi(data, fin)
        self.more(0, data, fin)
        return 0

    def more(self, stream: int, data: bytes, fin: bool = False) -> None:
        self._tell(StreamData(self.attachment.connection, stream, data, fin))

    def reset(self, stream: int, code: int = 1) -> None:
        self._tell(StreamReset(self.attachment.connection, stream, code))

    def stop(self, stream: int, code: int = 1) -> None:
        self.recorder.reset(stream, code)
        self._tell(Stopped(self.attachment.connection, stream, code))

    def datagram(self, data: bytes) -> None:
        self._tell(DatagramReceived(self.attachment.connection, data))

    def _stream(self, kind: str, data: bytes, fin: bool) -> int:
        stream = self._next[kind]
        self._next[kind] += 4
        self.more(stream, data, fin)
        return stream

    def _tell(self, event: Any) -> None:
        if self.attached:
            self.attachment.receive(event, self.core.now, self.core.now)
            self.core.settle()
