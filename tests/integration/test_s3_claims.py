"""The claim check on S3: a real S3 server in this process, which clients and workers reach by HTTP."""

from __future__ import annotations

import hashlib
import json
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
import s3fs
from easyremote import CallOptions, Client
from easyremote.errors import BlobStoreError, ClaimUnavailable
from easyremote.settings import Settings
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.blobs import open_store
from easyremote.topics.catalog import declarations
from easyremote.topics.claims import ClaimDesk
from easyremote.topics.wire import Call, MalformedCall, Origin, parse_call
from moto.server import ThreadedMotoServer
from workers import running, tail

pytestmark = pytest.mark.broker
SOON = CallOptions(timeout_s=30)
WAIT_S = 60
LARGE = "a picture " * 300_000
SECRET = b'"' + b"for nobody " * 30_000 + b'"'


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedMotoServer]:
    """An S3 server that this process and its workers find as they would find Amazon's: by the environment."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "a-key",
        "AWS_SECRET_ACCESS_KEY": "a-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    yield server
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture
def on_s3(settings: Settings, s3: ThreadedMotoServer) -> Settings:
    bucket = f"{settings.namespace}blobs"  # a fresh one: the servers of a process share what they hold
    s3fs.S3FileSystem().mkdir(bucket)
    return settings.model_copy(update={"blobs": f"s3://{bucket}/prefix"})


def _objects(settings: Settings) -> set[str]:
    root = f"{settings.namespace}blobs/prefix/{settings.namespace}calls/"
    found = s3fs.S3FileSystem(use_listings_cache=False).find(f"{settings.namespace}blobs")
    return {path.removeprefix(root) for path in found}


def _place(content: bytes) -> str:
    key = hashlib.sha256(content).hexdigest()
    return f"{key[:2]}/{key}"


def test_arguments_and_results_go_by_s3_and_are_removed_after_their_retention(on_s3: Settings) -> None:
    TopicAdmin(on_s3).ensure(declarations())
    told = {"EASYREMOTE_BLOBS": on_s3.blobs or "", "EASYREMOTE_BLOBS_KEPT_S": "2"}
    with running(on_s3, "router", "inference", **told), Client(on_s3) as client:
        assert client.call("shout", LARGE, options=SOON) == LARGE.upper()
        assert _objects(on_s3) == {_place(json.dumps(one).encode()) for one in (LARGE, LARGE.upper())}
        tick, deadline = threading.Event(), time.monotonic() + 60
        while left := _objects(on_s3):
            assert time.monotonic() < deadline, left
            tick.wait(0.1)  # a bucket tells nobody
    with tail(on_s3, "requests") as requests, tail(on_s3, "replies") as replies:
        values = [*requests.wait_for(bool), *replies.wait_for(bool)]
    assert max(len(one.value() or b"") for one in values) < 2_000


def test_a_claim_reaches_nothing_that_lies_elsewhere_on_s3(on_s3: Settings) -> None:
    elsewhere = f"{on_s3.namespace}blobs/elsewhere/{_place(SECRET)}"
    s3fs.S3FileSystem().pipe_file(elsewhere, SECRET)
    for named in (f"s3://{elsewhere}", f"../../elsewhere/{_place(SECRET)}"):
        with pytest.raises(MalformedCall, match="sha256"):
            _claiming(named)
    with pytest.raises(ClaimUnavailable, match="is not in the store"):
        ClaimDesk(on_s3).redeem(_claiming(hashlib.sha256(SECRET).hexdigest()))


def test_s3_that_cannot_be_reached_is_told_with_its_place_and_an_argument_is_tried_again(
    on_s3: Settings, s3: ThreadedMotoServer
) -> None:
    desk = ClaimDesk(on_s3)
    call = _claiming(desk.put(SECRET, "argument 0 of echo").sha256)
    assert bytes(desk.redeem(call).args[0]) == SECRET
    s3.stop()
    place = f"{on_s3.blobs}/{on_s3.namespace}calls"
    with pytest.raises(ClaimUnavailable, match=rf"argument 0 of echo.*cannot be read from the store {place}") as gone:
        desk.redeem(call)
    assert gone.value.retriable
    with pytest.raises(BlobStoreError, match=rf"the blob store {place} does not take the result of echo"):
        desk.put(SECRET, "result of echo")
    with pytest.raises(OSError, match="connect"):
        list(open_store(on_s3).expired(time.time()))


def test_s3_that_takes_requests_and_never_answers_is_told_too(on_s3: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host, port = silent.getsockname()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        s3fs.S3FileSystem.clear_instance_cache()
        desk = ClaimDesk(on_s3)
        told: queue.SimpleQueue[Exception] = queue.SimpleQueue()

        def ask(what: Callable[[], object]) -> None:
            try:
                what()
            except BlobStoreError as error:
                told.put(error)

        key = hashlib.sha256(SECRET).hexdigest()
        for what in (lambda: desk.put(SECRET, "result of echo"), lambda: desk.redeem(_claiming(key))):
            threading.Thread(target=ask, args=(what,), daemon=True).start()
        both = sorted([told.get(timeout=WAIT_S), told.get(timeout=WAIT_S)], key=str)
    assert [type(one) for one in both] == [ClaimUnavailable, BlobStoreError]


def _claiming(sha256: str) -> Call:
    claims = [{"arg": 0, "sha256": sha256, "bytes": len(SECRET)}]
    request = json.dumps({"function": "echo", "args": [None], "claims": claims})
    return parse_call(request.encode(), [], Origin("requests", 0, 0, 0), "")
