"""A client is killed and comes back with the ids of its calls; it is answered from what was done for it before."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

import pytest
from easyremote.settings import Settings
from easyremote.topics.records import Reply, decode_reply
from history import History, everything, id_of, judge
from system import system

pytestmark = [pytest.mark.broker, pytest.mark.faults, pytest.mark.timeout(200)]

CALLS = 300
CALLER = Path(__file__).parents[1] / "support" / "caller.py"


@contextmanager
def _client(settings: Settings, mode: str, journal: Path, ids: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a client in a process of its own until it ends or the block does."""
    process = subprocess.Popen(
        [sys.executable, CALLER, mode, journal, *ids],
        env=os.environ | {"EASYREMOTE_KAFKA": settings.bootstrap_servers(), "EASYREMOTE_NAMESPACE": settings.namespace},
        stdout=subprocess.PIPE,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _replies(process: subprocess.Popen[bytes], count: int) -> dict[str, Reply]:
    """Return the next replies that a client prints, so many unless it ends before."""
    assert process.stdout is not None
    lines = (line for _, line in zip(range(count), process.stdout, strict=False))
    pairs = (line.split(b" ", 1) for line in lines)
    return {call_id.decode(): decode_reply(reply) for call_id, reply in pairs}


# Two nodes at once are told apart only by a router: two direct clients may choose both for one id.
@pytest.mark.parametrize(("mode", "nodes"), [("routed", ["one", "two"]), ("direct", ["one"])])
def test_a_client_killed_and_restarted_with_the_same_ids_is_answered_from_the_first_results(
    settings: Settings, tmp_path: Path, mode: str, nodes: list[str]
) -> None:
    history, journal = History(), tmp_path / "journal"
    ids = [uuid.uuid4().hex for _ in range(CALLS)]
    for call_id in ids:
        history.invoke(call_id)
    with system(settings) as running:
        running.launch("router", "router")
        for node in nodes:
            running.launch(node, "inference")
        running.await_up("router", *nodes)
        with _client(settings, mode, journal, ids) as doomed:
            first = _replies(doomed, CALLS // 3)  # the others run, or wait
        with _client(settings, mode, journal, ids) as restarted:
            second = _replies(restarted, CALLS)
            assert restarted.wait(20) == 0
        for call_id, reply in second.items():
            told: Future[Reply] = Future()
            told.set_result(reply)
            history.end(call_id, told.result)
        verdict = judge(settings, history, journal=journal)
    verdict.require(one_record=False)  # a reply to each of the two clients
    assert not verdict.ran_twice
    assert len(first) == CALLS // 3
    assert {reply.node_id for reply in second.values()} == set(nodes)
    assert {call_id: second[call_id].result for call_id in first} == {key: one.result for key, one in first.items()}
    written = defaultdict(set)
    for message in everything(settings, "replies"):
        written[id_of(message)].add(decode_reply(message.value() or b"").result)
    assert all(len(results) == 1 for results in written.values())
