"""How sources consume: calls one by one as they come, streams in large batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["CALLS", "STREAMS", "Profile"]


@dataclass(frozen=True)
class Profile:
    """How a source consumes.

    Parameters
    ----------
    max_records : int
        Most records of a batch, over all partitions.
    fill_s : float
        How long a batch that is not full waits for more after its first record, s.
    tick_s : float
        Time between two `Tick` events while something has come since the last, s; a second if nothing has; 0: none.
    client : dict
        librdkafka's settings beyond the common ones.
    """

    max_records: int
    fill_s: float
    tick_s: float
    client: dict[str, Any]  # Any: librdkafka's settings are strings, numbers and booleans


CALLS = Profile(
    max_records=500,
    fill_s=0.0,
    tick_s=0.0,
    # What is prefetched cannot be balanced again, and the default back-off stalls a second at the limit.
    client={"fetch.queue.backoff.ms": 2, "queued.min.messages": 1_000, "auto.offset.reset": "earliest"},
)
STREAMS = Profile(
    max_records=5_000,
    fill_s=0.02,
    tick_s=0.1,
    client={
        "fetch.queue.backoff.ms": 5,
        "queued.min.messages": 100_000,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "auto.offset.reset": "earliest",
    },
)
