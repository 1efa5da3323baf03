"""Every error that EasyRemote raises, in one tree.

EasyRemoteError
├── ConfigError              a setting or a file of settings is wrong
├── TopicError               a topic or the broker is not as declared
│   └── BrokerUnavailable
├── CallError                a call ended without a result
│   ├── MalformedRequest
│   ├── UnknownReplyTopic    there is no topic, or no such partition, for the reply
│   ├── InvalidArguments
│   ├── UnknownFunction
│   │   └── NotOfferedHere   this node is not the one: the call is passed on
│   ├── PayloadTooLarge
│   ├── DeadlineExceeded
│   ├── NoNodeAvailable
│   ├── CallCancelled
│   ├── CallTimeout
│   ├── CrashSuspect
│   ├── BlobStoreError       a large argument or result cannot be stored, or a result not fetched
│   │   └── ClaimUnavailable
│   └── RemoteError          the function itself raised, on the node
├── ModelError               a model cannot be found, loaded or run
│   └── InvalidInput
├── WindowError              a window or a detector is misconfigured
└── EdgeError                a device, a sensor or its outbox failed

A class says itself whether a second try can help (`retriable`); the retry policy reads that and nothing else.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "BlobStoreError",
    "BrokerUnavailable",
    "CallCancelled",
    "CallError",
    "CallTimeout",
    "ClaimUnavailable",
    "ConfigError",
    "CrashSuspect",
    "DeadlineExceeded",
    "EasyRemoteError",
    "EdgeError",
    "InvalidArguments",
    "InvalidInput",
    "MalformedRequest",
    "ModelError",
    "NoNodeAvailable",
    "NotOfferedHere",
    "PayloadTooLarge",
    "RemoteError",
    "TopicError",
    "UnknownFunction",
    "UnknownReplyTopic",
    "WindowError",
    "call_error",
]


class EasyRemoteError(Exception):
    """Base of all errors of this package."""

    retriable: ClassVar[bool] = False


class ConfigError(EasyRemoteError):
    """A setting, an environment variable or a settings file is wrong."""


class TopicError(EasyRemoteError):
    """A topic does not exist or differs from its declaration."""


class BrokerUnavailable(TopicError):
    """No Kafka broker answers."""

    retriable = True


class CallError(EasyRemoteError):
    """A call ended without a result."""


class MalformedRequest(CallError):
    """The record is no request: not JSON, no `function`, or a field of the wrong type."""


class UnknownReplyTopic(CallError):
    """The topic that a call wants its reply in does not exist, or not the partition: it is not run."""


class InvalidArguments(CallError):
    """The function does not take these arguments."""


class UnknownFunction(CallError):
    """No node has ever offered a function of this name."""


class NotOfferedHere(UnknownFunction):
    """The node does not offer the function, not with this model, or is not the call's target: another may be."""


class PayloadTooLarge(CallError):
    """A request or a result is larger than the limit."""


class DeadlineExceeded(CallError, TimeoutError):
    """The deadline passed before the call was done; Python's own `TimeoutError` too."""


class NoNodeAvailable(CallError):
    """No live node offered the function until the deadline."""

    retriable = True


class CallCancelled(CallError):
    """The caller withdrew the call."""


class CallTimeout(CallError):
    """The function or the model was at work for longer than its limit; it may still be, but nobody waits for it."""


class CrashSuspect(CallError):
    """The call alone was under way at each of two or more deaths of processes; it is not run again."""


class BlobStoreError(CallError):
    """The blob store did not take a large argument or result, or does not have a result any more."""


class ClaimUnavailable(BlobStoreError):
    """The node cannot get an argument from the blob store; the function has not begun."""

    retriable = True


class RemoteError(CallError):
    """The function raised on the node.

    Parameters
    ----------
    message : str
        What the remote exception said.
    type : str
        Name of the remote exception's class.
    retriable : bool
        Whether the node thinks that a second try can help.
    traceback : str, optional
        Where it was raised there; a Python traceback of this error shows it below.
    """

    def __init__(
        self,
        message: str,
        *,
        type: str = "RemoteError",  # noqa: A002
        retriable: bool = False,
        traceback: str | None = None,
    ) -> None:
        super().__init__(message)
        self.type = type
        self.traceback = traceback
        self.retriable = retriable  # type: ignore[misc]  # what the node said overrides the class


class ModelError(EasyRemoteError):
    """A model cannot be found, loaded or run."""


class InvalidInput(ModelError):
    """The model cannot read this input."""


class WindowError(EasyRemoteError):
    """A window, an aggregate or a detector is misconfigured."""


class EdgeError(EasyRemoteError):
    """A device, one of its sensors or its outbox failed."""


_CALL_ERRORS: dict[str, type[CallError]] = {
    cls.__name__: cls
    for cls in (
        MalformedRequest,
        InvalidArguments,
        UnknownFunction,
        PayloadTooLarge,
        DeadlineExceeded,
        NoNodeAvailable,
        CallCancelled,
        CallTimeout,
        CrashSuspect,
        BlobStoreError,
        ClaimUnavailable,
    )
}


def call_error(
    type_name: str, message: str, *, retriable: bool, traceback: str | None = None, node_id: str | None = None
) -> CallError:
    """Return the exception that a reply of status `error` stands for.

    Parameters
    ----------
    type_name : str
        `error.type` of the reply: the class's name on the node.
    message : str
        `error.message` of the reply.
    retriable : bool
        `error.retriable` of the reply.
    traceback : str, optional
        `error.traceback` of the reply.
    node_id : str, optional
        Who raised it.

    Returns
    -------
    CallError
        An instance of the class of that name where it is one of this module's, else `RemoteError`.

    Examples
    --------
    >>> type(call_error("DeadlineExceeded", "late by 3 ms", retriable=False)).__name__
    'DeadlineExceeded'
    >>> call_error("KeyError", "'x'", retriable=False).type
    'KeyError'
    """
    known = _CALL_ERRORS.get(type_name)
    if known is not None:
        error = known(message)
    else:
        error = RemoteError(message, type=type_name, retriable=retriable, traceback=traceback)
    if traceback is not None:
        error.add_note(f"On node {node_id}:\n{traceback.rstrip()}")
    return error
