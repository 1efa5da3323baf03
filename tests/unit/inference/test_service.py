"""A node's place in its group, without a broker."""

from __future__ import annotations

from typing import Any, cast

import pytest
from easyremote.inference.node import AINodeManager
from easyremote.inference.service import NodeService
from easyremote.settings import Settings
from easyremote.topics.doneset import Place
from scripted import ScriptedConsumer, given, lost, wakes


class _Answers:
    """Stands for what is known of the answers: all."""

    def catch_up(self, _stopping: Any, *also: tuple[str, int]) -> dict[tuple[str, int], int]:
        return dict.fromkeys(also, 0)

    def __getattr__(self, _name: str) -> Any:
        return lambda *_: None


def test_a_frozen_node_that_has_read_nothing_yet_asks_with_what_the_group_has_committed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    committed = {0: Place(7, "1AgM=")}  # and what is answered above it, which a commit must not forget
    client = ScriptedConsumer(committed)
    client.replace(monkeypatch)
    nobody = cast(Any, None)
    node = AINodeManager("general", [], [])
    service = NodeService(Settings(kafka="none:1"), node, nobody, lambda: None, nobody, cast(Any, _Answers()), nobody)
    client.play(service._source, [given, wakes(None, is_member=False), lost])
    assert client.asked == [committed]
