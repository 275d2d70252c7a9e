"""What relays, controllers and neighbours say to each other: frozen values, no behaviour.

`codec` turns them into bytes and back, and refuses what does not fit these types and bounds. Times are wall seconds
where a name says `wall`, durations are in the unit of their name; ratios are 0 to 1. Who sends which:

    relay -> controller     Hello, Report, Done, Answer
    controller -> relay     Welcome, SignedTable, PackedTable, TableDelta, Command, Question
    relay <-> relay         LinkHello, Received (on a link, see `relay.links`)
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

Name: TypeAlias = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?\Z")]
"""The id of a node, or a region: see `ids.is_name`."""
Text: TypeAlias = Annotated[str, Meta(max_length=512)]
Ratio: TypeAlias = Annotated[float, Meta(ge=0.0, le=1.0)]
Amount: TypeAlias = Annotated[float, Meta(ge=0.0, le=1e15)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]
HopId: TypeAlias = Annotated[int, Meta(ge=0, le=2**62 - 1)]
"""MoQ Cluster, "Hop IDs": see `ids.hop_id`."""
Field: TypeAlias = Annotated[bytes, Meta(max_length=4096)]
NamespaceFields: TypeAlias = Annotated[tuple[Field, ...], Meta(max_length=32)]
StageName: TypeAlias = Literal["serving", "cordoned", "draining", "empty"]
StateName: TypeAlias = Literal["up", "suspect", "bad", "probation"]
PlacementKey: TypeAlias = Annotated[bytes, Meta(max_length=32)]
"""A relay's public Ed25519 key for placement tokens, whose `kid` is the relay's id; empty: it signs none."""
Score: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]
PUBLISHER = "publisher"
"""The source of a namespace at the relay that has its publisher's session."""
MAX_STREAMS = 256
"""Namespaces of which a report tells more than their names."""


class Message(Struct, frozen=True, forbid_unknown_fields=True, tag_field="t"):
    """What every message has: a tag that says which it is, and no field that its type does not know."""


