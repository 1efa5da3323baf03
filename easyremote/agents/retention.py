"""Removes from the blob store what nobody needs any more."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec
import structlog
from mode import Service

from easyremote.errors import EasyRemoteError
from easyremote.threads import LongThread
from easyremote.topics.blobs import open_store
from easyremote.topics.dead_letters import DeadLetters, Wanted
from easyremote.topics.records import Claim

if TYPE_CHECKING:
    from easyremote.settings import Settings
    from easyremote.topics.blobs import BlobStore

__all__ = ["BlobRetention", "claimed_by_letters", "sweep"]

log = structlog.get_logger(__name__)

_MOST_BETWEEN_S = 600.0
"""Between two sweeps at most, s: listing a large bucket costs money and seconds."""


class _Claiming(msgspec.Struct):
    claims: list[Claim] = []


_decode_claiming = msgspec.json.Decoder(_Claiming).decode


def claimed_by_letters(settings: Settings) -> set[str]:
    """Return the keys of the blobs that dead letters need to be redriven; those that were dropped need none.

    Raises
    ------
    TopicError
        If the dead letters cannot be read.
    """
    letters = DeadLetters(settings)
    dropped = {letter_id for letter_id, one in letters.handled().items() if one.action == "dropped"}
    keys: set[str] = set()
    for letter in letters.matching(Wanted()):
        value = letter.value or b""
        if b'"claims"' not in value or letter.id in dropped:
            continue
        try:
            keys.update(claim.sha256 for claim in _decode_claiming(value).claims)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue  # no request: nothing can be fetched for it
    return keys


def sweep(store: BlobStore, before_s: float, kept: Callable[[], set[str]]) -> int:
    """Remove what was last put before a time, but for what is kept; return how many blobs went.

    Parameters
    ----------
    store : BlobStore
        Where.
    before_s : float
        s since the epoch.
    kept : callable
        Returns the keys that stay; asked only if there is something old.

    Raises
    ------
    OSError
        If the store cannot be read.
    """
    old = list(store.expired(before_s))
    if not old:
        return 0
    needed = kept()
    return sum(store.remove(key, before_s) for key in old if key not in needed)


class BlobRetention(Service):
    """Sweeps the blob store every ten minutes, or sooner if blobs are kept for less than twice that.

    Several workers may sweep one store.

    Parameters
    ----------
    settings : Settings
        Which store, how long it keeps.
    """

    abstract = False

    def __init__(self, settings: Settings, **kwargs: Any) -> None:  # Any: mode's own options
        super().__init__(**kwargs)
        self._settings = settings
        self._store = open_store(settings)
        self._closing = threading.Event()
        self._between_s = min(_MOST_BETWEEN_S, settings.blobs_kept_s / 2)

    async def on_start(self) -> None:
        """Begin."""
        # Of the loop's own executor a worker would wait for the end of a sweep before it ends itself.
        LongThread(self._keep_sweeping, "blob retention", stopping=self._closing).start()

    async def on_stop(self) -> None:
        """Begin no other sweep."""
        self._closing.set()

    def _keep_sweeping(self) -> None:
        # Workers that started together need not sweep together.
        wait_s = self._between_s * random.uniform(0.5, 1.0)  # noqa: S311  # spreads load
        while not self._closing.wait(wait_s):
            self._sweep()
            wait_s = self._between_s

    def _sweep(self) -> None:
        before_s = time.time() - self._settings.blobs_kept_s
        try:
            count = sweep(self._store, before_s, lambda: claimed_by_letters(self._settings))
        except (OSError, EasyRemoteError) as error:
            log.warning("old blobs were not removed; the next sweep tries again", error=str(error))
        else:
            if count:
                log.info("old blobs removed", count=count, store=self._store.place)
