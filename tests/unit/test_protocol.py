"""The page by which clients in other languages are written names all that travels."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest
from easyremote import errors
from easyremote.topics import wire
from easyremote.topics.catalog import POOLS, declarations
from easyremote.topics.records import Aggregate, Alert, Cancellation, ErrorBody, Reading, Reply, Request, TimingsMs

PAGE = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
NAMED = set(re.findall(r"`([^`\n]+)`", PAGE)) | set(re.findall(r"\"(\w+)\"", PAGE))


def test_the_protocol_names_every_topic() -> None:
    own_pools = {f"inference.{pool}" for pool in POOLS}
    topics = {one.name for one in declarations()} - own_pools
    assert topics <= NAMED, topics - NAMED
    assert "inference.<pool>" in NAMED
    assert set(POOLS) <= NAMED


@pytest.mark.parametrize("record", [Request, Reply, ErrorBody, TimingsMs, Cancellation, Reading, Aggregate, Alert])
def test_the_protocol_names_every_key_of_a_record(record: type[msgspec.Struct]) -> None:
    keys = {field.encode_name for field in msgspec.structs.fields(record)}
    assert keys <= NAMED, keys - NAMED


def test_the_protocol_names_every_header() -> None:
    headers = {
        value
        for name in wire.__all__
        if isinstance(value := getattr(wire, name), str) and value.startswith(("kafka_", "easyremote_", "trace"))
    }
    assert len(headers) >= 10
    assert headers <= NAMED, headers - NAMED


def test_the_protocol_names_every_error_of_a_call() -> None:
    kinds = {
        name
        for name in errors.__all__
        if name[0].isupper()
        and issubclass(getattr(errors, name), errors.CallError)
        and name not in {"CallError", "RemoteError"}
    }
    assert kinds <= NAMED, kinds - NAMED
