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
from dataclasses import dataclass
from pathlib import Path

import psutil
from easyremote.bench.report import Report, step

HERE = Path(__file__).resolve().parent
PEERS = {"ray_serve": "Ray Serve", "celery_redis": "Celery with Redis", "easyremote_grpc": "easyremote 2.0.2"}
LIMIT_S = 240.0
STOP_S = 5.0


@dataclass(frozen=True)
class Figures:
    """What was measured of one of them."""

    p50_ms: float
    calls_per_s: float


class Missing(Exception):
    """A peer that could not be measured, and why."""


def peer(python: Path, name: str) -> Figures:
    """Run one peer's program and return its figures; end everything that it started, whatever happens."""
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [python, HERE / f"{name}.py"], stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        )
        try:
            said, _ = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired as error:
            raise Missing(f"no figures within {LIMIT_S:g} s") from error
        finally:
            end(process)
        for line in said.splitlines():
            if line.startswith('{"p50_ms"'):
                return Figures(**json.loads(line))
        errors.seek(0)
        raise Missing(f"it ended with code {process.returncode}: {errors.read()[-500:].strip() or said[-500:]}")


def end(process: subprocess.Popen[str]) -> None:
    """End a program that has not ended by itself, and its children."""
    if process.poll() is not None:
        return
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    for one in family:
        if one.is_running():
            one.terminate()
    for one in psutil.wait_procs(family, timeout=STOP_S)[1]:
        one.kill()
    process.wait()


def ours() -> dict[str, Figures]:
    """Measure this project as `easyremote bench rpc` does."""
    with tempfile.TemporaryDirectory() as home:
        file = Path(home) / "rpc.json"
        command = [Path(sys.executable).with_name("easyremote"), "bench", "rpc", "--json", file]
        said = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
        if said.returncode != 0:
            raise Missing(f"it ended with code {said.returncode}: {said.stderr[-500:]}")
        figures = {one["name"]: one["value"] for one in json.loads(file.read_text())["results"]}
    return {
        "EasyRemote, direct": Figures(figures["direct_p50"], figures["direct_rate"]),
        "EasyRemote, routed": Figures(figures["routed_p50"], figures["routed_rate"]),
    }


def main() -> None:
    """Measure all, print the table and the ratios to ours, and say who is missing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, required=True, help="the interpreter that has the peers' packages")
    parser.add_argument("--json", type=Path, help="write the figures here")
    given = parser.parse_args()
    missing: dict[str, Missing] = {}
    with step("EasyRemote"):
        found = ours()
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
        if title in found:
            for way in ("direct", "routed"):
                mine, theirs = found[f"EasyRemote, {way}"], found[title]
                report.ratios[f"{way} rate to {title}"] = mine.calls_per_s / theirs.calls_per_s
                report.ratios[f"{way} p50 to {title}"] = mine.p50_ms / theirs.p50_ms
    report.finish(given.json)
    for title, why in missing.items():
        print(f"{title} was not measured: {why}", file=sys.stderr)
    sys.exit(1 if missing else 0)


if __name__ == "__main__":
    main()
