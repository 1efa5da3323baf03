"""Runs EasyRemote and its peers one after another on this machine: `make peers`.

Each peer is a program of its own in `.venv-peers`, whose packages would not go together with the project's.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from easyremote.bench.report import Report, step

HERE = Path(__file__).resolve().parent
PEERS = {"ray_serve": "Ray Serve", "celery_redis": "Celery with Redis", "easyremote_grpc": "easyremote 2.0.2"}
LIMIT_S = 240.0
STOP_S = 5.0
MARK = "PEERS_MARK"


@dataclass(frozen=True)
class Figures:
    """What was measured of one of them."""

    p50_ms: float
    calls_per_s: float


class Missing(Exception):
    """A peer that could not be measured, and why."""


def peer(python: Path, name: str) -> Figures:
    """Run one peer's program and return its figures.

    Raises
    ------
    Missing
        If it gives none.
    """
    said = said_by([python, HERE / f"{name}.py"], RAY_USAGE_STATS_ENABLED="0")
    for line in said.splitlines():
        if line.startswith('{"p50_ms"'):
            return Figures(**json.loads(line))
    raise Missing(f"it ended without figures: {said[-500:]}")


def ours() -> dict[str, Figures]:
    """Measure this project as `easyremote bench rpc` does.

    Raises
    ------
    Missing
        If that fails.
    """
    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "rpc.json"
        said_by([Path(sys.executable).with_name("easyremote"), "bench", "rpc", "--json", file])
        figures = {one["name"]: one["value"] for one in json.loads(file.read_text())["results"]}
    return {
        f"EasyRemote, {way}": Figures(figures[f"{way}_p50"], figures[f"{way}_rate"]) for way in ("direct", "routed")
    }


def said_by(command: Sequence[str | Path], **environment: str) -> str:
    """Run a program to its end and return its output; whatever it started is ended with it.

    Raises
    ------
    Missing
        If it cannot be started, fails, or is not done in time.
    """
    with tempfile.TemporaryFile("w+") as errors, ending() as marked:
        try:
            said = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=os.environ | environment | marked,
                timeout=LIMIT_S,
                check=False,
            )
        except OSError as error:
            raise Missing(f"it does not start: {error}") from error
        except subprocess.TimeoutExpired as error:
            raise Missing(f"no figures within {LIMIT_S:g} s") from error
        if said.returncode != 0:
            errors.seek(0)
            raise Missing(f"it ended with code {said.returncode}: {errors.read()[-500:].strip()}")
        return said.stdout


@contextmanager
def ending() -> Iterator[dict[str, str]]:
    """Yield a variable that marks programs; at the end of the block every process that has it is ended.

    Children, sessions and groups do not do: Ray's processes leave all of them.
    """
    mark = uuid.uuid4().hex
    try:
        yield {MARK: mark}
    finally:
        left = [one for one in psutil.process_iter() if mark_of(one) == mark]
        for one in left:
            one.terminate()
        for one in psutil.wait_procs(left, timeout=STOP_S)[1]:
            one.kill()


def mark_of(process: psutil.Process) -> str | None:
    """Return what marks a process, if it can be looked into."""
    try:
        return process.environ().get(MARK)
    except psutil.Error:
        return None


def main() -> None:
    """Measure all, print the table and the ratios to ours, and say who is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, required=True, help="the interpreter that has the peers' packages")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    missing: dict[str, Missing] = {}
    found: dict[str, Figures] = {}
    with step("EasyRemote"):
        try:
            found |= ours()
        except Missing as error:
            missing["EasyRemote"] = error
    for name, title in PEERS.items():
        with step(title):
            try:
                found[title] = peer(given.python, name)
            except Missing as error:
                missing[title] = error
    report = Report()
    for title, figures in found.items():
        report.add(f"{title}: p50", figures.p50_ms, "ms")
        report.add(f"{title}: 256 outstanding", figures.calls_per_s, "calls/s")
    for title in PEERS.values():
        for way in ("direct", "routed"):
            mine, theirs = found.get(f"EasyRemote, {way}"), found.get(title)
            if mine is not None and theirs is not None:
                report.ratios[f"{way} rate to {title}"] = mine.calls_per_s / theirs.calls_per_s
                report.ratios[f"{way} p50 to {title}"] = mine.p50_ms / theirs.p50_ms
    report.finish(given.json)
    for title, why in missing.items():
        print(f"{title} was not measured: {why}", file=sys.stderr)
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
