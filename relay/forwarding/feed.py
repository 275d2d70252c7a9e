"""What feeds one track: the requests that bring it, and what is known of each.

`track` reads from it while objects come; `asking`, `sources`, `moving` and `several` decide who is in it.
"""

from __future__ import annotations

from relay.forwarding.routes import Party, Way
from tradewind.moqt.model import Location


class Source:
    """One upstream subscription, or one PUBLISH, that feeds the track."""

    __slots__ = ("claim", "done", "doubles", "established_at", "forward", "inherits", "is_stranger",
                 "last_at", "party", "published", "streams_closed", "streams_open", "succeeds", "way")  # fmt: skip

    def __init__(self, party: Party, *, published: bool, forward: bool, way: Way | None = None, claim: int = 0) -> None:
        self.party = party
        self.way = way
        """By which way a neighbour had it when we asked; None: a publisher here."""
        self.claim = claim
        """The rank that we said we would not go below: see `ranks`."""
        self.doubles = False
        """It sends what another sends too, while that one's link is suspect."""
        self.succeeds: Location | None = None
        """It takes the place of others once it has reached this."""
        self.is_stranger = False
        """It is by a neighbour, and from a publisher that the track has not come from before."""
        self.published = published
        """It came as a PUBLISH of theirs, not as a SUBSCRIBE of ours."""
        self.established_at: float | None = None
        self.last_at = float("-inf")
        """When it last began an object."""
        self.forward = forward
        self.inherits = False
        """Others fed the track before it."""
        self.streams_open = 0
        self.streams_closed = 0
        self.done: tuple[int, int | None, str] | None = None
        """Status, stream count and reason of its PUBLISH_DONE."""

    @property
    def established(self) -> bool:
        return self.established_at is not None

    @property
    def is_live(self) -> bool:
        """Established, and PUBLISH_DONE has not come: it may be asked for something else."""
        return self.established and self.done is None


class Feed(dict[Party, Source]):
    """Request -> source. Put in with `add`, taken out one by one."""

    __slots__ = ("_publishers", "wished_group")

    def __init__(self) -> None:
        super().__init__()
        self._publishers: set[int | None] = set()
        """Hop IDs of all that it has come from; None: publishers here."""
        self.wished_group: tuple[int, int] | None = None
        """The NEW_GROUP_REQUEST that is outstanding upstream, and the largest group when it was sent."""

    def add(self, source: Source) -> None:
        """A SUBSCRIBE of ours, or a PUBLISH of theirs, that is to feed the track."""
        self[source.party] = source
        publisher = None if source.way is None else source.way.publisher
        source.is_stranger = publisher not in self._publishers
        self._publishers.add(publisher)

    def is_reborn(self, source: Source) -> bool:
        """Whether a source took over from others of which none has sent anything since.

        From the same publisher, by another way, there is no new life.
        """
        since = source.established_at
        return (
            (source.way is None or source.is_stranger)
            and source.inherits
            and since is not None
            and all(other is source or other.last_at < since for other in self.values())
        )
