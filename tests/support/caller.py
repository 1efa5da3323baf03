"""A program that calls: for each id on its command line once, printing each reply as it comes; a test kills it.

`python caller.py MODE JOURNAL ID...`: `MODE` is `routed` or `direct`; the n-th call takes 5 n ms.
"""

from __future__ import annotations

import sys
from functools import partial

from easyremote import CallOptions, Client
from easyremote.inference.client import CallFuture
from easyremote.topics.records import encode

STEP_MS = 5


def _print(call: CallFuture) -> None:
    line = call.id.encode() + b" " + encode(call.reply()) + b"\n"
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


def main(mode: str, journal: str, *ids: str) -> None:
    """Send all calls, wait for all replies."""
    with Client(direct=mode == "direct") as client:
        calls = []
        for number, call_id in enumerate(ids):
            options = CallOptions(id=call_id, timeout_s=60, strategy="round_robin")
            calls.append(client.submit("stamp", journal, call_id, number * STEP_MS, options=options))
            calls[-1].add_done_callback(partial(lambda call, _: _print(call), calls[-1]))
        for call in calls:
            call.reply()


if __name__ == "__main__":
    main(*sys.argv[1:])
