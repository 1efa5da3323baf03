"""EasyRemote 2.0.2, the gRPC one from the package registry: gateway, node and client, on loopback."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
from easyremote import Client, ComputeNode, Server
from measure import OUTSTANDING, measure

START_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve_gateway(port: int) -> None:
    # It would listen on every address of the machine, and it unpickles what comes.
    make = grpc.aio.server

    def on_loopback(*args: Any, **kwargs: Any) -> Any:
        server = make(*args, **kwargs)
        listen = server.add_insecure_port
        server.add_insecure_port = lambda _address: listen(f"127.0.0.1:{port}")
        return server

    grpc.aio.server = on_loopback
    Server(port=port).start()


def serve_node(port: int) -> None:
    node = ComputeNode(f"127.0.0.1:{port}")

    @node.register
    def echo(text: str) -> str:
        return text

    node.serve()


def await_answer(client: Client) -> None:
    deadline = time.monotonic() + START_S
    while True:
        try:
            client.execute("echo", "ready")
        except Exception as error:  # whatever it raises until its node is there
            if time.monotonic() > deadline:
                raise SystemExit(f"it does not answer: {error}") from error
            time.sleep(0.2)
        else:
            return


def main() -> None:
    port = str(free_port())
    parts: list[subprocess.Popen[bytes]] = []
    try:
        parts += (subprocess.Popen([sys.executable, __file__, role, port], stdout=2) for role in ("gateway", "node"))
        client = Client(f"127.0.0.1:{port}")
        await_answer(client)
        # Its client blocks, so that outstanding calls are threads.
        with ThreadPoolExecutor(OUTSTANDING) as pool:

            def submit(text: str) -> Future[object]:
                return pool.submit(client.execute, "echo", text)

            measure(submit, lambda pending: pending.result(120))
    finally:
        for process in parts:
            process.kill()
            process.wait()


if __name__ == "__main__":
    if len(sys.argv) == 3:
        {"gateway": serve_gateway, "node": serve_node}[sys.argv[1]](int(sys.argv[2]))
    else:
        main()