class Part(Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What messages are made of. A controller has a million of these, and none of them is ever part of a circle."""


# --- Relay to controller ---


class Hello(Message, frozen=True, tag="hello"):
    """A relay's first words after it has proven who it is."""

    boot: Annotated[bytes, Meta(min_length=16, max_length=16)]
    """Thrown anew at every start: two relays with one id have two of these."""
    uri: Text
    """Where viewers reach it: https://host:port, without a path."""
    address: tuple[Text, Annotated[int, Meta(ge=1, le=65535)]]
    """Where neighbours reach it: host and UDP port."""
    software: Text
    generation: Count
    """Of the route table that it has; 0: none."""
    capacity_bytes_per_s: Amount
    """Egress that it can take."""
    capacity_sessions: Count
    placement_key: PlacementKey = b""
    """What it signs placement tokens with while no controller answers."""


class LinkReport(Part, frozen=True):
    """A link to `neighbour`: the direction from there to here as this end measured it, and what it knows of the other.

    Controllers hold each end's view of a direction against the other's and take the worse of the two.
    """

    neighbour: Name
    state: StateName
    rtt_ms: Amount
    """Smoothed; the smaller of the two directions' delay is not known, clocks differ."""
    jitter_ms: Amount
    """95th percentile of one-way delay variation."""
    loss_ratio: Ratio
    """Over the last 3 s."""
    carried_bytes_per_s: Amount
    away_state: StateName = "up"
    """Of the direction from here to `neighbour`, as the packets that left here were answered."""
    away_loss_ratio: Ratio = 0.0
    """Of those packets, over the last 3 s."""


class Origin(Part, frozen=True):
    """A namespace whose publisher has its session here."""

    namespace: NamespaceFields
    hop: HopId
    """The publisher's Hop ID: the same in every session epoch of one publisher."""


class Override(Part, frozen=True):
    """A relay goes another way than its route table says."""

    origin: Name
    """The relay that the way leads to."""
    instead_of: Name
    next_hop: Name
    cause: Text
    since_wall: Amount


class RoomReport(Part, frozen=True):
    """What a relay holds of a room: only who is whole in an epoch may be named as home of the next."""

    room: NamespaceFields
    epoch: Count
    """The newest that it has promised to keep to."""
    whole: Count
    """The newest epoch of which it has every record that was acknowledged as stored twice."""
    records: Count
    writing: bool
    """It is the home and takes messages."""


class StreamReport(Part, frozen=True):
    """A namespace at one relay: where it comes from, and what becomes of it there."""

    namespace: NamespaceFields
    source: Annotated[str, Meta(max_length=40)]
    """`PUBLISHER`, or the neighbour that it comes from; empty: nobody feeds it now."""
    tracks: Count
    subscribers: Count
    """Sessions that subscribe to any of them; neighbours are not counted."""
    bytes_per_s: Amount
    """Payload that comes in, copies included."""


class Report(Message, frozen=True, tag="report"):
    """What a relay tells every second, and at once when a link or its stage changes. Whole, never a difference."""

    sequence: Count
    stage: StageName
    load: Ratio
    """The highest of what it has used up: egress, processor, sessions."""
    sessions: Count
    egress_bytes_per_s: Amount
    cpu_ratio: Amount
    loop_lag_ms: Amount
    generation: Count
    links: Annotated[tuple[LinkReport, ...], Meta(max_length=64)] = ()
    origins: Annotated[tuple[Origin, ...], Meta(max_length=20_000)] = ()
    carried: Annotated[tuple[NamespaceFields, ...], Meta(max_length=20_000)] = ()
    """Namespaces of which it carries a track, its own origins left out."""
    overrides: Annotated[tuple[Override, ...], Meta(max_length=1024)] = ()
    rooms: Annotated[tuple[RoomReport, ...], Meta(max_length=20_000)] = ()
    overstayed: Count = 0
    """Sessions since its start that were asked to move, did not, and were closed when a drain was over."""
    tracks: Count = 0
    """All that it knows."""
    streams: Annotated[tuple[StreamReport, ...], Meta(max_length=MAX_STREAMS)] | None = None
    """The busiest namespaces, its own origins among them. None: as it said last; many are not told every second."""
    streams_more: Count = 0
    """How many others there are."""
    tables_refused: Count = 0
    """Route tables since its start that were not what they had to be: it goes by the last good one."""
    table_refused: Text = ""
    """Why the last of them was not taken."""


class Done(Message, frozen=True, tag="done"):
    """What became of a command. The same command again gets the same answer."""

    command: Text
    ok: bool
    detail: Text = ""


class Answer(Message, frozen=True, tag="answer"):
    """To a question: JSON text, made for people and scripts, bounded by the asker."""

    question: Count
    body: Annotated[str, Meta(max_length=4_000_000)]


# --- Controller to relay ---


class Welcome(Message, frozen=True, tag="welcome"):
    """A controller has taken the relay in, or says why not and closes."""

    controller: Name
    refused: Text = ""
    report_every_ms: Count = 1000


class RelayEntry(Part, frozen=True):
    """One relay, as everybody in the mesh knows it."""

    id: Name
    region: Name
    uri: Text
    address: tuple[Text, Annotated[int, Meta(ge=1, le=65535)]]
    stage: StageName
    load: Ratio
    headroom_sessions: Count
    latitude: Annotated[float, Meta(ge=-90.0, le=90.0)] = 0.0
    longitude: Annotated[float, Meta(ge=-180.0, le=180.0)] = 0.0
    placement_key: PlacementKey = b""


class Candidate(Part, frozen=True):
    """One way to an origin: who to ask, who is asked behind it, and what it was worth when it was chosen."""

    next_hop: Name
    through: Annotated[tuple[Name, ...], Meta(max_length=2)] = ()
    """Relays between the next hop and the origin: with the next hop at most two in all."""
    cost_ms: Amount = 0.0
    loss_ratio: Ratio = 0.0


class Route(Part, frozen=True):
    """Where to go for what lives at `origin`, in order."""

    origin: Name
    candidates: Annotated[tuple[Candidate, ...], Meta(max_length=3)]


class RoomEntry(Part, frozen=True):
    """Who orders a room, who keeps its second copy, and in which life of it."""

    room: NamespaceFields
    home: Name
    follower: Annotated[str, Meta(max_length=40)] = ""
    """Empty: nobody yet."""
    epoch: Count = 1
    """One higher with every change of home or follower."""
    base: Count | None = None
    """The home must be whole in this epoch before it opens its own. None: the one before. 0: the room is new, or an
    operator goes on with what is left of it."""


class MarketEntry(Part, frozen=True):
    """From which regions a country's viewers are served. A country without an entry has that of "*"."""

    country: Annotated[str, Meta(pattern=r"^([A-Z]{2}|\*|\?\?)\Z")]
    """ISO 3166-1 alpha-2; "??": viewers of whom nobody knows where they are."""
    regions: Annotated[tuple[Name, ...], Meta(max_length=256)]
    """Best first; none: nobody there is served."""


class RouteTable(Message, frozen=True, tag="table"):
    """Everything a relay needs to go on alone: made for one relay, whole, signed (`SignedTable`)."""

    mesh: Name
    relay: Name
    """Whom it is for."""
    term: Count
    """Of the controllers' writer: a table of an older term is never taken."""
    generation: Count
    """Grows by one with every table of a term."""
    issued_wall: Amount
    neighbours: Annotated[tuple[Name, ...], Meta(max_length=32)]
    """Whom to measure."""
    relays: Annotated[tuple[RelayEntry, ...], Meta(max_length=2048)]
    routes: Annotated[tuple[Route, ...], Meta(max_length=2048)]
    rooms: Annotated[tuple[RoomEntry, ...], Meta(max_length=20_000)] = ()
    placement_keys: Annotated[tuple[Text, ...], Meta(max_length=16)] = ()
    """Public JWKs that placement tokens are checked with, as JSON text."""
    markets: Annotated[tuple[MarketEntry, ...], Meta(max_length=512)] = ()
    """None: everybody is served from everywhere."""


class SignedTable(Message, frozen=True, tag="signed"):
    """A route table as its controller signed it: see `identity.sign_table`."""

    table: Annotated[bytes, Meta(max_length=8_000_000)]
    """The bytes of one `RouteTable`."""
    certificate: Annotated[bytes, Meta(max_length=8192)]
    """The controller's, DER."""
    signature: Annotated[bytes, Meta(max_length=512)]


class PackedTable(Message, frozen=True, tag="packed"):
    """A `SignedTable` whose bytes come in pieces, each deflated (RFC 1950) by itself: see `tables.unpack`.

    What many relays' tables have in common is deflated once for all of them.
    """

    pieces: Annotated[tuple[Annotated[bytes, Meta(max_length=8_000_000)], ...], Meta(max_length=16)]
    certificate: Annotated[bytes, Meta(max_length=8192)]
    signature: Annotated[bytes, Meta(max_length=512)]


class TableDelta(Message, frozen=True, tag="delta"):
    """What changed since generation `since`; the result is the table whose bytes `signed.table` would hold.

    Replaces by key and removes by key; the receiver builds the table, encodes it and checks `signature` over those
    bytes: a delta that was applied to something else does not verify, and the whole table comes within 10 s.
    """

    since: Count
    term: Count
    generation: Count
    issued_wall: Amount
    certificate: Annotated[bytes, Meta(max_length=8192)]
    signature: Annotated[bytes, Meta(max_length=512)]
    neighbours: Annotated[tuple[Name, ...], Meta(max_length=32)] | None = None
    relays: Annotated[tuple[RelayEntry, ...], Meta(max_length=2048)] = ()
    relays_gone: Annotated[tuple[Name, ...], Meta(max_length=2048)] = ()
    routes: Annotated[tuple[Route, ...], Meta(max_length=2048)] = ()
    routes_gone: Annotated[tuple[Name, ...], Meta(max_length=2048)] = ()
    rooms: Annotated[tuple[RoomEntry, ...], Meta(max_length=20_000)] = ()
    rooms_gone: Annotated[tuple[NamespaceFields, ...], Meta(max_length=20_000)] = ()
    placement_keys: Annotated[tuple[Text, ...], Meta(max_length=16)] | None = None
    markets: Annotated[tuple[MarketEntry, ...], Meta(max_length=512)] | None = None


class Command(Message, frozen=True, tag="command"):
    """Something an operator, or the plane, wants done. Done once for each id, however often it is sent."""

    id: Text
    action: Literal["drain", "undrain", "cordon", "uncordon", "kick"]
    deadline_s: Amount = 0.0
    """drain: by when everybody has gone."""
    session: Count = 0
    """kick: which."""
    reason: Text = ""


class Question(Message, frozen=True, tag="question"):
    """Something an operator wants to see of one relay."""

    id: Count
    what: Literal["sessions", "tracks", "links", "rooms", "state", "streams"]
    limit: Annotated[int, Meta(ge=1, le=10_000)] = 1000
    match: Text = ""
    """Only what contains this text."""
    after: Count | None = None
    """sessions: those with higher ids, in pages (`{"sessions": [...], "next": 17, "total": 4096}`); None: a list."""
    namespace: NamespaceFields = ()
    """sessions: those that publish or subscribe to something beneath it; streams: this one."""


# --- Relay to relay ---


class LinkHello(Message, frozen=True, tag="link"):
    """Both ends of a link say once, after identities are proven, which life of theirs this is."""

    boot: Annotated[bytes, Meta(min_length=16, max_length=16)]
    ticket: Annotated[bytes, Meta(min_length=32, max_length=32)]
    """What the other shows when it opens a MoQT session to us: good for this connection's life."""


class Received(Message, frozen=True, tag="received"):
    """Every 100 ms: what came of what the other sent. Counts are since the link began, so a lost one costs nothing."""

    highest: Count
    """Highest probe number seen."""
    probes: Count
    """Probes that came."""
    lost: Count
    """Packets of any connection from there to here that are known not to have come."""
    arrived: Count
    """Those that did."""
    state: StateName
    """What this end makes of the direction towards it."""
    loss_ratio: Ratio
    """Over 3 s, towards this end."""
    echo: Count
    """The number of the last probe seen, and how long it waited here for this message, in microseconds."""
    waited_us: Count
    lag_us: Count
    """This end's own lateness in the last 100 ms: the other takes it off what it blames the link for."""
    leaving: bool = False
    """This end is being emptied: take no more from it than has to be, and what comes from it elsewhere."""


ToController: TypeAlias = Hello | Report | Done | Answer
ToRelay: TypeAlias = Welcome | SignedTable | PackedTable | TableDelta | Command | Question
OnLink: TypeAlias = LinkHello | Received
