"""What goes through the blob store and what is refused, without a broker."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from easyremote.errors import BlobStoreError, ClaimUnavailable, PayloadTooLarge
from easyremote.settings import Settings
from easyremote.topics.blobs import DirectoryStore
from easyremote.topics.claims import Arguments, ClaimDesk, claimed_bytes
from easyremote.topics.records import Request, encode
from easyremote.topics.wire import Call, MalformedCall, Origin, parse_call
from msgspec import Raw

LARGE = Raw(b'"' + b"x" * 3_000 + b'"')
SMALL = Raw(b"1")


def _settings(**fields: Any) -> Settings:
    return Settings(kafka="none:1", claim_bytes=1_024, **fields)


def _call(arguments: Arguments) -> Call:
    request = Request(function="f", args=arguments.args, kwargs=arguments.kwargs, claims=arguments.claims)
    return parse_call(encode(request), [], Origin("requests", 0, 0, 0))


def _raw(value: bytes | dict[str, Any]) -> Call:
    return parse_call(json.dumps(value).encode(), [], Origin("requests", 0, 0, 0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def desk(folder: Path) -> ClaimDesk:
    return ClaimDesk(_settings(), DirectoryStore(folder))


@pytest.fixture
def sent(desk: ClaimDesk) -> Call:
    return _call(desk.check_in("f", Arguments([SMALL, LARGE], {"picture": LARGE, "b": SMALL})))


def _file(folder: Path) -> Path:
    (path,) = (one for one in folder.rglob("*") if one.is_file())
    return path


def test_large_arguments_travel_as_claims_and_come_back_whole(desk: ClaimDesk, sent: Call) -> None:
    assert [claim.arg for claim in sent.claims] == [1, "picture"]
    assert [bytes(one) for one in sent.args] == [b"1", b"null"]
    assert claimed_bytes(sent) == 2 * 3_002
    given = desk.redeem(sent)
    assert [bytes(one) for one in given.args] == [b"1", bytes(LARGE)]
    assert {name: bytes(one) for name, one in given.kwargs.items()} == {"picture": bytes(LARGE), "b": b"1"}


def test_an_argument_that_looks_like_a_claim_is_an_argument(desk: ClaimDesk) -> None:
    looks = {"sha256": "0" * 64, "bytes": 3, "arg": 0}
    call = _raw({"function": "f", "args": [looks]})
    assert json.loads(bytes(desk.redeem(call).args[0])) == looks


def test_what_is_at_the_limit_stays_in_the_record(desk: ClaimDesk) -> None:
    assert not desk.has_large(Arguments([Raw(b"1" * 1_024)], {}))
    assert desk.has_large(Arguments([], {"a": Raw(b"1" * 1_025)}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"sha256": "../../../../etc/passwd", "bytes": 9},
        {"sha256": "s3://elsewhere/" + "0" * 64, "bytes": 9},
        {"sha256": "0" * 63, "bytes": 9},
        {"sha256": "A" * 64, "bytes": 9},
        {"sha256": "0" * 64 + "\n", "bytes": 9},
        {"sha256": "0" * 64, "bytes": -1},
        {"sha256": "0" * 64, "bytes": 9, "url": "file:///etc/passwd"},
        {"sha256": "0" * 64, "bytes": 9, "arg": -1},
        {"sha256": "0" * 64, "bytes": 9, "arg": 1},
    ],
)
def test_a_claim_that_names_anything_but_content_is_no_request(wrong: dict[str, Any]) -> None:
    with pytest.raises(MalformedCall):
        _raw({"function": "f", "args": [None], "claims": [{"arg": 0} | wrong]})


def test_a_blob_that_is_not_there_says_where_it_was_looked_for(sent: Call, tmp_path: Path) -> None:
    elsewhere = ClaimDesk(_settings(), DirectoryStore(tmp_path / "elsewhere"))
    with pytest.raises(ClaimUnavailable, match=r"elsewhere.*EASYREMOTE_BLOBS") as told:
        elsewhere.redeem(sent)
    assert told.value.retriable
    assert sent.claims[0].sha256 in str(told.value)


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-1], lambda whole: whole + b" ", lambda whole: b"[" + whole[1:], lambda _whole: b""]
)
def test_a_damaged_blob_is_not_decoded(desk: ClaimDesk, sent: Call, folder: Path, damage: Any) -> None:
    path = _file(folder)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ClaimUnavailable, match="damaged"):
        desk.redeem(sent)
    desk.check_in("f", Arguments([LARGE], {}))  # who sends it again repairs it
    assert bytes(desk.redeem(sent).args[1]) == bytes(LARGE)


def test_above_the_limit_it_is_refused_with_its_size_and_the_limit(folder: Path) -> None:
    small = ClaimDesk(_settings(max_blob_bytes=3_002), DirectoryStore(folder))
    call = _call(small.check_in("f", Arguments([LARGE], {})))
    assert bytes(small.redeem(call).args[0]) == bytes(LARGE)
    with pytest.raises(PayloadTooLarge, match=r"6004 bytes.*3002 bytes.*EASYREMOTE_MAX_BLOB_BYTES"):
        small.check_in("f", Arguments([LARGE, LARGE], {}))
    with pytest.raises(PayloadTooLarge, match="the result: 3003 bytes"):
        small.put(b"x" * 3_003, "the result")


def test_a_record_cannot_make_a_node_fetch_more_than_the_limit(desk: ClaimDesk, folder: Path) -> None:
    claim = {"arg": "a", "sha256": "0" * 64, "bytes": 1_000_000}
    with pytest.raises(PayloadTooLarge, match="68000000 bytes"):
        desk.redeem(_raw({"function": "f", "claims": [claim] * 68}))
    key = hashlib.sha256(b"2").hexdigest()
    store = Noting(folder)
    store.put(key, b"2" * 5_000_000)  # larger than the claim says
    with pytest.raises(ClaimUnavailable, match="more than 1 bytes"):
        ClaimDesk(_settings(), store).redeem(
            _raw({"function": "f", "claims": [{"arg": "a", "sha256": key, "bytes": 1}]})
        )
    assert store.asked == [2]


class Noting(DirectoryStore):
    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.asked: list[int] = []

    def get(self, key: str, most_bytes: int) -> bytes:
        self.asked.append(most_bytes)
        return super().get(key, most_bytes)


class Full(DirectoryStore):
    def put(self, key: str, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    def get(self, key: str, most_bytes: int) -> bytes:
        raise PermissionError(13, "Permission denied")


def test_a_store_that_fails_is_named_with_why(folder: Path, sent: Call) -> None:
    full = ClaimDesk(_settings(), Full(folder))
    with pytest.raises(BlobStoreError, match=r"does not take the argument 0 of f, 3002 bytes: .*No space left") as told:
        full.check_in("f", Arguments([LARGE], {}))
    assert not told.value.retriable
    with pytest.raises(ClaimUnavailable, match="Permission denied"):
        full.redeem(sent)
