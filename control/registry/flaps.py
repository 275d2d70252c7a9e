"""Links that were bad: each time they come back they are held down for longer, so that nothing follows their flapping.

`registry` feeds this with both ends' views of a directed link and asks which may be used. Links that were never bad
cost nothing here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from control.registry.values import NEVER, Event, EventKind, RegistrySettings

UNUSABLE = ("bad", "probation")
"""States of a link that nothing is sent over."""


@dataclass(slots=True)
class _Trouble:
    """A directed link that was bad and is not forgiven: when each end last called it bad, or not usable."""

    bad: dict[str, float] = field(default_factory=dict)
    unusable: dict[str, float] = field(default_factory=dict)
    flaps: int = 0
    down: bool = False
    held_until: float = NEVER
    flapped_at: float = NEVER
    out: bool = False
    """What was told last: that it may not be used."""

    def unfit(self, now: float) -> bool:
        return self.down or bool(self.unusable) or now < self.held_until


class Flaps:
    """Every directed link, as (sender, receiver), that is or lately was unusable."""

    __slots__ = ("_settings", "_troubles")

    def __init__(self, settings: RegistrySettings) -> None:
        self._settings = settings
        self._troubles: dict[tuple[str, str], _Trouble] = {}

    def __len__(self) -> int:
        return len(self._troubles)

    def usable(self, link: tuple[str, str]) -> bool:
        """Whether both ends are content with it and it is not held, as events told."""
        trouble = self._troubles.get(link)
        return trouble is None or not trouble.out

    def receive(self, link: tuple[str, str], end: str, state: str, now: float) -> Iterator[Event]:
        """One end, by its id, calls a directed link so."""
        trouble = self._troubles.get(link)
        if trouble is None:
            if state not in UNUSABLE:
                return
            trouble = self._troubles[link] = _Trouble()
        for views, counts in ((trouble.bad, state == "bad"), (trouble.unusable, state in UNUSABLE)):
            if counts:
                views[end] = now
            else:
                views.pop(end, None)
        self._follow(trouble, now)
        yield from self._tell(link, trouble, now)

    def release(self, now: float) -> Iterator[Event]:
        """Links whose hold is over. Views that nobody repeats are dropped, and old troubles forgiven."""
        for link, trouble in list(self._troubles.items()):
            for views in (trouble.bad, trouble.unusable):
                for end in [end for end, at in views.items() if now - at >= self._settings.forget_s]:
                    del views[end]
            self._follow(trouble, now)
            yield from self._tell(link, trouble, now)
            forgiven = now - trouble.flapped_at >= self._settings.flap_forgiven_s * trouble.flaps
            if forgiven and not trouble.out:
                del self._troubles[link]

    def next_release(self, now: float) -> float | None:
        """When the next hold is over."""
        held = (t.held_until for t in self._troubles.values() if not t.down and t.held_until > now)
        return min(held, default=None)

    def forget(self, relay: str) -> None:
        """Nothing that was said of this relay's links counts any more."""
        for link in [link for link in self._troubles if relay in link]:
            del self._troubles[link]

    def links(self) -> tuple[tuple[str, str], ...]:
        """All that are not forgiven."""
        return tuple(self._troubles)

    def check_invariants(self) -> None:
        """Raise AssertionError where the books do not agree."""
        for link, trouble in self._troubles.items():
            assert trouble.down == bool(trouble.bad), link
            assert set(trouble.bad) <= set(trouble.unusable) <= set(link), link
            assert trouble.flaps >= (1 if trouble.down else 0), link

    @staticmethod
    def _tell(link: tuple[str, str], trouble: _Trouble, now: float) -> Iterator[Event]:
        if trouble.out != trouble.unfit(now):
            trouble.out = not trouble.out
            yield Event(EventKind.LINK_DOWN if trouble.out else EventKind.LINK_UP, *link)

    def _follow(self, trouble: _Trouble, now: float) -> None:
        """Count a flap when a link goes bad, and hold it when it stops being so."""
        down = bool(trouble.bad)
        if down and not trouble.down:
            forgiven = int((now - trouble.flapped_at) // self._settings.flap_forgiven_s) if trouble.flaps else 0
            trouble.flaps = max(0, trouble.flaps - forgiven) + 1
            trouble.flapped_at = now
        elif trouble.down and not down:
            doubled = self._settings.hold_first_s * 2.0 ** min(trouble.flaps - 1, 32)
            trouble.held_until = now + min(self._settings.hold_most_s, doubled)
        trouble.down = down
