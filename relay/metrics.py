"""Every metric of a relay, declared once: its name, unit, help and labels; nobody names one anywhere else.

Hot paths add to plain numbers (`metrics.media.objects_sent.add()`); what rooms count by themselves is copied in by a
function in `refreshers`, which runs when somebody asks. `tradewind.metering` says what a number is and how it becomes
text; `/metrics`, `grafana/` and its test read these from `declarations()`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tradewind import metering
from tradewind.metering import (
    TURN_BUCKETS_S,
    WAIT_BUCKETS_S,
    Count,
    Declaration,
    Histogram,
    Labelled,
    Sample,
    counter,
    counters,
    gauge,
    gauges,
    histogram,
)


@dataclass(slots=True)
class SessionMetrics:
    """Who comes, stays and goes."""

    open: Labelled = gauges("sessions", "Sessions open now.", "transport", "draft")
    opened: Labelled = counters("sessions_opened_total", "Sessions that were let in.", "transport", "draft")
    closed: Labelled = counters("sessions_closed_total", "Sessions that ended, by code and by whom.", "code", "by")
    refused: Labelled = counters("sessions_refused_total", "Sessions not let in, and why.", "reason")
    handshakes: Count = gauge("handshakes", "Handshakes under way now.")
    handshakes_refused: Labelled = counters(
        "handshakes_refused_total", "Handshakes not begun or not finished, and why.", "reason"
    )
    retries: Count = counter("retries_sent_total", "Clients asked to prove their address first.")
    oddities: Labelled = counters(
        "session_oddities_total", "What peers sent that was dropped, refused or waited for in vain.", "kind"
    )
    quirks: Labelled = counters("quirk_uses_total", "Known faults of clients that were forgiven.", "quirk")
    placed: Labelled = counters("place_answers_total", "Answers to /v1/place: placed, or why not.", "answer")
    going_away: Labelled = counters(
        "goaway_sent_total", "Sessions asked to move: given a new URI, or why they got none.", "uri"
    )
    going_away_ignored: Count = counter("goaway_ignored_total", "Sessions that were still there when a drain ended.")


@dataclass(slots=True)
class ControlMetrics:
    """What controllers tell this relay."""

    connected: Count = gauge("control_connected", "1 while a controller has welcomed this relay.")
    term: Count = gauge("control_table_term", "Of the route table in force.")
    generation: Count = gauge("control_table_generation", "Of the route table in force; 0: there is none.")
    taken: Labelled = counters("control_tables_taken_total", "Route tables put into force, by form.", "form")
    refused: Labelled = counters(
        "control_tables_refused_total", "Route tables not taken, and why: the last good one stays.", "reason"
    )
    write_failures: Count = counter("control_table_write_failures_total", "Times the table could not be kept on disk.")
    misfits: Count = counter("control_misfits_total", "Messages of ours that did not fit the contract.")
    overrides: Labelled = gauges(
        "overrides", "Origins whose tracks come by another way than the route table says first, and why.", "cause"
    )


@dataclass(slots=True)
class RequestMetrics:
    """What sessions ask for."""

    received: Labelled = counters("requests_total", "Requests received.", "request")
    rejected: Labelled = counters("requests_rejected_total", "Requests answered with an error.", "request", "code")
    limited: Labelled = counters("limits_reached_total", "Times somebody met a limit.", "limit")
    subscriptions: Count = gauge("subscriptions", "Subscriptions of others to tracks here.")
    upstream_subscriptions: Count = gauge("upstream_subscriptions", "Subscriptions of ours to publishers.")
    namespaces: Count = gauge("namespaces", "Namespaces published here now.")
    subscribe_latency: Histogram = histogram(
        "subscribe_latency_seconds", "From a SUBSCRIBE to its answer.", WAIT_BUCKETS_S
    )
    join_latency: Histogram = histogram(
        "join_latency_seconds", "From a SUBSCRIBE to its first object handed to the transport.", WAIT_BUCKETS_S
    )


@dataclass(slots=True)
class MediaMetrics:
    """Objects on their way through."""

    tracks: Count = gauge("tracks", "Tracks known now.")
    objects_received: Count = counter("objects_received_total", "Objects begun by publishers, copies included.")
    objects_sent: Count = counter("objects_sent_total", "Objects handed whole to subscribers' transports.")
    bytes_received: Count = counter("object_bytes_received_total", "Payload bytes from publishers.")
    bytes_sent: Count = counter("object_bytes_sent_total", "Payload bytes handed to subscribers' transports.")
    dropped: Labelled = counters(
        "objects_dropped_total", "Objects that had arrived when they were given up for one subscriber.", "reason"
    )
    malformed: Count = counter("malformed_tracks_total", "Tracks ended because their publishers contradict themselves.")
    cache_bytes: Count = gauge("cache_bytes", "Bytes of objects kept.")
    cache_groups: Count = gauge("cache_groups", "Groups kept.")
    cache_evictions: Count = counter("cache_evictions_total", "Groups dropped before their time to make room.")


@dataclass(slots=True)
class RoomMetrics:
    """Ordered messages: what this relay is in their rooms, what it promised, and what it refused."""

    open: Labelled = gauges("rooms", "Rooms that this relay knows, by what it is in them.", "role")
    acknowledged: Labelled = counters(
        "room_messages_acknowledged_total",
        "Acknowledgements given by this relay as home, by on how many disks the message then was.",
        "stored",
    )
    repeated: Count = counter(
        "room_messages_repeated_total", "Messages that had a place already and were told of it again."
    )
    refused: Labelled = counters("room_messages_refused_total", "Messages refused here, and why.", "reason")
    waiting: Count = gauge("room_waiting_messages", "Messages here without an answer: no place yet, or not safe yet.")
    write: Histogram = histogram(
        "room_write_seconds", "From giving a transaction to the rooms' store to its answer, flushed.", WAIT_BUCKETS_S
    )
    backlog: Count = gauge(
        "room_follower_backlog_records", "Records of rooms whose home is here that their followers may not have."
    )
    records: Count = gauge("room_records", "Records in all logs here.")
    withdrawn: Count = counter(
        "room_records_withdrawn_total", "Records cut from logs here: another home went on without them."
    )
    damaged: Count = gauge("room_damaged_records", "Records on disk that could not be read.")
    disk_bytes: Count = gauge("room_disk_bytes", "Size of the rooms' file and its write-ahead log.")


@dataclass(slots=True)
class NetworkMetrics:
    """The socket and QUIC."""

    datagrams_received: Count = counter("udp_datagrams_received_total", "UDP datagrams received.")
    datagrams_sent: Count = counter("udp_datagrams_sent_total", "UDP datagrams sent.")
    bytes_received: Count = counter("udp_received_bytes_total", "UDP payload received by sessions.")
    bytes_sent: Count = counter("udp_sent_bytes_total", "UDP payload sent by sessions.")
    send_errors: Labelled = counters("udp_send_errors_total", "Sends that the kernel refused.", "error")
    receive_drops: Count = counter("udp_receive_drops_total", "Datagrams the kernel dropped: its buffer was full.")
    unroutable: Count = counter("udp_unroutable_total", "Datagrams that belong to no connection and begin none.")
    packets_lost: Count = counter("quic_packets_lost_total", "Packets of ours declared lost, of closed sessions too.")
    held_bytes: Count = gauge("quic_held_bytes", "Bytes received out of order and kept.")


@dataclass(slots=True)
class TurnMetrics:
    """Whether the relay keeps up."""

    duration: Histogram = histogram("turn_duration_seconds", "Time one turn took.", TURN_BUCKETS_S)
    cut_short: Count = counter("turns_cut_short_total", "Turns that ended because their budget was spent.")
    ready_sessions: Count = gauge("ready_sessions", "Sessions that wait for their quantum.")
    loop_lag: Histogram = histogram(
        "loop_lag_seconds", "How much later than asked for the event loop woke a timer.", TURN_BUCKETS_S
    )


@dataclass(slots=True)
class ProcessMetrics:
    """What runs here, and for how long its papers are good."""

    build: Labelled = gauges(
        "build_info", "Always 1; says what runs here.", "version", "python", "aioquic", "node", "region"
    )
    state: Labelled = gauges("state", "1 for the state the relay is in.", "state")
    certificate_expiry: Count = gauge(
        "certificate_expiry_timestamp_seconds", "When the certificate in use ends, in Unix time."
    )
    internal_errors: Count = counter(
        "internal_errors_total", "Errors of the relay's own; each ended the session that met it."
    )
    reload_ok: Labelled = gauges(
        "last_reload_successful", "1 where the last change of these files could be used, else 0.", "files"
    )


class Metrics:
    """One relay's numbers."""

    __slots__ = ("control", "media", "network", "process", "refreshers", "requests", "rooms", "sessions", "turns")

    def __init__(self) -> None:
        self.sessions = SessionMetrics()
        self.control = ControlMetrics()
        self.requests = RequestMetrics()
        self.media = MediaMetrics()
        self.rooms = RoomMetrics()
        self.network = NetworkMetrics()
        self.turns = TurnMetrics()
        self.process = ProcessMetrics()
        self.refreshers: list[Callable[[], None]] = []

    def snapshot(self) -> tuple[Sample, ...]:
        """All numbers now, after the refreshers have run; what it returns no longer changes."""
        for refresh in self.refreshers:
            refresh()
        own = (self.sessions, self.control, self.requests, self.media, self.rooms)
        return metering.snapshot((*own, self.network, self.turns, self.process))


def declarations() -> tuple[Declaration, ...]:
    """Every metric there is."""
    return tuple(sample.declaration for sample in Metrics().snapshot())
