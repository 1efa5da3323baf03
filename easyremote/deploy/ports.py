"""Ports for the embedded broker, which must be known before it starts: Kafka writes them into its settings."""

from __future__ import annotations

import random
import socket

import psutil

from easyremote.errors import ConfigError

__all__ = ["free_port", "is_free", "listens"]

_CHOICE = range(20_000, 32_768)
"""Below what systems give to outgoing connections (Linux from 32768): there a client that tries to reach a broker which
is just away can be given that very port, and the broker does not get it back."""
_TRIES = 200


def free_port(besides: int = 0) -> int:
    """Return a port of the loopback address that nobody uses now.

    Until it is bound another program may take it: who is told so must choose again.

    Parameters
    ----------
    besides : int
        Not this one: it is already chosen for something else.

    Raises
    ------
    ConfigError
        If 200 ports chosen at random are all in use.
    """
    chance = random.SystemRandom()
    for _ in range(_TRIES):
        port = chance.choice(_CHOICE)
        if port != besides and is_free(port):
            return port
    raise ConfigError(f"{_TRIES} ports from {_CHOICE.start} to {_CHOICE.stop - 1} are all in use; give a --port")


def is_free(port: int) -> bool:
    """Say whether a port of the loopback address can be bound now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def listens(pid: int, port: int) -> bool:
    """Say whether this very process listens on a port: whoever else does would answer in its name."""
    try:
        sockets = psutil.Process(pid).net_connections("tcp")
    except psutil.NoSuchProcess:
        return False
    return any(one.status == psutil.CONN_LISTEN and one.laddr.port == port for one in sockets)
