"""The jars of Apache Kafka: fetched once by their Maven coordinates, each checked against its pinned sha256."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from easyremote.errors import ConfigError
from easyremote.folders import private_folder

__all__ = ["ENDPOINT", "KAFKA_VERSION", "PINS_FILE", "ensure_jars", "resolve_jars"]

KAFKA_VERSION = "4.3.1"
# slf4j-simple has the version of the slf4j-api that Kafka asks for; without a binding the broker's log is mute.
ENDPOINT = f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}+org.slf4j:slf4j-simple:1.7.36"
PINS_FILE = Path(__file__).with_name("kafka_jars.json")

_STAMP = "verified.json"


def resolve_jars(cache: Path) -> list[Path]:
    """Fetch the jars and what they depend on into `cache`; return their paths.

    Raises
    ------
    ConfigError
        If jgo is not installed, or the jars cannot be fetched.
    """
    try:
        import jgo
    except ImportError as error:
        raise ConfigError(
            "the embedded broker needs the extra 'broker': pip install 'easyremote-kafka[broker]', "
            "or set EASYREMOTE_KAFKA to a Kafka that runs elsewhere"
        ) from error
    logging.getLogger("jgo").setLevel(logging.ERROR)
    try:
        environment = jgo.build(endpoint=ENDPOINT, cache_dir=cache)
    except Exception as error:  # jgo lets through whatever its HTTP library raises
        raise ConfigError(
            f"Apache Kafka {KAFKA_VERSION} cannot be fetched ({type(error).__name__}: {error}): the first start needs "
            "a network that reaches Maven Central or a mirror of it; or set EASYREMOTE_KAFKA to a running Kafka"
        ) from error
    return list(environment.all_jars)


def ensure_jars(
    directory: Path,
    resolve: Callable[[Path], list[Path]] = resolve_jars,
    fetching: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Return the jars of the broker, fetched and checked if they are not there yet.

    Parameters
    ----------
    directory : Path
        Where they are kept.
    resolve : callable
        Fetches them into a directory.
    fetching : callable
        Told when a fetch begins, which takes some seconds.

    Returns
    -------
    list of Path
        One path for each pinned jar.

    Raises
    ------
    ConfigError
        If they cannot be fetched, or one is not what was pinned.
    """
    pins: dict[str, str] = json.loads(PINS_FILE.read_text())
    jars = [directory / name for name in pins]
    if _is_verified(directory, jars):
        return jars
    if not _match(directory, pins):
        fetching()
        private_folder(directory)
        with tempfile.TemporaryDirectory(dir=directory.parent) as scratch:
            fetched = {jar.name: jar for jar in resolve(Path(scratch))}
            _refuse_strangers(fetched, pins)
            for name, jar in fetched.items():
                # In a folder of its own until it is whole: another process may be fetching too.
                shutil.copyfile(jar, Path(scratch) / f"{name}.part")
                (Path(scratch) / f"{name}.part").replace(directory / name)
    _stamp(directory, jars)
    return jars


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _match(directory: Path, pins: dict[str, str]) -> bool:
    return all((directory / name).is_file() and _sha256(directory / name) == pin for name, pin in pins.items())


def _refuse_strangers(fetched: dict[str, Path], pins: dict[str, str]) -> None:
    odd = sorted(fetched.keys() ^ pins.keys())
    if odd:
        raise ConfigError(f"the fetched jars are not the pinned ones; these differ: {', '.join(odd)}")
    for name, pin in pins.items():
        actual = _sha256(fetched[name])
        if actual != pin:
            raise ConfigError(
                f"{name} was fetched with sha256 {actual}, pinned is {pin}: do not run it; ask where it comes from"
            )


def _facts(jars: list[Path]) -> dict[str, list[int]]:
    return {jar.name: [jar.stat().st_size, jar.stat().st_mtime_ns] for jar in jars if jar.is_file()}


def _is_verified(directory: Path, jars: list[Path]) -> bool:
    # The hashes of 44 MB take a quarter of a second; a start trusts sizes and times that it wrote itself.
    try:
        stamp = json.loads((directory / _STAMP).read_text())
    except (OSError, ValueError):
        return False
    return bool(stamp == {"pins": _sha256(PINS_FILE), "jars": _facts(jars)})


def _stamp(directory: Path, jars: list[Path]) -> None:
    (directory / _STAMP).write_text(json.dumps({"pins": _sha256(PINS_FILE), "jars": _facts(jars)}))
