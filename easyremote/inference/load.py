"""How much a node has to do just now, as far as it can be known from afar. Pure."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from easyremote.topics.records import Heartbeat

__all__ = ["NodeLoad"]

_UNKNOWN_MS = 1.0
"""Cost of a call before any has been done, ms: the same for all nodes, so the fewest calls in flight decide."""
_NEWEST = 0.3
"""Weight of the newest heartbeat in what is learned from heartbeats: the last three or so count."""
_LANES_CALLS = 10
_LANES_MS = 2_000
"""How many calls and how much time it takes to say how many a node runs at once: calls end one by one."""
_DRIFT_MS = 1.0
"""By how much two machines' clocks may run apart from one heartbeat to the next, ms; some 2,000 ppm."""


class NodeLoad:
    """Estimates the calls in flight at one node between the moments at which the node itself tells them.

    A node tells its calls in flight by heartbeats, and by a header of each reply. Either was true when it was sent;
    to it are added the calls that were sent to the node since, and too late to be counted there. A sender that sees
    the replies to its calls learns from them what has ended since, and never believes in fewer calls in flight than
    those that it waits for. One that sees none takes off what the node has probably done since, by its learned cost,
    less what others sent it meanwhile.
    """

    __slots__ = (
        "_heard",
        "_last_beat",
        "_lead_ms",
        "_others_per_ms",
        "_sent",
        "_sent_before",
        "_taken_ms",
        "_waited_for",
        "_window_ms",
        "_worked_ms",
        "drain",
        "each_ms",
        "lanes",
        "then_ms",
        "wait_then_ms",
    )

    def __init__(self) -> None:
        self.each_ms = _UNKNOWN_MS
        """By how much a call in flight puts off the next one, ms: the mean cost over all functions, by lanes."""
        self.lanes = 1.0
        """How many calls the node has been seen to run at once, at least 1."""
        self.wait_then_ms = 0.0
        """How long a call sent at `then_ms` waits, ms."""
        self.then_ms = 0.0
        self.drain = 0.0
        """By how many ms the wait shrinks each ms; 0 while costs are unknown, and where replies tell it."""
        self._sent: deque[float] = deque()
        """When calls were sent that no word of the node counts yet."""
        self._sent_before = 0
        """How many were sent since the heartbeat before and are counted by the last one."""
        self._waited_for = 0
        self._heard = False
        self._taken_ms = float("-inf")
        self._lead_ms = float("inf")
        """The least that a heartbeat took, by the difference of two clocks, ms."""
        self._last_beat: Heartbeat | None = None
        self._worked_ms = 0.0
        self._window_ms = 0.0
        self._others_per_ms = 0.0

    def wait_ms(self, now_ms: float) -> float:
        """Return how long a call that is sent now waits until it is begun, ms."""
        wait = self.wait_then_ms - (now_ms - self.then_ms) * self.drain
        return max(0.0, wait)

    def in_flight(self, now_ms: float) -> int:
        """Return the calls in flight: a call that runs is one until it has ended."""
        return -int(-self.wait_ms(now_ms) // self.each_ms)

    def assume(self, each_ms: float) -> None:
        """Count on a cost that is the other nodes', ms; what is in flight stays."""
        self.wait_then_ms *= each_ms / self.each_ms
        self.each_ms = each_ms

    def sent(self, now_ms: float) -> None:
        """Count a call that is sent to the node."""
        wait = self.wait_then_ms - (now_ms - self.then_ms) * self.drain
        self.wait_then_ms = max(0.0, wait) + self.each_ms
        self.then_ms = now_ms
        self._sent.append(now_ms)
        self._waited_for += 1

    def replied(self, now_ms: float, in_flight: int | None, round_trip_ms: float) -> None:
        """Take in a reply to a call that was sent from here; `in_flight` is what its node said with it."""
        # Of what others send, as much comes as ends until the next reply: this errs less than counting on either.
        self._heard, self.drain = True, 0.0
        self._waited_for = max(0, self._waited_for - 1)
        if in_flight is None:
            self.wait_then_ms = max(self.wait_then_ms - self.each_ms, self._waited_for * self.each_ms)
            self.then_ms = now_ms
        else:
            self._take(in_flight, now_ms - round_trip_ms, now_ms)

    def beat(self, heartbeat: Heartbeat, now_ms: float, round_trip_ms: float) -> None:
        """Take a heartbeat in.

        Parameters
        ----------
        heartbeat : Heartbeat
            As it came.
        now_ms : float
            When it came, ms.
        round_trip_ms : float
            What a call and its reply spend on their way, ms: calls sent less than this before the heartbeat was sent
            came to the node after it.
        """
        lead_ms = now_ms - heartbeat.sent_ms
        # The clocks' difference is in every heartbeat, so what one took longer than the quickest was its delay.
        self._lead_ms = min(self._lead_ms + _DRIFT_MS, lead_ms)
        taken_ms = now_ms - (lead_ms - self._lead_ms) - round_trip_ms
        self._forget_before(taken_ms)
        self._learn(heartbeat)
        self._last_beat = heartbeat
        if taken_ms >= self._taken_ms:
            self._take(heartbeat.in_flight, taken_ms, now_ms)

    def _take(self, in_flight: int, taken_ms: float, now_ms: float) -> None:
        # What the node said replaces what was counted; calls sent too late to be in it are added.
        self._taken_ms = taken_ms
        self._forget_before(taken_ms)
        since = len(self._sent)
        known = in_flight + since
        self._waited_for = min(self._waited_for, known)  # their replies went lost, or came from another node
        wait = known * self.each_ms - (now_ms - taken_ms) * self.drain
        if since:
            wait = max(wait, self.each_ms - (now_ms - self._sent[-1]) * self.drain)
        if self._heard:
            wait = max(wait, self._waited_for * self.each_ms)
        self.wait_then_ms = max(0.0, wait)
        self.then_ms = now_ms

    def _forget_before(self, taken_ms: float) -> None:
        sent = self._sent
        while sent and sent[0] <= taken_ms:
            sent.popleft()
            self._sent_before += 1

    def _learn(self, beat: Heartbeat) -> None:
        last = self._last_beat
        if last is None or beat.total_requests < last.total_requests or beat.sent_ms <= last.sent_ms:
            # The first one, or the node was started again.
            self.each_ms = _mean(beat) or self.each_ms
            self._others_per_ms = 0.0
        else:
            passed_ms = beat.sent_ms - last.sent_ms
            done = beat.total_requests - last.total_requests
            worked_ms = 1_000 * (
                beat.mean_response_s * beat.total_requests - last.mean_response_s * last.total_requests
            )
            self._watch_lanes(worked_ms, passed_ms)
            if done > 0 and worked_ms > 0:
                newest_ms = worked_ms / done / self.lanes
                self.each_ms = _towards(self.each_ms, newest_ms, _NEWEST if last.cost_ms else 1.0)
            others = max(0, done + beat.in_flight - last.in_flight - self._sent_before)
            self._others_per_ms = _towards(self._others_per_ms, others / passed_ms)
        self._sent_before = 0
        if beat.cost_ms and not self._heard:
            self.drain = max(0.0, 1.0 - self._others_per_ms * self.each_ms)

    def _watch_lanes(self, worked_ms: float, passed_ms: float) -> None:
        self._worked_ms += worked_ms
        self._window_ms += passed_ms
        if self._window_ms >= max(_LANES_MS, _LANES_CALLS * self.each_ms * self.lanes):
            busy = self._worked_ms / self._window_ms
            self.lanes = max(1.0, busy, _towards(self.lanes, busy, 0.1))
            self._worked_ms = self._window_ms = 0.0


def _mean(beat: Heartbeat) -> float:
    if beat.mean_response_s > 0:
        return beat.mean_response_s * 1_000
    return sum(beat.cost_ms.values()) / max(1, len(beat.cost_ms))


def _towards(known: float, newest: float, weight: float = _NEWEST) -> float:
    return known + weight * (newest - known)
