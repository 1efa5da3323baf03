"""What a caller makes of the records of a stream."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from easyremote.errors import BlobStoreError, CallError, RemoteError
from easyremote.inference.items import AsyncItems, Items
from easyremote.topics.records import Blob, ErrorBody, Reply
from easyremote.topics.replying import NO_TIME
from msgspec import UNSET, structs

WAIT_S = 20


class Withdrawals:
    """Stands for a session: notes what is abandoned, and has the store's blobs."""

    def __init__(self, blobs: dict[str, str] | None = None) -> None:
        self.ids: list[str] = []
        self._blobs = {} if blobs is None else blobs

    def fetch(self, _record: Reply, blob: Blob, what: str) -> str:
        try:
            return self._blobs[blob.sha256]
        except KeyError as error:
            raise BlobStoreError(f"the {what} is not in the store") from error

    def abandon(self, call_id: str) -> None:
        self.ids.append(call_id)


def record(seq: int | None, result: Any = None, *, final: bool | None = False, error: ErrorBody | None = None) -> Reply:
    fields: dict[str, Any] = {"result": result} if error is None and final is not True else {}
    if seq is not None:
        fields |= {"seq": seq, "final": final}
    if error is not None:
        fields["error"] = error
    return Reply(
        id="c",
        function="f",
        status="ok" if error is None else "error",
        node_id="n",
        model=None,
        model_version=None,
        attempts=1,
        timings_ms=NO_TIME,
        **fields,
    )


def items(from_seq: int = 0) -> Items:
    return Items(Withdrawals(), "f", from_seq)  # type: ignore[arg-type]  # all that it uses of a session


def test_items_that_a_second_node_makes_again_reach_the_caller_once_and_in_order() -> None:
    received = items()
    for seq in (0, 1, 2, 0, 1, 3, 2, 3, 4):
        received.come(record(seq, f"item {seq}"))
    received.end(record(5, final=True))
    assert list(received) == [f"item {seq}" for seq in range(5)]
    assert list(received) == []


def test_the_result_of_a_plain_function_is_the_only_item() -> None:
    received = items()
    received.end(record(None, "all"))
    assert list(received) == ["all"]


def test_an_error_is_raised_after_the_items_that_came() -> None:
    received = items()
    received.come(record(0, "first"))
    received.end(record(1, final=True, error=ErrorBody("KeyError", "gone")))
    assert next(received) == "first"
    with pytest.raises(RemoteError, match="gone"):
        next(received)


def test_an_end_whose_items_went_to_an_earlier_call_says_how_to_get_them() -> None:
    received = items(from_seq=2)
    received.end(record(5, final=True))
    with pytest.raises(CallError, match=r"items 2 to 4 of f .* another id and from_seq=2"):
        next(received)


def test_leaving_the_items_withdraws_the_call() -> None:
    session = Withdrawals()
    received = Items(session, "f", 0)  # type: ignore[arg-type]  # as above
    received.id = "c"
    received.come(record(0, "first"))
    with received:
        assert next(received) == "first"
    assert session.ids == ["c"]
    with pytest.raises(StopIteration):
        next(received)


def large(seq: int, sha256: str) -> Reply:
    return structs.replace(record(seq), result=UNSET, result_claim=Blob(sha256, 1))


def test_a_large_item_is_fetched_in_its_place() -> None:
    received = Items(Withdrawals({"k": "large"}), "f", 0)  # type: ignore[arg-type]  # as above
    for one in (record(0, "first"), large(1, "k"), large(1, "k"), record(2, "last"), record(3, final=True)):
        received.come(one) if one.final is False else received.end(one)
    assert list(received) == ["first", "large", "last"]
    assert received.next_seq == 3


