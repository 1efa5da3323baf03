"""A TCP proxy between clients and one broker, on a thread of its own: it passes on, stalls, or cuts.

The broker must advertise the proxy's port, or clients go past it as soon as they know the broker: see `advertise`.
Standard library only, and nothing of the package, so that a black-box test may use it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import threading
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

__all__ = ["TcpProxy", "advertise", "free_port", "proxy"]

T = TypeVar("T")

_CHUNK_BYTES = 64 * 1024


def free_port() -> int:
    """Return a port of loopback that nobody has just now, and that no outgoing connection is given meanwhile."""
    for port in random.SystemRandom().sample(range(20_000, 32_768), 200):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("200 ports are all in use")


def advertise(port: int) -> dict[str, str]:
    """Return the broker's property by which clients come back through the proxy of that port."""
    return {"advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}"}


class TcpProxy:
    """Passes connections to `port` of loopback on to `to_port`.

    Parameters
    ----------
    to_port : int
        Where the broker listens.
    port : int, optional
        Where clients connect; a free one if unset.
    """

    def __init__(self, to_port: int, port: int | None = None) -> None:
        self.port = port or free_port()
        self.to_port = to_port
        self.accepted = 0
        """How many connections have come."""
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._flows: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name=f"proxy {self.port}", daemon=True)
        self._thread.start()
        self._do(self._open())

    @property
    def address(self) -> str:
        """What clients are given as the broker."""
        return f"127.0.0.1:{self.port}"

    def cut(self) -> None:
        """Reset all connections and refuse new ones, as if the broker were dead."""
        self._do(self._cut())

    def stall(self) -> None:
        """Keep all connections, and accept new ones, but pass nothing on, as if the network had gone."""
        self._do(self._let_flow(False))

    def resume(self) -> None:
        """Pass on again; what was stalled goes on where it stood."""
        self._do(self._resume())

    def close(self) -> None:
        """End everything."""
        self._do(self._cut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        left = asyncio.all_tasks(self._loop)
        for task in left:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _open(self) -> None:
        self._flows = asyncio.Event()
        self._flows.set()
        await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _let_flow(self, flows: bool) -> None:
        assert self._flows is not None
        if flows:
            self._flows.set()
        else:
            self._flows.clear()

    async def _cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._writers):
            writer.transport.abort()
        await self._let_flow(True)

    async def _resume(self) -> None:
        await self._let_flow(True)
        if self._server is None:
            await self._listen()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._flows is not None
        self.accepted += 1
        self._writers.add(writer)
        await self._flows.wait()
        try:
            onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", self.to_port)
        except OSError:
            writer.transport.abort()  # nobody is there: who connects must see it
            self._writers.discard(writer)
            return
        self._writers.add(onward_writer)
        try:
            await asyncio.gather(self._pass_on(reader, onward_writer), self._pass_on(onward_reader, writer))
        except asyncio.CancelledError:
            return  # the proxy is closed
        finally:
            for one in (writer, onward_writer):
                one.transport.abort()
                self._writers.discard(one)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        assert self._flows is not None
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK_BYTES):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        writer.transport.abort()  # Kafka's clients never close one direction alone


@contextlib.contextmanager
def proxy(to_port: int, port: int | None = None) -> Iterator[TcpProxy]:
    """Run a proxy until the block ends."""
    between = TcpProxy(to_port, port)
    try:
        yield between
    finally:
        between.close()
