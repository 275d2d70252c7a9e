"""The relay's settings: one schema for the TOML file, the environment and the flags.

`RELAY` is that schema (`tradewind.settings` says how one is read); `python -m relay` loads it once. A field added below
has its key, variable, flag, check and docs by that alone:

    [cache] max_bytes = "512MiB"      TRADEWIND_CACHE__MAX_BYTES=512MiB      --cache.max_bytes 512MiB

What each room is told of this, `relay.settings` says. A change takes a restart, but for keys and certificates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tradewind.contract.ids import is_name
from tradewind.moqt.profiles import BROWSER_ORDER, NATIVE_ORDER, PROFILES
from tradewind.moqt.settings import ALL_QUIRKS
from tradewind.settings import values
from tradewind.settings.logs import LogSection
from tradewind.settings.schema import Problem, Schema, Written, setting
from tradewind.settings.values import Address

ALIASES = {
    "--listen": "relay.listen",
    "--dev": "relay.dev",
    "--drafts": "relay.drafts",
    "--ops": "ops.listen",
    "--cert": "tls.cert",
    "--key": "tls.key",
    "--auth-key": "auth.keys",
    "--public": "auth.public",
    "--log-level": "log.level",
}
"""Short flags for what is typed by hand."""

_MESH_NAME = r"([a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?)?"
_KNOWN_DRAFTS = tuple(sorted((profile.draft for profile in PROFILES.values()), reverse=True))
_NATIVE_DRAFTS = tuple(PROFILES[name].draft for name in NATIVE_ORDER)
_BROWSER_DRAFTS = tuple(PROFILES[name].draft for name in BROWSER_ORDER)


@dataclass(frozen=True, slots=True)
class NodeSection:
    """Who this relay is, in logs and metrics."""

    id: str = setting("relay-1", values.text("1 to 64 letters, digits, . _ -", r"[\w.-]{1,64}"), "This relay's name.")
    region: str = setting("local", values.text("1 to 64 letters, digits, . _ -", r"[\w.-]{1,64}"), "Where it runs.")
    state: str | None = setting(
        None,
        values.directory(),
        "Where it keeps what must outlive it, such as the key it places viewers with; none: a new key at every start.",
    )


@dataclass(frozen=True, slots=True)
class RelaySection:
    """What it offers, and where."""

    listen: tuple[Address, ...] = setting(
        (Address("0.0.0.0", 4443), Address("::", 4443)),  # noqa: S104 - a relay serves everybody
        values.addresses(),
        "UDP addresses; raw QUIC and WebTransport share each of them.",
        dev=(Address("127.0.0.1", 4443), Address("::1", 4443)),
    )
    dev: bool = setting(
        False, values.flag(), "Development: a certificate made here, everybody may do everything, loopback."
    )
    drafts: tuple[int, ...] = setting(
        _NATIVE_DRAFTS, values.drafts(_KNOWN_DRAFTS), "MoQT drafts offered, in order of preference."
    )
    browser_drafts: tuple[int, ...] = setting(
        _BROWSER_DRAFTS,
        values.drafts(_KNOWN_DRAFTS),
        "The order for browsers (requests with an Origin): today's players play on draft 16 only. Of these, only what "
        "`drafts` offers counts.",
    )
    webtransport: bool = setting(True, values.flag(), "Whether WebTransport (`h3`) is answered too.")
    paths: tuple[str, ...] = setting(
        (), values.texts('a list of paths such as "/live"'), "Paths that may be dialled, with what is below; none: all."
    )
    quirks: tuple[str, ...] = setting(
        tuple(sorted(ALL_QUIRKS)),
        values.choices(sorted(ALL_QUIRKS), f"names out of {', '.join(sorted(ALL_QUIRKS))}"),
        "Known faults of clients that are forgiven; each use is counted.",
    )
    linger_s: float = setting(
        5.0, values.duration(0, 300), "How long tracks outlive a publisher that is gone, so that it can come back."
    )
    rendezvous_max_s: float = setting(
        30.0, values.duration(0, 3600), "How long a subscription may wait for a publisher to appear."
    )


@dataclass(frozen=True, slots=True)
class OpsSection:
    """What operators and their tools talk to; unauthenticated, so keep it on loopback."""

    listen: Address | None = setting(
        Address("127.0.0.1", 9464), values.address_or_off(), "HTTP: /livez /readyz /metrics /state /version."
    )
    certificate_hash: bool = setting(
        True,
        values.flag(),
        "Serve /certificate.sha256 in plain HTTP on TCP, at the UDP port's number: players look there for the hash of "
        "a certificate that no authority signed.",
    )


@dataclass(frozen=True, slots=True)
class TlsSection:
    """Certificates; files are read again when they change."""

    cert: str | None = setting(None, values.file(), "PEM file: the certificate, then its chain.")
    key: str | None = setting(None, values.file(), "PEM file: its private key.")
    poll_s: float = setting(5.0, values.duration(0.1, 3600), "How often files are looked at for a change.")


@dataclass(frozen=True, slots=True)
class AuthSection:
    """Who may do what. Without keys and public paths nobody may do anything, unless in development."""

    keys: tuple[str, ...] = setting(
        (),
        values.texts("a list of files or directories"),
        "JWK or JWK set files, or directories of *.jwk and *.json: tokens are checked with these.",
    )
    public: tuple[str, ...] = setting(
        (), values.texts('a list of paths such as "demo"'), 'Paths that need no token, for both; "/" is everything.'
    )
    public_publish: tuple[str, ...] = setting(
        (), values.texts('a list of paths such as "demo"'), "Paths that may be published to without a token."
    )
    public_subscribe: tuple[str, ...] = setting(
        (), values.texts('a list of paths such as "demo"'), "Paths that may be read without a token."
    )
    placement: str = setting(
        "off",
        values.choice("off", "offered", "required"),
        "Placement tokens: not looked at; one that comes must be good; nobody without one, except neighbours.",
    )


@dataclass(frozen=True, slots=True)
class QuestionsSection:
    """Viewers asking where to go: `GET /v1/place`, answered from the last route table, beside /certificate.sha256."""

    answer: bool = setting(True, values.flag(), "Whether it is answered at all.")
    plain_http: bool = setting(
        False,
        values.flag(),
        "Take questions without TLS too: the access tokens in them can then be read on the way.",
        dev=True,
    )
    locations: str | None = setting(
        None,
        values.file(),
        "Where viewers are: a MaxMind database (.mmdb), or lines of PREFIX,COUNTRY,LATITUDE,LONGITUDE. None: unknown.",
    )
    per_s: float = setting(200.0, values.rate(), "Questions answered in a second, from everybody.")
    per_s_per_address: float = setting(
        10.0, values.rate(), "The same from one address (an IPv6 /64), with bursts of ten times as many."
    )


@dataclass(frozen=True, slots=True)
class LimitsSection:
    """How much anybody may have; 0 is no limit. An IPv6 address counts as its /64."""

    sessions: int = setting(4096, values.number(), "Sessions in all.")
    sessions_per_address: int = setting(256, values.number(), "Sessions of one address.", dev=0)
    sessions_per_token: int = setting(0, values.number(), "Sessions of one token.")
    subscriptions_per_session: int = setting(1024, values.number(), "Subscriptions and fetches of one session.")
    subscriptions_per_address: int = setting(0, values.number(), "The same of one address.")
    subscriptions_per_token: int = setting(0, values.number(), "The same of one token.")
    namespaces_per_session: int = setting(256, values.number(), "Namespaces published or asked for by one session.")
    namespaces_per_address: int = setting(0, values.number(), "The same by one address.")
    namespaces_per_token: int = setting(0, values.number(), "The same by one token.")
    bytes_per_s_per_session: int = setting(
        16 * 2**20, values.size(), "Bytes a second that one session may send us; more waits, nothing is lost."
    )
    bytes_per_s_per_address: int = setting(0, values.size(), "The same for one address.")
    bytes_per_s_per_token: int = setting(0, values.size(), "The same for one token.")
    tracks: int = setting(100_000, values.number(1), "Tracks known at once.")
    requests_per_session: int = setting(1024, values.number(1), "Requests that one session may have open.")
    pending_handshakes: int = setting(512, values.number(1), "Handshakes under way at once.")
    pending_handshakes_per_address: int = setting(64, values.number(1), "Handshakes under way from one address.", 512)
    retry_threshold: int = setting(
        64, values.number(), "Handshakes under way above which clients must first prove their address (Retry)."
    )


@dataclass(frozen=True, slots=True)
class QuicSection:
    """QUIC, for each connection."""

    stream_window_bytes: int = setting(256 * 2**10, values.size(16 * 2**10, 2**30), "Receive window of one stream.")
    session_window_bytes: int = setting(4 * 2**20, values.size(64 * 2**10, 2**30), "Receive window of a session.")
    bidi_streams: int = setting(128, values.number(1, 16_383), "Request streams that a client may have open.")
    uni_streams: int = setting(128, values.number(3, 16_383), "Data streams that a client may have open.")
    idle_timeout_s: float = setting(30.0, values.duration(1, 600), "Silence after which a connection is gone.")
    handshake_timeout_s: float = setting(10.0, values.duration(1, 60), "Time for a handshake.")
    max_datagram_bytes: int = setting(1232, values.size(1200, 16_000), "UDP payload of our packets.")
    congestion_control: str = setting(
        "rate",
        values.choice("rate", "cubic", "reno"),
        "How fast we send: rate measures what the path delivers and keeps to it, whatever is lost at random; cubic and "
        "reno halt at every loss.",
    )
    datagram_backlog_bytes: int = setting(
        256 * 2**10, values.size(1200, 2**30), "Datagrams that may wait for a slow peer; then the oldest are dropped."
    )


@dataclass(frozen=True, slots=True)
class CacheSection:
    """Groups kept for late joiners and fetches."""

    max_bytes: int = setting(512 * 2**20, values.size(2**20), "Of all tracks together.")
    max_bytes_per_track: int = setting(64 * 2**20, values.size(2**16), "Of one track.")
    max_groups: int = setting(32, values.number(1, 100_000), "Groups of one track.")
    max_age_s: float = setting(30.0, values.duration(0.1, 86_400), "Of a group that is not the current one.")


@dataclass(frozen=True, slots=True)
class SlowSubscriberSection:
    """Who cannot keep up skips to the newest group and stalls nobody else."""

    max_lag_s: float = setting(2.0, values.duration(0.05, 600), "How far behind a subscriber may fall before it skips.")


@dataclass(frozen=True, slots=True)
class TurnSection:
    """How long one turn may take before the socket is looked at again."""

    budget_s: float = setting(0.004, values.duration(0.0005, 1), "Time.")
    datagrams: int = setting(256, values.number(1, 65_536), "Datagrams.")
    handshakes: int = setting(8, values.number(1, 1024), "New handshakes.")


@dataclass(frozen=True, slots=True)
class DrainSection:
    """What SIGTERM does: GOAWAY, this time, then close."""

    grace_s: float = setting(10.0, values.duration(0, 86_400), "How long sessions may take to leave.", dev=2.0)


@dataclass(frozen=True, slots=True)
class RoomsSection:
    """Ordered messages that are written to disk before they are acknowledged: docs/rooms.md."""

    enabled: bool = setting(False, values.flag(), "Whether this relay takes part in rooms.", dev=True)
    path: str | None = setting(
        None,
        values.file(),
        "The file that has them, made where there is none; one process uses it at a time. Without it a file of this "
        "relay's own in the user's state directory; on a port of the kernel's choice one that goes with the relay.",
    )
    max_bytes: int = setting(0, values.size(), "How large the file may become; 0: as large as the disk is.")
    messages_per_s: int = setting(2000, values.number(1, 1_000_000), "Messages a second in one room.")
    messages_per_s_per_writer: int = setting(20, values.number(1, 1_000_000), "Messages a second of one writer.")
    max_body_bytes: int = setting(4096, values.size(1, 16_384), "The longest message.")
    follower_wait_s: float = setting(
        0.5, values.duration(0.01, 60), "How long an acknowledgement waits for the second copy before it says so."
    )
    lease_s: float = setting(
        2.0, values.duration(0.6, 60), "How long a home may acknowledge alone that hears nobody else."
    )
    needs_two: tuple[str, ...] = setting(
        (),
        values.choices(("control", "value", "voice", "crowd"), "names out of control, value, voice, crowd"),
        "Classes of messages that are refused while there is only one copy.",
    )


@dataclass(frozen=True, slots=True)
class MeshSection:
    """The mesh that this relay is part of; with a certificate its id and region come from there (`tradewind cert`)."""

    name: str = setting(
        "",
        values.text("1 to 40 of a-z, 0-9 and inner hyphens, or nothing", _MESH_NAME),
        "Its name; none: alone.",
    )
    ca: str | None = setting(None, values.file(), "PEM file: the mesh's authority, or the old one and the new one.")
    cert: str | None = setting(None, values.file(), "PEM file: this relay's certificate in the mesh.")
    key: str | None = setting(None, values.file(), "PEM file: its private key.")
    controllers: tuple[Address, ...] = setting(
        (),
        values.addresses(empty=True),
        "Controllers, any of which will do.",
    )
    state: str = setting("state", values.text("the path of a directory"), "Where the last route table is kept.")
    public_uri: str = setting(
        "", values.text("https://HOST:PORT, or nothing", r"(https://[^/\s]+)?"), "Where viewers reach this relay."
    )
    address: Address | None = setting(None, values.address_or_off(), "Where neighbours reach it; off: at public_uri.")
    capacity_bytes_per_s: int = setting(
        62_500_000, values.size(1), "Egress that this relay can take: what controllers reckon its load by."
    )
    neighbours: tuple[str, ...] = setting(
        (),
        values.texts('a list such as "fra-2=192.0.2.7:4443"'),
        "Relays to be neighbour of from the start, each of which must name this one too; a controller's table replaces "
        "them.",
    )


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of one relay, checked."""

    node: NodeSection = NodeSection()
    relay: RelaySection = RelaySection()
    mesh: MeshSection = MeshSection()
    ops: OpsSection = OpsSection()
    tls: TlsSection = TlsSection()
    auth: AuthSection = AuthSection()
    questions: QuestionsSection = QuestionsSection()
    limits: LimitsSection = LimitsSection()
    quic: QuicSection = QuicSection()
    cache: CacheSection = CacheSection()
    slow_subscriber: SlowSubscriberSection = SlowSubscriberSection()
    turn: TurnSection = TurnSection()
    drain: DrainSection = DrainSection()
    rooms: RoomsSection = RoomsSection()
    log: LogSection = LogSection()


