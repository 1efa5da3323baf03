"""Arguments and results of megabytes through a real worker on a real broker."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from easyremote import AsyncClient, CallOptions, Client
from easyremote.errors import ClaimUnavailable, PayloadTooLarge
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import declarations
from easyremote.topics.dead_letters import DeadLetters, Wanted
from easyremote.topics.letters import letter_of
from easyremote.topics.records import Blob, decode_reply, decode_request
from workers import producer_to, running, tail

pytestmark = pytest.mark.broker
SOON = CallOptions(timeout_s=30)
LARGE = "a picture " * 300_000


@pytest.fixture
def prepared(settings: Settings) -> Settings:
    TopicAdmin(settings).ensure(declarations())
    return settings


@pytest.fixture
def worker(prepared: Settings) -> Iterator[Settings]:
    with running(prepared, "router", "inference"):
        yield prepared


def _blobs(settings: Settings) -> list[Path]:
    root = settings.data_dir / "blobs" / f"{settings.namespace}calls"
    return [path for path in root.rglob("*") if path.is_file()]


def _dlq(settings: Settings, *arguments: str) -> str:
    said = subprocess.run(
        [Path(sys.executable).with_name("easyremote"), "dlq", *arguments],
        env=os.environ
        | {
            "EASYREMOTE_KAFKA": settings.bootstrap_servers(),
            "EASYREMOTE_NAMESPACE": settings.namespace,
            "EASYREMOTE_DATA_DIR": str(settings.data_dir),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    return said.stdout


def test_arguments_and_results_of_megabytes_come_and_go_unseen(worker: Settings) -> None:
    with Client(worker) as routed, Client(worker, direct=True) as direct:
        for client in (routed, direct):
            assert client.call("echo", LARGE, options=SOON) == LARGE
            assert client.call("shout", text=LARGE, options=SOON) == LARGE.upper()
            assert client.call("echo", "small", options=SOON) == "small"
            reply = client.reply("echo", LARGE, options=SOON)
            assert (reply.status, reply.result) == ("ok", LARGE)
    with tail(worker, "requests") as requests, tail(worker, "replies") as replies:
        values = [*requests.wait_for(bool), *replies.wait_for(lambda came: len(came) == 8)]
    assert max(len(one.value() or b"") for one in values) < 2_000
    assert len(_blobs(worker)) == 2  # the text and its capitals, once each


def test_the_asynchronous_client_does_so_too(worker: Settings) -> None:
    async def calls() -> list[Any]:
        async with AsyncClient(worker, direct=True) as client:
            return await asyncio.gather(*(client.call("echo", LARGE + str(one), options=SOON) for one in range(4)))

    assert asyncio.run(calls()) == [LARGE + str(one) for one in range(4)]


def test_a_plain_producer_claims_by_hash_and_gets_a_result_that_fits_in_its_record(worker: Settings) -> None:
    content = json.dumps(LARGE[:300_000]).encode()
    key = hashlib.sha256(content).hexdigest()
    folder = worker.data_dir / "blobs" / f"{worker.namespace}calls" / key[:2]
    folder.mkdir(parents=True)
    (folder / key).write_bytes(content)
    claims = [{"arg": 0, "sha256": key, "bytes": len(content)}]
    request = {"function": "echo", "args": [None], "id": "k-1", "claims": claims}
    producer = producer_to(worker.bootstrap_servers())
    producer.produce(worker.namespace + "requests", json.dumps(request).encode())
    assert producer.flush(10) == 0
    with tail(worker, "replies") as replies:
        (message,) = replies.wait_for(bool)
    assert json.loads(message.value() or b"")["result"] == LARGE[:300_000]


@pytest.mark.models
def test_a_large_picture_is_classified(prepared: Settings) -> None:
    image = pytest.importorskip("PIL.Image", reason="the extra 'inference'")
    data = pytest.importorskip("skimage.data", reason="the photographs are scikit-image's")
    out = io.BytesIO()
    image.fromarray(data.coffee()).resize((1200, 800)).save(out, "PNG")
    models = "easyremote.inference.models.images:EfficientNetLite0Model"
    assert len(out.getvalue()) > 1_000_000  # no record would take it
    with running(prepared, "router", "inference", EASYREMOTE_MODELS=models), Client(prepared) as client:
        answer = client.call("image_classification", out.getvalue(), options=CallOptions(timeout_s=60))
    assert answer["result"][0]["class_name"] == "espresso"


def test_above_the_limit_it_is_refused_with_size_and_limit_on_either_side(prepared: Settings) -> None:
    with running(prepared, "router", "inference", EASYREMOTE_MAX_BLOB_BYTES="1000000"):
        with (
            Client(prepared.model_copy(update={"max_blob_bytes": 1_000_000})) as client,
            pytest.raises(PayloadTooLarge, match=r"3000002 bytes.*1000000 bytes"),
        ):
            client.call("echo", LARGE, options=SOON)
        with Client(prepared) as client, pytest.raises(PayloadTooLarge, match=r"3000002 bytes.*1000000 bytes"):
            client.call("echo", LARGE, options=SOON)


def test_a_call_whose_blob_is_gone_is_told_so_becomes_a_dead_letter_and_can_be_redriven(worker: Settings) -> None:
    with Client(worker) as client:
        assert client.call("echo", "small", options=SOON) == "small"
        elsewhere = worker.model_copy(update={"data_dir": worker.data_dir / "elsewhere"})
        with Client(elsewhere) as lost, pytest.raises(ClaimUnavailable, match="EASYREMOTE_BLOBS"):
            lost.call("echo", LARGE, options=CallOptions(timeout_s=4))
        with tail(worker, "requests.dlq") as letters:
            (message,) = letters.wait_for(bool)
        letter = letter_of(message)
        assert (letter.error, letter.attempts) == ("ClaimUnavailable", 2)
        assert decode_request(letter.value or b"").claims[0].bytes == len(LARGE) + 2
        client.call("echo", LARGE, options=SOON)  # now the store has it
        shown = json.loads(_dlq(worker, "show", "0/0", "--json"))
        assert json.loads(shown["value"])["claims"][0]["arg"] == 0
        assert "EASYREMOTE_BLOBS" in shown["reason"]
        assert _dlq(worker, "redrive", "0/0") == "1 redriven\n"
        with tail(worker, "replies") as replies:
            again = replies.wait_for(lambda came: any((one.key() or b"").endswith(b"~1") for one in came))
    reply = decode_reply(next(one for one in again if (one.key() or b"").endswith(b"~1")).value() or b"")
    assert (reply.status, isinstance(reply.result_claim, Blob)) == ("ok", True)


def test_a_blob_goes_after_its_retention_but_for_what_a_dead_letter_needs(prepared: Settings) -> None:
    kept_s = 2.0
    with (
        running(prepared, "router", "inference", EASYREMOTE_BLOBS_KEPT_S=str(kept_s)),
        Client(prepared) as client,
        tail(prepared, "requests.dlq") as letters,
    ):
        client.reply("nobody_offers_this", LARGE, options=SOON)
        letters.wait_for(bool)
        assert client.call("shout", LARGE, options=SOON) == LARGE.upper()
        before = len(_blobs(prepared))
        tick, deadline = threading.Event(), time.monotonic() + 60
        while len(left := _blobs(prepared)) > 1:
            assert time.monotonic() < deadline, left
            tick.wait(0.1)  # a directory tells nobody
        assert before == 2
        tick.wait(kept_s)
        assert [path.name for path in _blobs(prepared)] == [hashlib.sha256(json.dumps(LARGE).encode()).hexdigest()]
        list(DeadLetters(prepared).handle("dropped", Wanted(), ["0/0"]))
        deadline = time.monotonic() + 60
        while _blobs(prepared):
            assert time.monotonic() < deadline, "what nobody needs any more is still there"
            tick.wait(0.1)
