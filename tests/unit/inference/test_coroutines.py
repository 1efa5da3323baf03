"""The event loop of users' coroutines says for how long it has not answered."""

from __future__ import annotations

import threading
from collections.abc import Callable

from easyremote.inference.coroutines import CoroutineLoop

WAIT_S = 20


def test_a_loop_that_answers_before_the_question_is_over_is_not_stuck() -> None:
    coroutines = CoroutineLoop()
    ask = coroutines.loop.call_soon_threadsafe

    def answered_at_once(answer: Callable[[], None]) -> None:
        ask(answer)
        answered = threading.Event()
        ask(answered.set)
        assert answered.wait(WAIT_S)

    coroutines.loop.call_soon_threadsafe = answered_at_once  # type: ignore[method-assign, assignment]
    assert coroutines.stuck_s(5.0) == 0.0
    assert not coroutines.is_stuck
    coroutines.loop.call_soon_threadsafe = ask  # type: ignore[method-assign]
    assert coroutines.close(WAIT_S)
