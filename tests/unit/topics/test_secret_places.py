"""Credentials in EASYREMOTE_BLOBS reach no caller and no log, in whichever form of a URL they stand."""

from __future__ import annotations

import traceback
from typing import Any

import pytest
from easyremote.errors import BlobStoreError, ConfigError
from easyremote.settings import Settings
from easyremote.topics.blobs import FsspecStore
from easyremote.topics.claims import ClaimDesk
from easyremote.topics.places import SecretPlace
from easyremote.topics.records import Blob
from easyremote.topics.replying import error_body
from fsspec.implementations.memory import MemoryFileSystem

SECRETS = {
    "memory://user:pa55word@host/folder": ["pa55word"],
    "memory://user:pa/55@word@host/folder": ["pa/55@word"],
    "memory://t0ken@host/folder": ["t0ken"],
    "memory://host/folder?password=pa55word&sig=s3cr3t-sig": ["pa55word", "s3cr3t-sig"],
    "memory://host/folder#pa55word": ["pa55word"],
    "memory://us%65r:pa55%77ord@host/folder?sig=s3cr3t%2Dsig": ["pa55%77ord", "pa55word", "s3cr3t%2Dsig", "s3cr3t-sig"],
    "simplecache::memory://user:pa55word@host/folder": ["pa55word"],
}
URLS = list(SECRETS)


def _secrets_in(url: str, *texts: str) -> list[str]:
    return [secret for secret in SECRETS[url] for text in texts if secret in text]


def _says(url: str) -> str:
    return f"403 for {url}: {' and '.join(SECRETS[url])} are wrong"


@pytest.mark.parametrize("url", URLS)
def test_a_place_is_shown_without_credentials_and_no_text_has_them(url: str) -> None:
    place = SecretPlace(url)
    assert not _secrets_in(url, place.shown)
    assert "host/folder" in place.shown
    assert not _secrets_in(url, place.kept_out_of(_says(url)))


@pytest.mark.parametrize("url", URLS[:6])
@pytest.mark.parametrize("kind", [RuntimeError, OSError, FileNotFoundError, PermissionError])
def test_what_a_store_says_has_no_credentials(monkeypatch: pytest.MonkeyPatch, url: str, kind: type[Exception]) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise kind(_says(url))

    desk = ClaimDesk(Settings(kafka="none:1"), FsspecStore(url, "calls"))
    monkeypatch.setattr(MemoryFileSystem, "cat_file", fail)
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", fail)
    for use in (lambda: desk.put(b"x", "result"), lambda: desk.get(Blob("0" * 64, 1), "argument")):
        with pytest.raises(BlobStoreError) as caught:
            use()
        told = "".join(traceback.format_exception(caught.value))
        assert not _secrets_in(url, str(caught.value), error_body(caught.value).message, told)
        assert "host/folder" in str(caught.value)


def test_a_store_that_cannot_be_opened_is_told_without_credentials() -> None:
    url = "nosuch://user:pa55word@host/folder?sig=s3cr3t-sig"
    with pytest.raises(ConfigError) as caught:
        FsspecStore(url, "calls")
    told = "".join(traceback.format_exception(caught.value))
    assert "nosuch://host/folder" in told
    assert not {"pa55word", "s3cr3t-sig"} & {one for one in ("pa55word", "s3cr3t-sig") if one in told}


def test_settings_show_no_credentials() -> None:
    settings = Settings(kafka="none:1", blobs=URLS[0])
    assert not _secrets_in(URLS[0], repr(settings), str(settings))
