"""What the parts of one session share: its transport and draft, its limits, the time, and the events to come.

Only the files of this room use it. `events` is what the current call will return; calls of the owner put into it too,
and then the session's deadline is at once, so that nothing waits for the peer to speak.
"""

from __future__ import annotations

from collections import Counter
from typing import Protocol

from tradewind.moqt.errors import ProtocolViolation, SessionCode
from tradewind.moqt.events import Event, SessionClosed
from tradewind.moqt.parameters import SetupOptions
from tradewind.moqt.profiles import Profile
from tradewind.moqt.settings import QuirkSet, SessionSettings
from tradewind.moqt.states import Rules, rules_of


class Transport(Protocol):
    """What a session needs of a QUIC connection or a WebTransport session; stream ids are QUIC's in both."""

    def open_bidi(self) -> int | None:
        """Open a bidirectional stream; None where the peer's stream limit leaves no room."""

    def open_uni(self) -> int | None:
        """Open a unidirectional stream; None where the peer's stream limit leaves no room."""

    def send(self, stream: int, data: bytes, fin: bool = False) -> None:
        """Send control bytes. Never blocks; ignored on a stream that was stopped or reset."""

    def reset(self, stream: int, code: int) -> None:
        """Abandon our sending side. Unknown or finished streams are left alone."""

    def stop(self, stream: int, code: int) -> None:
        """Ask the peer to abandon its sending side. Unknown or finished streams are left alone."""

    def consumed(self, stream: int, size: int) -> None:
        """Give `size` bytes of receive credit back."""

    def close(self, code: int, reason: str) -> None:
        """End the session with an application error code."""


class StreamHandler(Protocol):
    """What one stream of the table does with what arrives on it."""

    def receive(self, data: bytes, fin: bool) -> None:
        """Bytes in order; nothing comes after `fin`. Raises ProtocolViolation."""

    def reset(self, code: int) -> None:
        """The peer abandoned its sending side."""

    def stopped(self, code: int) -> None:
        """The peer asked for the end of our sending side; the transport has reset it."""


class Context:
    """Shared by the parts of one session; `closed` is final."""

    __slots__ = (
        "closed",
        "counters",
        "events",
        "is_client",
        "now",
        "peer",
        "profile",
        "quirks",
        "ready",
        "rules",
        "settings",
        "transport",
        "webtransport",
    )

    def __init__(
        self,
        transport: Transport,
        profile: Profile,
        *,
        is_client: bool,
        webtransport: bool,
        settings: SessionSettings,
        quirks: QuirkSet,
    ) -> None:
        self.transport = transport
        self.profile = profile
        self.rules: Rules = rules_of(profile.draft)
        self.is_client = is_client
        self.webtransport = webtransport
        self.settings = settings
        self.quirks = quirks
        self.now = 0.0
        self.events: list[Event] = []
        self.peer = SetupOptions()
        """What the peer's SETUP said; before it, what silence means."""
        self.ready = False
        """Both SETUPs are through."""
        self.closed = False
        self.counters: Counter[str] = Counter()

    def fail(self, violation: ProtocolViolation) -> None:
        """End the session because of what the peer did."""
        if self.closed:
            return
        self.close(violation.code, violation.reason)
        self.events.append(SessionClosed(violation.code, violation.reason))

    def close(self, code: int, reason: str) -> None:
        """End the session without an event."""
        if not self.closed:
            self.closed = True
            self.transport.close(code, reason)

    def to_wire(self, code: int) -> int:
        """A stream error code as the draft on the wire numbers it."""
        return self.profile.codes.reset_to_wire(code)

    def violation(self, reason: str, code: int = SessionCode.PROTOCOL_VIOLATION) -> ProtocolViolation:
        """A violation to raise; the reason goes to the peer, so it never repeats what the peer sent."""
        return ProtocolViolation(code, reason)
