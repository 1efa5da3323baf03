"""Claim checks: a large argument or result lies in the blob store, and the record says which blob it is.

`docs/protocol.md` says it for other languages. A claim names content, never a place, so no record can make a node
read a file or a URL; what is read is checked against its hash before anything looks into it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from msgspec import Raw, Struct

from easyremote.errors import BlobStoreError, ClaimUnavailable, PayloadTooLarge
from easyremote.topics.blobs import open_store
from easyremote.topics.records import Blob, Claim

if TYPE_CHECKING:
    from easyremote.settings import Settings
    from easyremote.topics.blobs import BlobStore
    from easyremote.topics.wire import Call

__all__ = ["Arguments", "ClaimDesk", "claimed_bytes"]

_UNKNOWN_BYTES = 1 << 62
_NULL = Raw(b"null")


class Arguments(Struct, frozen=True):
    """A call's arguments, each as JSON, and which of them are in the store."""

    args: list[Raw]
    kwargs: dict[str, Raw]
    claims: list[Claim] = []
    size: int = _UNKNOWN_BYTES
    """Bytes of all of them together, if known: most calls need no look at each."""


def claimed_bytes(call: Call) -> int:
    """Return how many bytes of a call's arguments are in the store."""
    return sum(claim.bytes for claim in call.claims)


class ClaimDesk:
    """Takes what is too large for a record into the store, and gives it back for a claim.

    Each of its methods but `is_large` and `has_large` waits for the store: not for an event loop.

    Parameters
    ----------
    settings : Settings
        Which store, from which size on, up to which size.
    store : BlobStore, optional
        The settings' own if unset.

    Raises
    ------
    ConfigError
        If the store of the settings cannot be opened.
    """

    def __init__(self, settings: Settings, store: BlobStore | None = None) -> None:
        self._store = store or open_store(settings)
        self._claim_bytes = settings.claim_bytes
        self.max_bytes = settings.max_blob_bytes
        self.is_used = settings.claim_bytes < settings.max_payload_bytes
        """Whether anything can go by the store: what fits into a record does not have to."""

    def is_large(self, encoded: bytes | Raw) -> bool:
        """Say whether JSON goes by the store."""
        return memoryview(encoded).nbytes > self._claim_bytes

    def has_large(self, arguments: Arguments) -> bool:
        """Say whether one of the arguments goes by the store."""
        limit = self._claim_bytes
        return arguments.size > limit and any(
            memoryview(one).nbytes > limit for one in (*arguments.args, *arguments.kwargs.values())
        )

    def check_in(self, function: str, arguments: Arguments) -> Arguments:
        """Put the large ones of a function's arguments into the store and return what the record says instead.

        Raises
        ------
        PayloadTooLarge
            If they are larger than the limit, together.
        BlobStoreError
            If the store does not take one.
        """
        places: list[tuple[int | str, Raw]] = [*enumerate(arguments.args), *arguments.kwargs.items()]
        large = [(place, bytes(one)) for place, one in places if self.is_large(one)]
        self._refuse_above(sum(len(one) for _, one in large), f"the arguments of {function}")
        args, kwargs = list(arguments.args), dict(arguments.kwargs)
        claims = []
        for place, content in large:
            blob = self.put(content, f"argument {place!r} of {function}")
            claims.append(Claim(blob.sha256, blob.bytes, place))
            if isinstance(place, int):
                args[place] = _NULL
            else:
                kwargs[place] = _NULL
        return Arguments(args, kwargs, claims)

    def redeem(self, call: Call) -> Arguments:
        """Return a call's arguments, those from the store among them.

        Raises
        ------
        PayloadTooLarge
            If they are larger than the limit, together; nothing is fetched then.
        ClaimUnavailable
            If one is not in this node's store, or not what it should be.
        """
        if not call.claims:
            return Arguments(call.args, call.kwargs)
        self._refuse_above(claimed_bytes(call), f"the arguments of {call.function}")
        args, kwargs = list(call.args), dict(call.kwargs)
        for claim in call.claims:
            try:
                content = Raw(self.get(claim, f"argument {claim.arg!r} of {call.function}"))
            except BlobStoreError as error:
                raise ClaimUnavailable(str(error)) from error
            if isinstance(claim.arg, int):
                args[claim.arg] = content
            else:
                kwargs[claim.arg] = content
        return Arguments(args, kwargs)

    def put(self, content: bytes, what: str) -> Blob:
        """Put content into the store; `what` it is, is for the message.

        Raises
        ------
        PayloadTooLarge
            If it is larger than the limit.
        BlobStoreError
            If the store does not take it.
        """
        self._refuse_above(len(content), what)
        blob = Blob(hashlib.sha256(content).hexdigest(), len(content))
        try:
            self._store.put(blob.sha256, content)
        except OSError as error:
            raise BlobStoreError(
                f"the blob store {self._store.place} does not take the {what}, {len(content)} bytes: {error}; make "
                "room or give access there, or set EASYREMOTE_BLOBS"
            ) from error
        return blob

    def get(self, blob: Blob, what: str) -> bytes:
        """Return what a blob holds, checked against its size and hash; `what` it is, is for the message.

        Raises
        ------
        BlobStoreError
            If it is not there, not to be had, or not what it should be.
        """
        try:
            content = self._store.get(blob.sha256, blob.bytes + 1)
        except FileNotFoundError as error:
            raise BlobStoreError(
                f"the {what}, blob {blob.sha256}, is not in the store {self._store.place}: point clients and nodes at "
                "one store that they share (EASYREMOTE_BLOBS), and let it keep blobs for as long as calls may wait "
                "(EASYREMOTE_BLOBS_KEPT_S)"
            ) from error
        except OSError as error:
            raise BlobStoreError(
                f"the {what}, blob {blob.sha256}, cannot be read from the store {self._store.place}: {error}"
            ) from error
        if len(content) != blob.bytes or hashlib.sha256(content).hexdigest() != blob.sha256:
            size = f"{len(content)} bytes" if len(content) <= blob.bytes else f"more than {blob.bytes} bytes"
            raise BlobStoreError(
                f"the {what}, blob {blob.sha256} of {blob.bytes} bytes, is damaged in the store {self._store.place}: "
                f"{size} that are not its content; send the call again"
            )
        return content

    def _refuse_above(self, size: int, what: str) -> None:
        if size > self.max_bytes:
            raise PayloadTooLarge(
                f"{what}: {size} bytes, the limit is {self.max_bytes} bytes (EASYREMOTE_MAX_BLOB_BYTES)"
            )
