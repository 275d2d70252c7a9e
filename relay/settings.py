"""What each room is told of the relay's settings.

Rooms declare settings of their own, in their own words, so that a test can build one without the rest; this is the one
place that turns what an operator wrote into theirs. `relay.run` calls it at the start.
"""

from __future__ import annotations

from dataclasses import fields, replace

from relay.access import AccessSettings, Placement
from relay.config import Config
from relay.forwarding.book import ForwardingSettings
from relay.forwarding.cache import CacheLimits
from relay.limits import LimitSettings
from relay.placing import PlacingSettings
from relay.rooms.rates import RoomSettings
from tradewind.contract.rooms import Class
from tradewind.moqt.settings import SessionSettings
from tradewind.quic.config import Limits as QuicLimits
from tradewind.quic.config import QuicSettings


def quic_settings(config: Config) -> QuicSettings:
    """For `tradewind.quic.endpoint`; the certificate and `admit` are the caller's to add."""
    limits, quic = config.limits, config.quic
    return QuicSettings(
        protocols=protocol_names(config.relay.drafts),
        browser_protocols=tuple(
            name for name in protocol_names(config.relay.browser_drafts) if name in protocol_names(config.relay.drafts)
        ),
        webtransport=config.relay.webtransport,
        limits=QuicLimits(
            stream_window_bytes=quic.stream_window_bytes,
            session_window_bytes=quic.session_window_bytes,
            bidi_streams=quic.bidi_streams,
            uni_streams=quic.uni_streams,
            idle_timeout_s=quic.idle_timeout_s,
            handshake_timeout_s=quic.handshake_timeout_s,
            datagram_backlog_bytes=quic.datagram_backlog_bytes,
            pending_handshakes=limits.pending_handshakes,
            pending_handshakes_per_address=limits.pending_handshakes_per_address,
            retry_above_pending=limits.retry_threshold,
        ),
        max_datagram_size=quic.max_datagram_bytes,
        congestion_control=quic.congestion_control,
    )


def session_settings(config: Config) -> SessionSettings:
    """For `tradewind.moqt.session`."""
    return SessionSettings(
        setup_timeout_s=config.quic.handshake_timeout_s, max_requests=config.limits.requests_per_session
    )


def forwarding_settings(config: Config, hop: int = 0) -> ForwardingSettings:
    """For `relay.forwarding`; `hop` is our Hop ID, where we live in a mesh."""
    cache = config.cache
    return ForwardingSettings(
        cache=CacheLimits(
            total_bytes=cache.max_bytes,
            track_bytes=cache.max_bytes_per_track,
            track_groups=cache.max_groups,
            age_s=cache.max_age_s,
        ),
        hop=hop,
        linger_s=config.relay.linger_s,
        max_lag_s=config.slow_subscriber.max_lag_s,
        max_rendezvous_s=config.relay.rendezvous_max_s,
        max_tracks=config.limits.tracks,
    )


def room_settings(config: Config) -> RoomSettings:
    """For `relay.rooms`."""
    rooms = config.rooms
    return RoomSettings(
        room_per_s=rooms.messages_per_s,
        writer_per_s=rooms.messages_per_s_per_writer,
        max_body_bytes=rooms.max_body_bytes,
        follower_wait_s=rooms.follower_wait_s,
        lease_s=rooms.lease_s,
        needs_two=frozenset(int(Class[name.upper()]) for name in rooms.needs_two),
    )


def access_settings(config: Config) -> AccessSettings:
    """For `relay.access`; the keys are `tradewind.keys`' to read."""
    auth = config.auth
    return AccessSettings(
        paths=config.relay.paths,
        anonymous=config.relay.dev,
        public_publish=auth.public + auth.public_publish,
        public_subscribe=auth.public + auth.public_subscribe,
        placement=Placement(auth.placement),
        relay=config.node.id,
    )


def limit_settings(config: Config) -> LimitSettings:
    """For `relay.limits`: the settings that bear its names."""
    names = {field.name for field in fields(LimitSettings)}
    return replace(LimitSettings(), **{name: getattr(config.limits, name) for name in names})


def placing_settings(config: Config) -> PlacingSettings:
    """For `relay.placing`; key, locations and tables are the caller's to add."""
    return PlacingSettings(config.questions.per_s, config.questions.per_s_per_address)


def quirks(config: Config) -> frozenset[str]:
    """Which leniences sessions have."""
    return frozenset(config.relay.quirks)


def protocol_names(drafts: tuple[int, ...]) -> tuple[str, ...]:
    """ALPN and WebTransport names of drafts, in their order."""
    return tuple(f"moqt-{draft}" for draft in drafts)
