"""A call for one node and no other, whose node dies."""

from __future__ import annotations

from pathlib import Path

import pytest
from easyremote import CallOptions, Client
from easyremote.settings import Settings
from history import executions
from system import system

pytestmark = [pytest.mark.broker, pytest.mark.faults, pytest.mark.timeout(200)]

CALLS = 5


@pytest.mark.parametrize("direct", [True, False])
def test_calls_for_a_node_that_died_wait_for_it_though_another_holds_its_partitions(
    settings: Settings, tmp_path: Path, *, direct: bool
) -> None:
    journal = tmp_path / "journal"
    with system(settings) as running:
        running.launch("router", "router")
        for node in ("wanted", "other"):
            running.launch(node, "inference")
        running.await_up("router", "wanted", "other")
        with Client(settings, direct=direct) as client:
            # They begin on their node and cannot end before it is killed.
            options = CallOptions(timeout_s=90, target="wanted")
            futures = [
                client.submit("mark_and_wait", str(journal), f"call-{number}", 2_000, options=options)
                for number in range(CALLS)
            ]
            running.await_view(lambda view: view["wanted"].in_flight == CALLS)
            running.kill("wanted")
            running.await_view(lambda view: len(view["other"].partitions) == 8)
            running.start("wanted", "inference")
            replies = [future.reply(60) for future in futures]
    assert {(reply.status, reply.node_id) for reply in replies} == {("ok", "wanted")}
    lines = journal.read_text().splitlines()
    assert {line.split()[1] for line in lines} == {"wanted"}
    assert len(executions(journal)) == CALLS
