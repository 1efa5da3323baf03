"""The balancer at work: several nodes, real heartbeats, the router and direct clients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from easyremote import CallOptions, Client
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import declarations
from workers import running

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


def test_the_router_and_a_direct_client_balance_alike(nodes: Settings) -> None:
    keys = [f"user-{number}" for number in range(12)]
    homes = []
    for direct in (False, True):
        with Client(nodes, direct=direct) as client:
            assert Counter(_who(client, 10, strategy="round_robin")) == {"one": 5, "two": 5}
            assert set(_who(client, 5, target="two")) == {"two"}
            homes.append([_who(client, 2, affinity_key=key) for key in keys])
            assert all(first == second for first, second in homes[-1])
    assert homes[0] == homes[1]
    assert {home for home, _ in homes[0]} == set(NODES)
