"""The proxy that tests put before a broker."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from proxy import proxy


@pytest.fixture
def echo() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    one, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(one,), daemon=True).start()

        def answer(one: socket.socket) -> None:
            with one:
                while data := one.recv(1000):
                    one.sendall(data)

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


def say(client: socket.socket, text: bytes) -> bytes:
    client.sendall(text)
    return client.recv(1000)


def is_gone(client: socket.socket) -> bool:
    try:
        return client.recv(1000) == b""
    except ConnectionError:
        return True


def test_it_passes_on_stalls_and_goes_on(echo: int) -> None:
    with proxy(echo) as between, socket.create_connection(("127.0.0.1", between.port), 5) as client:
        assert say(client, b"one") == b"one"
        between.stall()
        client.settimeout(0.1)
        with pytest.raises(TimeoutError):
            say(client, b"two")
        between.resume()
        client.settimeout(5)
        assert client.recv(1000) == b"two"


def test_it_cuts_refuses_and_serves_again(echo: int) -> None:
    with proxy(echo) as between:
        with socket.create_connection(("127.0.0.1", between.port), 5) as client:
            assert say(client, b"one") == b"one"
            between.cut()
            assert is_gone(client)
        with pytest.raises(ConnectionError):
            socket.create_connection(("127.0.0.1", between.port), 5)
        between.resume()
        with socket.create_connection(("127.0.0.1", between.port), 5) as client:
            assert say(client, b"again") == b"again"
