"""Everything at once: calls, streams, swaps; and a nemesis that kills, freezes, cuts off, and ends the broker too."""

from __future__ import annotations

import pytest
from beside import CHAOS, SEED, WANTED, start

pytestmark = [
    pytest.mark.broker,
    pytest.mark.faults,
    pytest.mark.skipif(not WANTED, reason="EASYREMOTE_TEST_CHAOS=1 runs three minutes of all faults at once"),
]


@pytest.mark.timeout(900)
def test_all_faults_at_once_cost_no_reply_no_window_and_no_dead_letter(request: pytest.FixtureRequest) -> None:
    stash = request.config.stash
    if CHAOS not in stash:
        stash[CHAOS] = start()
    running = stash[CHAOS]
    said, _ = running.communicate()
    print(said)
    assert running.returncode == 0, f"chaos with seed {SEED} has findings:\n{said}"
