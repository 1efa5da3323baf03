"""The router dies under load; every call is accounted for."""

from __future__ import annotations

from pathlib import Path

import pytest
from easyremote.settings import Settings
from history import History, judge
from load import load, seeded
from system import system

pytestmark = [pytest.mark.broker, pytest.mark.faults, pytest.mark.timeout(200)]


def test_a_router_killed_under_load_and_restarted_costs_no_caller_its_one_reply(
    settings: Settings, tmp_path: Path
) -> None:
    seed, chance = seeded()
    history, journal = History(), tmp_path / "journal"
    with system(settings) as running:
        running.launch("router", "router")
        running.launch("node", "inference")
        running.await_up("router", "node")
        with load(settings, history, journal, mixed=False) as calls:
            assert history.wait_ended(1_000 + chance.randrange(2_000), 60)
            running.kill("router")
            running.start("router", "router")
            assert history.wait_ended(len(history.ended) + 2_000, 60)
            calls.stop()
        verdict = judge(settings, history, journal=journal, seed=seed)
    verdict.require(one_record=False)
    assert not verdict.ran_twice  # what was routed twice met the first one's reply at the node
