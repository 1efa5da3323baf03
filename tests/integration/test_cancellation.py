"""Calls that are withdrawn, or hang, on real workers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest
from easyremote import AsyncClient, CallOptions, Client
from easyremote.errors import CallCancelled, CallTimeout
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import declarations
from easyremote.topics.records import Cancellation, decode_cancellation, decode_reply, encode
from workers import await_ready, kill, running, start_worker, tail

pytestmark = pytest.mark.broker
SOON = CallOptions(timeout_s=30)


@pytest.fixture
def worker(settings: Settings) -> Iterator[Settings]:
    TopicAdmin(settings).ensure(declarations())
    with running(settings, "router", "inference"):
        yield settings


def test_a_withdrawn_call_is_told_so_once_and_its_coroutine_stops(worker: Settings, tmp_path: Path) -> None:
    started, stopped = tmp_path / "started", tmp_path / "stopped"
    os.mkfifo(started)
    os.mkfifo(stopped)
    with Client(worker) as client:
        call = client.submit("linger", str(started), str(stopped), options=CallOptions(timeout_s=60, id="long"))
        assert started.read_text() == "running"  # blocks until it runs
        client.cancel("long")
        assert stopped.read_text() == "stopped"  # blocks until it ends
        error = call.reply(30).error
        assert getattr(error, "type", None) == "CallCancelled"
        assert client.call("echo", "after", options=SOON) == "after"
    with tail(worker, "replies") as replies:
        keys = [message.key() for message in replies.wait_for(lambda messages: len(messages) >= 2)]
        assert sorted(keys, key=str).count(b"long") == 1


def test_cancelling_a_future_or_a_task_withdraws_its_call(worker: Settings, tmp_path: Path) -> None:
    started, stopped = tmp_path / "started", tmp_path / "stopped"
    os.mkfifo(started)
    os.mkfifo(stopped)
    with Client(worker, direct=True) as client:
        call = client.submit("linger", str(started), str(stopped), options=CallOptions(timeout_s=60))
        assert started.read_text() == "running"
        assert call.cancel()
        with pytest.raises(CancelledError):
            call.result()
        assert stopped.read_text() == "stopped"

    async def cancelled() -> None:
        async with AsyncClient(worker) as client:
            task = asyncio.create_task(
                client.call("linger", str(started), str(stopped), options=CallOptions(timeout_s=60))
            )
            assert await asyncio.to_thread(started.read_text) == "running"
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(stopped.read_text) == "stopped"

    asyncio.run(cancelled())


def test_a_call_withdrawn_before_it_came_is_not_started_by_router_or_node(settings: Settings) -> None:
    TopicAdmin(settings).ensure(declarations())
    with Client(settings) as client:
        client.cancel("early")
        with tail(settings, "cancellations") as told:
            (message,) = told.wait_for(bool)
            assert decode_cancellation(message.value() or b"") == Cancellation("early")
        with running(settings, "router", "inference"):
            with pytest.raises(CallCancelled):
                client.call("echo", "x", options=CallOptions(timeout_s=30, id="early"))
            with Client(settings, direct=True) as direct, pytest.raises(CallCancelled):
                direct.call("echo", "x", options=CallOptions(timeout_s=30, id="early"))
    assert encode(Cancellation("early")) == b'{"id":"early"}'


@pytest.mark.faults
def test_a_worker_in_which_too_much_hangs_tells_its_callers_and_ends(settings: Settings) -> None:
    TopicAdmin(settings).ensure(declarations())
    worker = start_worker(
        settings, EASYREMOTE_ROLES="router,inference", EASYREMOTE_CALL_LIMIT_S="0.5", EASYREMOTE_HUNG_LIMIT="2"
    )
    try:
        await_ready(settings, "router", "inference")
        with Client(settings) as client:
            calls = [client.submit("hang", options=CallOptions(timeout_s=60, id=f"hangs-{n}")) for n in range(2)]
            for call in calls:
                with pytest.raises(CallTimeout):
                    raise_error(call.reply(30))
            worker.wait(30)
        with tail(settings, "replies") as replies:
            told = [
                decode_reply(message.value() or b"").id for message in replies.wait_for(lambda all_: len(all_) >= 2)
            ]
            assert sorted(told) == ["hangs-0", "hangs-1"]
    finally:
        kill(worker)


def raise_error(reply: object) -> None:
    error = getattr(reply, "error", None)
    if getattr(error, "type", None) == "CallTimeout":
        raise CallTimeout
