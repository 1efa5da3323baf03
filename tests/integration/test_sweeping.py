"""What a test leaves on the broker is deleted when it ends."""

from __future__ import annotations

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # it does not say so
from sweeping import Sweeper

pytestmark = pytest.mark.broker


def test_topics_and_groups_of_a_namespace_are_gone_and_those_of_others_are_not(kafka: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka})
    for future in admin.create_topics(
        [NewTopic("mine-a", 2, 1), NewTopic("mine-b", 1, 1), NewTopic("other-a", 1, 1)]
    ).values():
        future.result(20)
    member = Consumer({"bootstrap.servers": kafka, "group.id": "mine-group", "group.protocol": "consumer"})
    member.subscribe(["mine-a"])
    assert member.poll(2) is None
    member.close()
    sweeper = Sweeper(kafka)
    sweeper.sweep("mine-")
    sweeper.close()
    assert sweeper.failures == []
    names = set(admin.list_topics(timeout=20).topics)
    assert {"mine-a", "mine-b", "other-a"} & names == {"other-a"}
    groups = {one.group_id for one in admin.list_consumer_groups().result(20).valid}
    assert "mine-group" not in groups
    admin.delete_topics(["other-a"])["other-a"].result(20)
