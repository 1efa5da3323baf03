"""Several passes of one model at once, each on a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from easyremote.inference.batcher import Batcher
from easyremote.inference.jobs import Job
from easyremote.inference.models.devices import instances_on, pass_threads
from easyremote.inference.queues import Ranked
from easyremote.topics.wire import Origin, parse_call
from executing import WAIT_S, Gated, bench


class Pair(Gated):
    instances = 2


def _never(job: Job) -> None:
    raise AssertionError(f"{job.call.id} is not late")


def _ranked(jobs: int, at_once: int) -> Ranked:
    waiting = Ranked(Batcher(max_items=4, max_bytes=100), expired=_never, now_ms=lambda: 0.0, at_once=at_once)
    for number in range(jobs):
        call = parse_call(b'{"function": "f", "id": "%d"}' % number, [], Origin("t", 0, number, 0))
        assert waiting.put(Job(call, 0, 1, number, 0.0))
    return waiting


def _ids(jobs: Sequence[Job] | None) -> list[str]:
    return [job.call.id for job in jobs or ()]


def test_what_waits_is_shared_out_to_the_instances_that_are_free() -> None:
    waiting = _ranked(5, at_once=2)
    assert _ids(waiting.take()) == ["0", "1", "2"]
    assert _ids(waiting.take()) == ["3", "4"]
    alone = _ranked(5, at_once=1)
    assert _ids(alone.take()) == ["0", "1", "2", "3"]


def test_no_batch_is_given_out_before_one_of_those_that_are_out_is_done() -> None:
    waiting = _ranked(9, at_once=2)
    waiting.take()
    waiting.take()
    taken: list[list[str]] = []
    thread = threading.Thread(target=lambda: taken.append(_ids(waiting.take())))
    thread.start()
    waiting.close()  # wakes all that wait: it has no turn all the same
    thread.join(0.1)
    assert thread.is_alive()
    waiting.done()
    thread.join(WAIT_S)
    assert taken == [["8"]]


def test_a_model_of_two_instances_has_two_passes_at_once_and_no_third() -> None:
    model = Pair()
    with bench([model]) as one:
        for text in ("a", "b"):
            one.put("gated", text)
            assert model.entered.get(timeout=WAIT_S) == [text]
        for text in ("c", "d"):
            one.put("gated", text)
        model.gate.release()
        assert model.entered.get(timeout=WAIT_S) == ["c", "d"]  # by the one instance that is free
        assert model.entered.empty()
        model.gate.release(2)
        assert {reply.status for reply in one.replies(4).values()} == {"ok"}


def test_a_pass_that_hangs_keeps_no_instance_from_others() -> None:
    model = Gated()
    model.limit_s = 0.2
    with bench([model]) as one:
        stuck = one.put("gated", "stuck")
        model.entered.get(timeout=WAIT_S)
        assert one.error_of(stuck, one.replies(1)) == "CallTimeout"
        model.limit_s = 0
        for text in ("next", "last"):
            call_id = one.put("gated", text)
            assert model.entered.get(timeout=WAIT_S / 2) == [text]
            model.gate.release(2)  # whoever of the two threads takes it
            assert one.replies(1)[call_id].status == "ok"


def test_a_version_with_fewer_instances_has_no_more_passes_at_once_than_it_may() -> None:
    class Single(Gated):
        def inference(self, batch: Sequence[Any]) -> Sequence[Any]:
            assert self.alone.acquire(blocking=False), "two passes at once"
            try:
                return super().inference(batch)
            finally:
                self.alone.release()

        def __init__(self) -> None:
            super().__init__()
            self.alone = threading.Lock()

    before, after = Pair(), Single()
    with bench([before]) as one:
        for text in ("a", "b"):
            one.put("gated", text)
            before.entered.get(timeout=WAIT_S)
        swapped = threading.Event()

        def swap() -> None:
            one.executor.add_model(after)
            one.node.offer(after)
            one.executor.widen(after)
            swapped.set()

        threading.Thread(target=swap).start()
        assert not swapped.wait(0.1)  # two passes of the version before are under way
        before.gate.release(2)
        assert swapped.wait(WAIT_S)
        one.replies(2)
        for text in ("c", "d", "e"):
            one.put("gated", text)
        after.gate.release(3)
        assert {reply.status for reply in one.replies(3).values()} == {"ok"}


def test_a_version_with_more_instances_has_them_when_it_is_offered() -> None:
    before, after = Gated(), Pair()
    with bench([before]) as one:
        one.put("gated", "a")
        before.entered.get(timeout=WAIT_S)
        one.executor.add_model(after)
        one.node.offer(after)
        one.executor.widen(after)
        one.put("gated", "b")
        assert after.entered.get(timeout=WAIT_S) == ["b"]  # beside the pass of the version before
        before.gate.release()
        after.gate.release()
        one.replies(2)


@pytest.mark.parametrize(
    ("cores", "told", "threads", "instances"),
    [(1, "", 1, 1), (2, "", 1, 2), (8, "", 4, 2), (2, "2", 2, 1), (8, "1", 1, 2), (4, "many", 2, 2), (1, "4", 4, 1)],
)
def test_the_passes_of_a_model_on_a_cpu_share_its_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, told: str, threads: int, instances: int
) -> None:
    monkeypatch.setattr("easyremote.inference.models.devices._cores", lambda: cores)
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert pass_threads() == threads
    assert instances_on("cpu") == instances
    assert instances_on("cuda") == 1