def warnings(config: Config) -> list[str]:
    """What is allowed but deserves a second look."""
    said = []
    if config.ops.listen is not None and not config.ops.listen.is_loopback:
        said.append(f"ops.listen: {config.ops.listen} is open to others, and asks nobody who they are")
    if config.relay.dev and not all(address.is_loopback for address in config.relay.listen):
        said.append("relay.dev: everybody who reaches relay.listen may publish and subscribe")
    if not all(path.strip("/") for path in (*config.auth.public, *config.auth.public_publish)) and not config.relay.dev:
        said.append("auth.public: everybody may publish everywhere")
    return said


def _contradictions(config: Config, written: Mapping[str, Written]) -> Iterator[Problem]:
    """What no single value shows."""

    def where(*keys: str) -> str:
        return next((written[key].where for key in keys if key in written), "settings")

    tls, auth, cache = config.tls, config.auth, config.cache
    if bool(tls.cert) != bool(tls.key):
        missing = "tls.key" if tls.cert else "tls.cert"
        yield Problem(where("tls.cert", "tls.key"), missing, "expected too: a certificate and its key go together")
    elif not tls.cert and not config.relay.dev and not {"tls.cert", "tls.key"} & set(written):
        yield Problem("settings", "tls.cert", "expected a certificate and tls.key (or --dev, which makes its own)")
    somebody = auth.keys or auth.public or auth.public_publish or auth.public_subscribe or config.relay.dev
    if not somebody and not any(key.startswith("auth.") for key in written):
        yield Problem("settings", "auth.keys", "expected key files, or auth.public paths: nobody could do anything")
    yield from _mesh_contradictions(config, where)
    if cache.max_bytes_per_track > cache.max_bytes:
        keys = ("cache.max_bytes_per_track", "cache.max_bytes")
        yield Problem(where(*keys), keys[0], f"expected at most cache.max_bytes, which is {cache.max_bytes}")
    if not set(config.relay.browser_drafts) & set(config.relay.drafts):
        keys = ("relay.browser_drafts", "relay.drafts")
        yield Problem(where(*keys), keys[0], "expected at least one draft that relay.drafts offers")
    if config.quic.stream_window_bytes > config.quic.session_window_bytes:
        keys = ("quic.stream_window_bytes", "quic.session_window_bytes")
        yield Problem(where(*keys), keys[0], "expected at most quic.session_window_bytes")