def test_a_large_item_that_is_not_to_be_had_ends_the_stream_and_can_be_asked_for_again() -> None:
    session = Withdrawals()
    received = Items(session, "f", 0)  # type: ignore[arg-type]  # as above
    received.id = "c"
    for one in (record(0, "first"), large(1, "gone"), record(2, "last")):
        received.come(one)
    assert next(received) == "first"
    with pytest.raises(BlobStoreError, match="item 1 of f"):
        next(received)
    assert list(received) == []
    assert (received.next_seq, session.ids) == (1, ["c"])


def test_what_comes_after_a_large_item_was_missed_does_not_move_where_a_later_call_takes_it_up() -> None:
    received = Items(Withdrawals(), "f", 0)  # type: ignore[arg-type]  # as above
    received.come(large(0, "gone"))
    with pytest.raises(BlobStoreError, match="item 0 of f"):
        next(received)
    for one in (large(0, "gone"), record(1, "of a second node, before the call is withdrawn")):
        received.come(one)
    assert received.next_seq == 0


@pytest.mark.parametrize("blobs", [{}, {"late": "here"}], ids=["fails", "succeeds"])
def test_a_large_item_whose_fetch_was_given_up_is_found_again_however_the_fetch_ended(blobs: dict[str, str]) -> None:
    class Slow(Withdrawals):
        def __init__(self, begun: Callable[[], object]) -> None:
            super().__init__(blobs)
            self.begun = begun
            self.gate = threading.Event()

        def fetch(self, _record: Reply, blob: Blob, what: str) -> str:
            self.begun()
            assert self.gate.wait(WAIT_S)
            return super().fetch(_record, blob, what)

    async def read() -> Any:
        async def send(received: AsyncItems) -> str:
            received.come(large(0, "late"))
            return "c"

        loop, begun = asyncio.get_running_loop(), asyncio.Event()
        loop.set_default_executor(ThreadPoolExecutor(1))
        session: Any = Slow(lambda: loop.call_soon_threadsafe(begun.set))
        received = AsyncItems(session, loop, "f", 0, send)
        given_up = asyncio.ensure_future(anext(received))
        await begun.wait()
        given_up.cancel()
        session.gate.set()
        await asyncio.to_thread(blobs.update, late="here")  # by the one thread, so after the fetch has ended
        return await anext(received), given_up.cancelled(), session.ids

    assert asyncio.run(asyncio.wait_for(read(), WAIT_S)) == ("here", True, [])


def test_an_asynchronous_caller_has_large_items_fetched_in_their_place_too() -> None:
    async def read(session: Any) -> list[Any]:
        async def send(received: AsyncItems) -> str:
            for one in (record(0, "first"), large(1, "k"), record(2, "last"), large(3, "gone")):
                received.come(one)
            return "c"

        received = AsyncItems(session, asyncio.get_running_loop(), "f", 0, send)
        got = [await anext(received) for _ in range(3)]
        with pytest.raises(BlobStoreError, match="item 3 of f"):
            await anext(received)
        assert [one async for one in received] == []
        return [*got, received.next_seq]

    session = Withdrawals({"k": "large"})
    assert asyncio.run(asyncio.wait_for(read(session), WAIT_S)) == ["first", "large", "last", 3]
    assert session.ids == ["c"]


def test_an_asynchronous_caller_gets_each_item_as_it_comes_from_another_thread() -> None:
    async def read() -> list[Any]:
        got: list[Any] = []

        def come(received: AsyncItems) -> None:
            for seq in range(1_000):
                received.come(record(seq, seq))
            received.end(record(1_000, final=True))

        async def send(received: AsyncItems) -> str:
            threading.Thread(target=come, args=(received,)).start()
            return "c"

        session: Any = Withdrawals()  # all that it uses of a session
        received = AsyncItems(session, asyncio.get_running_loop(), "f", 0, send)
        async for item in received:
            got.append(item)  # noqa: PERF401  # as a caller does
        return got

    assert asyncio.run(asyncio.wait_for(read(), WAIT_S)) == list(range(1_000))
