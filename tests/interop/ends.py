"""Which relays a test's publishers and subscribers dial: one, or two that are neighbours; and proof that it is so."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.interop.relay_process import RelayProcess

Numbers = dict[str, float]


@dataclass(slots=True)
class Ends:
    """The relay of the publishers and that of the subscribers; in a test with one relay both are the same."""

    publishing: RelayProcess
    playing: RelayProcess
    _before: tuple[Numbers, Numbers] = field(init=False)

    def __post_init__(self) -> None:
        if self.are_two:
            self.begin()

    @property
    def are_two(self) -> bool:
        return self.publishing is not self.playing

    @property
    def relays(self) -> list[RelayProcess]:
        return [self.publishing, self.playing] if self.are_two else [self.publishing]

    def begin(self) -> None:
        """Count from here."""
        self._before = (self.publishing.metrics(), self.playing.metrics())

    def tail(self) -> str:
        """The ends of both logs."""
        return "\n-- relay\n".join(relay.tail() for relay in self.relays)

    def asked(self, request: str) -> tuple[float, float]:
        """How many requests of a kind either relay has received since `begin`, its neighbour's among them."""
        return self._since(f'requests_total{{request="{request}"}}')

    def objects(self) -> tuple[float, float]:
        """How many objects have come to either relay since `begin`."""
        return self._since("objects_received_total")

    def assert_crossed(self) -> None:
        """Objects came to the subscribers' relay, and the publishers' was asked for them, as only its neighbour may."""
        if self.are_two:
            assert self.asked("subscribe")[0] > 0, self.tail()
            assert self.objects()[1] > 0, self.tail()

    def _since(self, name: str) -> tuple[float, float]:
        (here, there), now = self._before, (self.publishing.metrics(), self.playing.metrics())
        return now[0].get(name, 0.0) - here.get(name, 0.0), now[1].get(name, 0.0) - there.get(name, 0.0)
