"""What a checker found: how often, and some examples of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

_EXAMPLES = 12


@dataclass
class Verdict:
    """Findings by their names, all of which must be zero, and facts, which are what they are."""

    counts: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def find(self, name: str, found: Iterable[str]) -> None:
        """Add findings, each told in a line; a name without any counts 0."""
        told = list(found)
        self.counts[name] = self.counts.get(name, 0) + len(told)
        self.examples.setdefault(name, []).extend(told[: _EXAMPLES - len(self.examples.get(name, []))])

    def add(self, other: Verdict) -> None:
        """Take another checker's findings in."""
        for name, count in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
            self.examples.setdefault(name, []).extend(other.examples.get(name, [])[:_EXAMPLES])
        self.facts |= other.facts

    @property
    def problems(self) -> dict[str, int]:
        """Which findings there are."""
        return {name: count for name, count in self.counts.items() if count}
