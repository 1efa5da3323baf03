"""The balancer at work: several nodes, real heartbeats, the router and direct clients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pytest
from confluent_kafka import Message
from easyremote import CallOptions, Client
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import declarations
from easyremote.topics.records import decode_heartbeat
from workers import running, tail

pytestmark = pytest.mark.broker
NODES = ("one", "two")


@pytest.fixture
def nodes(settings: Settings) -> Iterator[Settings]:
    TopicAdmin(settings).ensure(declarations())
    with (
        running(settings, "router", "inference", EASYREMOTE_NODE_ID="one"),
        running(settings, "inference", EASYREMOTE_NODE_ID="two"),
    ):
        with Client(settings) as client:
            for node_id in NODES:  # both hold partitions by the time that they have answered
                client.call("echo", "x", options=CallOptions(timeout_s=40, target=node_id))
        yield settings


def _who(client: Client, times: int = 1, **asked: str) -> list[str]:
    options = CallOptions(timeout_s=30, **asked)  # type: ignore[arg-type]  # the tests write strategies as text
    return [client.reply("echo", "x", options=options).node_id for _ in range(times)]


def _told_of(heartbeats: Sequence[Message], done: Counter[str]) -> bool:
    """Say whether each node's last heartbeat counts all that it has done, and nothing in flight."""
    last = {one.key(): decode_heartbeat(one.value() or b"") for one in heartbeats if one.value() is not None}
    told = [last.get(node_id.encode()) for node_id in NODES]
    return all(one is not None and one.total_requests >= done[one.node_id] and not one.in_flight for one in told)


def test_the_router_and_a_direct_client_balance_alike(nodes: Settings) -> None:
    keys = [f"user-{number}" for number in range(12)]
    homes: list[list[list[str]]] = []
    done: Counter[str] = Counter(NODES)  # the fixture's
    with tail(nodes, "nodes") as heartbeats:
        for direct in (False, True):
            with Client(nodes, direct=direct) as client:
                done.update(one_by_one := _who(client, 10, strategy="round_robin"))
                assert Counter(one_by_one) == {"one": 5, "two": 5}
                done.update(there := _who(client, 5, target="two"))
                assert set(there) == {"two"}
                homes.append([])
                for key in keys:
                    # A router learns by heartbeats alone what has ended; a node that seems busy is spared its keys.
                    heartbeats.wait_for(lambda came: _told_of(came, done))
                    homes[-1].append(_who(client, 2, affinity_key=key))
                    done.update(homes[-1][-1])
                assert all(first == second for first, second in homes[-1])
    assert homes[0] == homes[1]
    assert {home for home, _ in homes[0]} == set(NODES)
