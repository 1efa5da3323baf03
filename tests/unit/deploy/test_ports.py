import os
import socket

from easyremote.deploy.ports import free_port, is_free, listens


def test_a_free_port_is_one_that_outgoing_connections_are_not_given() -> None:
    chosen = {free_port() for _ in range(50)}
    assert len(chosen) > 40  # two programs that choose at once seldom meet
    assert all(20_000 <= port < 32_768 and is_free(port) for port in chosen)


def test_only_the_process_that_listens_is_said_to_listen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port)
        assert listens(os.getpid(), port)
        assert not listens(os.getppid(), port)
    assert not listens(os.getpid(), port)
