"""What a run does: how long, how much, with which settings, and what is left out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

WINDOW_MS = 5_000
LATENESS_MS = 2_000
IDLE_MS = 20_000
"""Longer than any outage of the nemesis: what silence closes, it closes because its device was silent."""
SUMS_MS = 3_000
HOP_SIZE_MS, HOP_MS = 4_000, 2_000
POISON = -999.0
"""The value on which the aggregate of a user's pipeline raises."""

OWN_TOPICS = ("chaos-own-a", "chaos-own-b")
"""Reply topics of the callers' own."""
SHARED = "replies"
NODES = ("node-1", "node-2", "node-3")
ROUTERS = ("router-1", "router-2")
STREAMS = ("streams-1", "streams-2", "streams-3")


@dataclass(frozen=True)
class Plan:
    """One run.

    Parameters
    ----------
    directory : Path
        Data, logs and the journal of executions.
    seed : int
        Of everything that is left to chance.
    minutes : float
        How long there is load and trouble.
    calls_per_s, readings_per_s : int
        The load.
    without : frozenset of str
        What is left out, to look for one cause at a time: `poison`, `swaps`, or a kind of the nemesis's actions.
    """

    directory: Path
    seed: int = 7
    minutes: float = 3.0
    calls_per_s: int = 110
    readings_per_s: int = 1_500
    without: frozenset[str] = field(default_factory=frozenset)

    @property
    def journal(self) -> Path:
        """Where the functions write that they ran."""
        return self.directory / "journal"

    @property
    def tries(self) -> Path:
        """Where the functions that fail at first count their tries."""
        return self.directory / "tries"

    @property
    def blobs(self) -> Path:
        """Where large arguments and results lie."""
        return self.directory / "blobs"

    @property
    def logs(self) -> Path:
        """One log for each process."""
        return self.directory / "logs"

    @property
    def again(self) -> str:
        """The command that does the same again."""
        rest = f" without={','.join(sorted(self.without))}" if self.without else ""
        return f"make chaos minutes={self.minutes:g} seed={self.seed}{rest}"
