"""Whatever a thread that lives long meets, it goes on, or its worker ends and says why."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import easyremote
import pytest
from confluent_kafka import OFFSET_BEGINNING
from easyremote.agents import retention
from easyremote.inference.lanes import Hand, Lane
from easyremote.inference.swapping import Swapper
from easyremote.settings import Settings
from easyremote.tally import tally
from easyremote.threads import LongThread, Restarts, ThreadFailed, on_give_up, take_each
from easyremote.topics import changelog, follower, lookup, producer
from easyremote.topics.changelog import Standby
from easyremote.topics.follower import Follower
from easyremote.topics.lookup import RecordReader
from easyremote.topics.producer import RecordProducer
from easyremote.topics.records import RecordRef
from structlog.testing import capture_logs

WAIT_S = 10
SETTINGS = Settings(kafka="none:1", node_id="test")
POISON = b"poison"


def wait_until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.002)


class Message:
    def __init__(self, offset: int, value: bytes) -> None:
        self._offset, self._value = offset, value

    def topic(self) -> str:
        return "t"

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def value(self) -> bytes:
        return self._value

    def error(self) -> None:
        return None


class Reads:
    """Stands for a consumer: gives what it is told to, and raises what it is told to."""

    def __init__(self) -> None:
        self.comes: list[Message | Exception] = []
        self.closed = False

    def poll(self, _timeout_s: float) -> Message | None:
        time.sleep(0.001)
        if not self.comes:
            return None
        first = self.comes.pop(0)
        if isinstance(first, Exception):
            raise first
        return first

    def consume(self, _most: int, _timeout_s: float) -> list[Message]:
        if self.comes and isinstance(self.comes[0], Exception):
            raise self.comes.pop(0)  # type: ignore[misc]
        came: list[Message] = []
        while self.comes and isinstance(self.comes[0], Message):
            came.append(self.comes.pop(0))  # type: ignore[arg-type]
        return came

    def list_topics(self, topic: str, timeout: float) -> Any:
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions={0: None}, error=None)})

    def get_watermark_offsets(self, _place: Any, timeout: float) -> tuple[int, int]:
        return 0, 9

    def assign(self, _places: Any) -> None: ...

    def unassign(self) -> None: ...

    def incremental_assign(self, _places: Any) -> None: ...

    def close(self) -> None:
        self.closed = True


# The thread itself


def test_a_loop_that_raises_is_told_of_and_begun_again() -> None:
    done, tries = threading.Event(), []

    def loop() -> None:
        tries.append(1)
        if len(tries) < 4:
            raise SystemExit if len(tries) == 2 else ValueError(f"try {len(tries)}")
        done.set()

    with capture_logs() as lines:
        thread = LongThread(loop, "t")
        thread.start()
        assert done.wait(WAIT_S)
        thread.join(WAIT_S)
    assert [line["event"] for line in lines] == ["a thread failed"] * 3
    assert thread.failures == 3


def test_one_that_fails_again_and_again_ends_its_worker_with_the_reason() -> None:
    told: list[Exception] = []
    ended = threading.Event()

    def loop() -> None:
        raise ValueError("the disk is full")

    forget = on_give_up(told.append)
    try:
        LongThread(loop, "reader of x", at_end=ended.set, restarts=Restarts(most=3)).start()
        assert ended.wait(WAIT_S)
    finally:
        forget()
    assert [type(one) for one in told] == [ThreadFailed]
    assert "reader of x" in str(told[0])
    assert "the disk is full" in str(told[0])


def test_one_that_is_to_end_does_not_begin_again() -> None:
    stopping, ended = threading.Event(), threading.Event()

    def loop() -> None:
        stopping.wait()
        raise ValueError

    thread = LongThread(loop, "t", stopping=stopping, at_end=ended.set)
    thread.start()
    stopping.set()
    assert ended.wait(WAIT_S)
    assert thread.failures == 1


def test_an_item_that_raises_costs_itself_alone() -> None:
    taken: list[int] = []

    def receive(items: Sequence[int]) -> None:
        if 2 in items:
            raise RecursionError
        taken.extend(items)

    before = tally.count("numbers")
    take_each("numbers", receive, [1, 2, 3], str)
    assert taken == [1, 3]
    assert tally.count("numbers") == before + 2


def test_ten_thousand_items_that_raise_are_some_lines() -> None:
    def receive(_items: Sequence[int]) -> None:
        raise ValueError

    with capture_logs() as lines:
        take_each("many numbers", receive, range(10_000), str)
    assert tally.count("many numbers") == 10_001
    assert len(lines) < 20


def test_no_thread_of_the_package_is_without_it() -> None:
    package = Path(easyremote.__file__).parent
    bare = [path for path in package.rglob("*.py") if re.search(r"(?<!class Long)\bThread\(", path.read_text())]
    names = {str(path.relative_to(package)) for path in bare}
    # It waits for the end of one process, and ends with it.
    assert {name for name in names if not name.startswith("bench/")} == {"deploy/supervisor.py"}


# Each kind of thread, with what makes it raise


def test_a_follower_passes_over_what_its_receiver_cannot_take(monkeypatch: pytest.MonkeyPatch) -> None:
    reads, seen = Reads(), []
    monkeypatch.setattr(follower, "Consumer", lambda _config: reads)

    def receive(messages: Sequence[Any]) -> None:
        for message in messages:
            if message.value() == POISON:
                raise RecursionError("nested too deep")
            seen.append(message.offset())

    follows = Follower(SETTINGS, "t", receive, start="end")
    reads.comes += [Message(1, b""), Message(2, POISON), Message(3, b""), RuntimeError("a poll fails")]
    wait_until(lambda: 3 in seen)
    reads.comes.append(Message(4, b""))
    wait_until(lambda: 4 in seen)
    assert follows._thread.is_alive()
    follows.close()
    assert reads.closed


def test_who_waits_and_reads_itself_leaves_a_failed_read_to_the_follower(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads()
    seen: list[Any] = []
    monkeypatch.setattr(follower, "Consumer", lambda _config: reads)
    follows = Follower(SETTINGS, "t", seen.extend, start="end")
    reads.comes += [RuntimeError("a poll fails"), Message(1, b"")]
    follows.read_until(lambda: bool(seen))
    wait_until(lambda: seen)
    follows.close()


def test_the_reader_of_records_outlives_who_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    reads, told = Reads(), []
    monkeypatch.setattr(lookup, "Consumer", lambda _config: reads)
    reader = RecordReader(SETTINGS)

    def raises(message: Any) -> None:
        told.append(message)
        if message is not None:
            raise ValueError("forged")

    reads.comes.append(Message(1, POISON))
    reader.ask(RecordRef("t", 0, 1), raises)
    wait_until(lambda: len(told) == 2)
    assert told[1] is None  # a record that cannot be taken is none
    reads.comes.append(Message(2, b"good"))
    reader.ask(RecordRef("t", 0, 2), told.append)
    wait_until(lambda: len(told) == 3)
    assert told[2].value() == b"good"
    reader.close()


def test_a_producer_tells_on_though_one_who_is_told_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    class Sends:
        def __init__(self, _config: Any) -> None:
            self.polled = 0

        def poll(self, _timeout_s: float) -> None:
            self.polled += 1
            if self.polled == 3:
                raise ValueError("of a delivery report")

        def flush(self, _timeout_s: float) -> int:
            return 0

        def close(self) -> None: ...

    monkeypatch.setattr(producer, "Producer", Sends)
    sends = RecordProducer(SETTINGS, patient=True)
    client: Any = sends._prompt.client
    wait_until(lambda: client.polled > 5)
    assert all(one.is_alive() for one in sends._pollers)
    sends.close()


def test_who_stands_by_reads_all_again_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reads()
    given: list[int] = []
    monkeypatch.setattr(reads, "incremental_assign", lambda places: given.extend(one.offset for one in places))
    monkeypatch.setattr(changelog, "_reader", lambda _settings, _brokers: reads)
    standby = Standby(SETTINGS, "changelog")
    reads.comes.append(ValueError("a bad record"))
    wait_until(lambda: len(given) == 2)
    assert given == [OFFSET_BEGINNING] * 2
    assert list(standby._copies) == [0]
    assert standby._thread.is_alive()
    standby.close()


def test_blobs_are_swept_on_after_any_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    swept: list[int] = []

    def sweep(*_args: Any) -> int:
        swept.append(1)
        raise KeyError("a letter without a key")

    monkeypatch.setattr(retention, "sweep", sweep)
    blobs = retention.BlobRetention(SETTINGS.model_copy(update={"blobs_kept_s": 0.002, "data_dir": tmp_path}))
    thread = LongThread(blobs._keep_sweeping, "blob retention", stopping=blobs._closing)
    thread.start()
    wait_until(lambda: len(swept) >= 3)
    blobs._closing.set()
    thread.join(WAIT_S)


def test_an_order_that_cannot_be_dealt_with_does_not_block_the_others() -> None:
    settled: list[str] = []

    def slot(name: str) -> Any:
        if name == "bad":
            raise SystemExit
        return SimpleNamespace(is_settled=lambda _order: not settled.append(name))  # type: ignore[func-returns-value]

    swapper = Swapper(SETTINGS, SimpleNamespace(slot=slot), None, lambda: None)  # type: ignore[arg-type]
    orders = [SimpleNamespace(id="1", model="bad"), SimpleNamespace(id="2", model="good")]
    swapper._orders = lambda: orders  # type: ignore[method-assign,assignment,return-value]
    swapper._thread.start()
    swapper._wake.set()
    wait_until(lambda: settled)
    swapper._wake.set()
    wait_until(lambda: len(settled) == 2)
    assert swapper._thread.is_alive()
    swapper.close()


def test_a_lane_whose_work_raises_takes_the_next() -> None:
    done: list[Any] = []
    told: list[Exception] = []

    class Jobs:
        """Stands for what waits."""

        def __init__(self) -> None:
            self.left: list[Any] = [["bad"], ["good"], None]

        def take(self) -> Any:
            return self.left.pop(0)

        def put(self, job: Any) -> bool:
            return True

        def done(self, jobs: Any) -> None: ...

        def expire(self) -> None: ...

        def close(self) -> None: ...

    def run(jobs: Sequence[Any], _hand: Hand) -> None:
        done.extend(jobs)
        if "bad" in done[-1]:
            raise SystemExit

    lane = Lane("l", Jobs(), run, told.append)
    wait_until(lambda: done == ["bad", "good"])
    lane.close(WAIT_S)