def _mesh_contradictions(config: Config, where: Callable[..., str]) -> Iterator[Problem]:
    """A relay of a mesh has all of its papers and says where it is; one that is alone has none of it."""
    mesh = config.mesh
    papers = {"mesh.ca": mesh.ca, "mesh.cert": mesh.cert, "mesh.key": mesh.key}
    if not mesh.name:
        for name in ("ca", "cert", "key", "controllers", "neighbours"):
            if getattr(mesh, name):
                yield Problem(where(f"mesh.{name}"), "mesh.name", f"expected the mesh's name beside mesh.{name}")
                return
        return
    for key, value in papers.items():
        if not value:
            yield Problem(where("mesh.name"), key, "expected a PEM file; `tradewind cert` makes it")
    if not mesh.public_uri:
        yield Problem(where("mesh.name"), "mesh.public_uri", "expected where viewers reach this relay")
    for neighbour in mesh.neighbours:
        if parse_neighbour(neighbour) is None:
            yield Problem(where("mesh.neighbours"), "mesh.neighbours", f"expected ID=HOST:PORT, not {neighbour!r}")


def parse_neighbour(text: str) -> tuple[str, Address] | None:
    """A neighbour's id and where it is, from `ID=HOST:PORT`; None where it is not that."""
    id, _, address = text.partition("=")
    if not is_name(id):
        return None
    try:
        (found,) = values.addresses().read([address])
    except ValueError:
        return None
    return id, found


RELAY = Schema(Config, "python -m relay", "relay", ALIASES, _contradictions, dev="relay.dev")
