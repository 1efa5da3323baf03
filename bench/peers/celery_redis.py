"""Celery with Redis as broker and result store: a real server and a real worker, on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from celery import Celery
from measure import measure

PORT = int(os.environ.get("PEERS_REDIS_PORT", "0"))
URL = f"redis://127.0.0.1:{PORT}/0"

app = Celery("peers", broker=URL, backend=URL)
app.conf.update(worker_prefetch_multiplier=64, task_ignore_result=False, broker_connection_retry_on_startup=True)


@app.task(name="echo")
def echo(text: str) -> str:
    return text


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    port = free_port()
    here = Path(__file__).resolve().parent
    server = Path(sys.executable).with_name("redis-server")
    environment = os.environ | {"PEERS_REDIS_PORT": str(port)}
    with tempfile.TemporaryDirectory() as home:
        commands = (
            [server, "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
            [
                sys.executable,
                "-m",
                "celery",
                "--workdir",
                here,
                "-A",
                "celery_redis",
                "worker",
                "-c",
                "2",
                "-l",
                "error",
            ],
        )
        parts: list[subprocess.Popen[bytes]] = []
        try:
            parts += (subprocess.Popen(one, cwd=home, env=environment, stdout=2) for one in commands)
            # A program of its own, so that its app knows the port from the start; its first call waits for both.
            subprocess.run([sys.executable, __file__, "caller"], env=environment, timeout=120, check=True)
        finally:
            for process in reversed(parts):
                process.terminate()
            for process in reversed(parts):
                process.wait(10)


if __name__ == "__main__":
    if sys.argv[1:] == ["caller"]:
        measure(echo.delay, lambda pending: pending.get(timeout=60))
    else:
        main()
