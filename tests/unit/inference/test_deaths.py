"""Who is to blame for the deaths of processes: always the killer, soon, and never one that was caught with it."""

from __future__ import annotations

from collections import deque

from easyremote.inference.deaths import Deaths
from easyremote.inference.quarantine import Quarantine
from hypothesis import given
from hypothesis import strategies as st

KILLER = "killer"
MOST_DEATHS = 20
MOST_TIME = 10_000
"""Far above what any of these lives takes: so that one that does not end fails."""


class Lives:
    """Processes one after another which take the calls that are not done; one call ends each that it runs in."""

    def __init__(self, calls: list[str], lasts: dict[str, int]) -> None:
        self.open = deque(calls)
        self.deaths = Deaths()
        self.blamed: list[str] = []
        self.kills = 0
        self._lasts = lasts
        self._untold: list[tuple[str, frozenset[str]]] = []

    def live(self) -> bool:
        """Run until all is done, or until the killer has run; say whether it killed."""
        quarantine: Quarantine[str] = Quarantine()
        ends: dict[str, int] = {}
        for call in list(self.open):
            if self.deaths.is_to_blame(call):
                self.blamed.append(call)
                self.open.remove(call)
            elif self.deaths.of(call):
                quarantine.put(call, self.deaths.company_of(call), self.deaths.of(call))
            else:
                ends[call] = self._lasts[call]
        for now in range(MOST_TIME):
            while (suspect := quarantine.next(0.0)) is not None:
                ends[suspect] = now + self._lasts[suspect]
            if ends.get(KILLER) == now:
                self.kills += 1
                assert self.kills <= MOST_DEATHS, "it kills for ever"
                self._untold.append((f"death {self.kills}", frozenset(ends)))
                return True
            for call in [one for one, end in ends.items() if end == now]:
                del ends[call]
                quarantine.end(call)
                self.open.remove(call)
            if not ends and not quarantine.holds_any:
                return False
        raise AssertionError("suspects wait for ever")

    def tell(self) -> None:
        """Make known what was under way at the deaths so far."""
        for death, calls in self._untold:
            for call in calls:
                self.deaths.add(call.encode(), death, len(calls))
        self._untold.clear()


@st.composite
def crowds(draw: st.DrawFn, most: int) -> Lives:
    """Return up to so many calls, one of them the killer, each with its own time to its end."""
    innocent = [f"call {number}" for number in range(draw(st.integers(0, most - 1)))]
    calls = draw(st.permutations([*innocent, KILLER]))
    return Lives(calls, {call: draw(st.integers(1, 5)) for call in calls})


def _all_but_the_killer_are_done(lives: Lives) -> bool:
    return lives.blamed == [KILLER] and not lives.open


@given(crowds(most=250))
def test_a_killer_among_many_is_blamed_after_three_deaths_at_most_and_nobody_else(lives: Lives) -> None:
    while lives.live():
        lives.tell()
    assert _all_but_the_killer_are_done(lives)
    assert lives.kills <= 3


@given(crowds(most=100))
def test_a_killer_among_up_to_a_hundred_is_blamed_after_two_deaths(lives: Lives) -> None:
    while lives.live():
        lives.tell()
    assert _all_but_the_killer_are_done(lives)
    assert lives.kills == 2


@given(crowds(most=40), st.integers(1, 4), st.integers(0, 20))
def test_deaths_that_are_told_late_cost_the_innocent_nothing(lives: Lives, untold: int, fresh: int) -> None:
    for _ in range(untold):
        assert lives.live()
    lives.tell()
    for number in range(fresh):
        lives.open.appendleft(f"fresh {number}")
        lives._lasts[f"fresh {number}"] = 3
    while lives.live():
        lives.tell()
    assert _all_but_the_killer_are_done(lives)
    assert lives.kills <= untold + 2


def test_nobody_is_blamed_for_a_death_that_is_told_in_part() -> None:
    deaths = Deaths()
    deaths.add(b"good", "first", calls=2)
    deaths.add(b"good", "second", calls=1)
    assert not deaths.is_to_blame("good")
    deaths.add(b"bad", "first", calls=2)
    assert deaths.is_to_blame("good")  # alone at the second: no other call explains both


def test_a_death_told_twice_is_one() -> None:
    deaths = Deaths()
    for _ in range(2):
        deaths.add(b"call", "first", calls=1)
    assert (deaths.of("call"), deaths.is_to_blame("call")) == (1, False)


def test_the_oldest_deaths_are_forgotten_whole() -> None:
    deaths = Deaths(max_calls=3)
    for death in ("first", "second"):
        for call in (b"a", b"b"):
            deaths.add(call, death, calls=2)
    assert deaths.of("a") == deaths.of("b") == 1


def test_a_death_that_names_more_calls_than_it_counts_lets_them_run_all_the_same() -> None:
    deaths = Deaths()
    deaths.add(b"call", "first", calls=0)
    assert deaths.company_of("call") == 1
