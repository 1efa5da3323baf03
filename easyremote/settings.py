"""All settings, each from an environment variable `EASYREMOTE_<NAME>` or its default here."""

from __future__ import annotations

import json
import os
import re
import socket
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from easyremote.errors import ConfigError

__all__ = [
    "ROLES",
    "Backend",
    "Delivery",
    "Role",
    "Settings",
    "Strategy",
    "load_settings",
    "user_cache_dir",
    "user_data_dir",
]

Role = Literal["router", "streams", "inference", "edge"]
Strategy = Literal["round_robin", "least_connections", "resource_aware", "model_affinity", "least_wait"]
Backend = Literal["torch", "onnx", "onnx-int8"]
Delivery = Literal["exactly_once", "at_least_once"]
ROLES: tuple[Role, ...] = ("router", "streams", "inference", "edge")


def user_data_dir() -> Path:
    """Return where this user's programs keep data, by the XDG base directory specification."""
    base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "easyremote"


def user_cache_dir() -> Path:
    """Return where this user's programs keep what can be made again, by the XDG base directory specification."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "easyremote"


class Settings(BaseSettings):
    """Settings of one process; see `docs/settings.md` for the operator's view.

    Every field is read from `EASYREMOTE_<FIELD>` in capitals.
    """

    model_config = SettingsConfigDict(env_prefix="EASYREMOTE_", extra="forbid", frozen=True)

    kafka: str | None = Field(default=None, description="host:port,... of a Kafka; unset: the embedded broker")
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    kafka_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "SCRAM-SHA-512"
    kafka_sasl_username: str | None = None
    kafka_sasl_password: SecretStr | None = None
    kafka_ssl_cafile: Path | None = Field(default=None, description="PEM file of the authorities to trust")
    kafka_ssl_certfile: Path | None = Field(default=None, description="PEM file of this client's certificate")
    kafka_ssl_keyfile: Path | None = Field(default=None, description="PEM file of this client's key")
    kafka_ssl_key_password: SecretStr | None = None

    namespace: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._-]*$",
        description="prefix of every topic and group, for systems sharing a Kafka",
    )
    replication_factor: int = Field(default=1, ge=1, le=32767, description="of the topics that are created")
    data_dir: Path = Field(default_factory=user_data_dir, description="broker data, caches")

    roles: Annotated[tuple[Role, ...], NoDecode] = ROLES
    node_id: str = Field(default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}", min_length=1, max_length=255)
    node_type: Literal["nlp", "vision", "general"] = "general"
    models: Annotated[tuple[str, ...] | None, NoDecode] = Field(
        default=None, description="models that the node holds, as module:Class, comma separated; unset: its type's"
    )
    model_classes: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="further classes that orders may name, as module:Class, comma separated"
    )
    weights: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="folders, and packages as package:NAME, that orders may take weights from, comma separated; unset: "
        "data_dir/models and the packages of the models that come along",
    )
    picture_bytes: int = Field(
        default=512 * 1024 * 1024, ge=1_024, description="of pictures that are decoded at the same time, together"
    )
    sentiment_model: str | None = Field(
        default=None, description="a model of one's own for sentiment: a folder, a hub name or module:Class"
    )
    image_model: str | None = Field(
        default=None, description="a model of one's own for images: a state dict of ResNet-50 or module:Class"
    )
    backend: Backend = Field(
        default="torch", description="what computes the models that come along; one that lacks it takes the next best"
    )
    functions: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="modules whose registered functions the node serves, comma separated"
    )
    pipelines: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="modules whose pipelines the role streams runs, comma separated"
    )
    pool: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_-]+$",
        max_length=200,
        description="the node's inference.<pool>; unset: its type",
    )

    window_s: float = Field(default=10.0, ge=0.001, description="length of the tumbling windows of readings, s")
    lateness_s: float = Field(default=5.0, ge=0, description="how far behind its series' newest a reading may be, s")
    idle_s: float = Field(default=30.0, gt=0, description="silence after which a series' windows are closed, s")
    z_threshold: float = Field(default=4.0, ge=0, description="absolute z-score of an anomaly; 0: no detection")
    commit_interval_ms: int = Field(default=100, ge=10, description="between two commits of the streams")
    delivery: Delivery = Field(
        default="exactly_once", description="of the streams' results: in transactions, or sent again after a crash"
    )
    create_sources: bool = Field(
        default=False, description="make a topic that a pipeline reads where it is not there, and not wait for it"
    )
    state_keys: int = Field(
        default=0, ge=0, description="keys of a partition that memory holds, the rest is on disk; 0: all of them"
    )
    standby: bool = Field(
        default=False, description="keep copies of the state of partitions that other workers hold, to take them over"
    )

    processor_id: str | None = Field(
        default=None,
        min_length=1,
        description="of the stream processor, which answers the statistics functions; unset: the node id where a "
        "worker plays both streams and inference, none where it plays streams alone",
    )
    device_id: str | None = Field(default=None, min_length=1, description="of the edge device; unset: none runs here")
    device_location: str = Field(default="unknown", min_length=1, description="where the edge device is")
    sensor_interval_s: float = Field(default=10.0, gt=0, description="between two readings of a sensor, s")

    reply_topics: str | None = Field(
        default=None,
        min_length=1,
        description="regular expression of the topics, besides replies, that calls may name for their replies; unset: "
        "any that is no system's",
    )
    create_reply_topics: int = Field(
        default=0,
        ge=0,
        le=1_000,
        description="partitions of a missing reply topic that workers make; 0: they make none",
    )
    max_payload_bytes: int = Field(default=1_000_000, ge=1_024, description="largest request or result, bytes")
    blobs: str | None = Field(
        default=None,
        min_length=1,
        repr=False,  # a URL may hold credentials
        description="the store of large arguments and results: a directory, or a URL for fsspec; unset: data_dir/blobs",
    )
    claim_bytes: int = Field(default=262_144, ge=1_024, description="larger arguments and results go by the store")
    max_blob_bytes: int = Field(
        default=64 * 1024 * 1024, ge=1_024, description="largest result, or arguments of a call, in the store"
    )
    blobs_kept_s: float = Field(default=86_400.0, gt=0, description="how long the store keeps what is put there, s")
    call_limit_s: float = Field(
        default=600.0, ge=0, description="how long a function or a forward pass may take, s; 0: as long as it likes"
    )
    function_threads: int = Field(
        default=32, ge=2, le=10_000, description="plain functions that run at once; of one function at most an eighth"
    )
    stream_threads: int = Field(
        default=32, ge=2, le=10_000, description="plain generators that run at once; of one function at most a quarter"
    )
    max_items: int = Field(default=2_048, ge=1, description="most inputs of one call of a model, such as texts")
    hung_limit: int = Field(default=4, ge=1, description="hanging threads from which on the worker ends itself")
    tracebacks: bool = Field(default=True, description="whether an error's reply says where the function raised")
    heartbeat_ms: int = Field(default=500, ge=50, description="between a node's heartbeats")
    node_timeout_ms: int = Field(default=2_000, ge=200, description="a node is dead when its last heartbeat is older")
    strategy: Strategy = Field(default="least_wait", description="how a node is chosen for a call that does not say")
    strategies: Annotated[dict[str, Strategy], NoDecode] = Field(
        default={}, description="of some functions instead, as function=strategy, comma separated"
    )
    group_session_ms: int = Field(default=1_500, ge=1_000, description="session of the consumer groups (KIP-848)")
    group_heartbeat_ms: int = Field(default=200, ge=100, description="heartbeat of the consumer groups (KIP-848)")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    worker_port: int = Field(
        default=0, ge=0, le=65535, description="of the Faust web server of the worker, on loopback; 0: none"
    )

    @field_validator("roles", "models", "model_classes", "weights", "functions", "pipelines", mode="before")
    @classmethod
    def _split_commas(cls, value: Any) -> Any:  # Any: pydantic hands over whatever the user wrote
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("reply_topics")
    @classmethod
    def _is_expression(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"it is no regular expression: {error}") from error
        return value

    @field_validator("strategies", mode="before")
    @classmethod
    def _split_pairs(cls, value: Any) -> Any:  # Any: pydantic hands over whatever the user wrote
        if isinstance(value, str):
            parts = [part.strip() for part in value.split(",") if part.strip()]
            wrong = [part for part in parts if not all(side.strip() for side in part.partition("=")[::2])]
            if wrong:
                raise ValueError(f"{wrong[0]!r} is not function=strategy")
            return {name.strip(): rule.strip() for name, _, rule in (part.partition("=") for part in parts)}
        return value

    @property
    def pool_name(self) -> str:
        """The pool that this node serves."""
        return self.pool or self.node_type

    @property
    def broker_state_file(self) -> Path:
        """Where the embedded broker says how to reach it."""
        return self.data_dir / "broker" / "state.json"

    def knows_kafka(self) -> bool:
        """Say whether a Kafka is configured, or the embedded one has said where it is."""
        try:
            self.bootstrap_servers()
        except ConfigError:
            return False
        return True

    def bootstrap_servers(self) -> str:
        """Return `host:port,...` of the configured or of the running embedded Kafka.

        Raises
        ------
        ConfigError
            If neither is known.
        """
        if self.kafka:
            return self.kafka
        try:
            state = json.loads(self.broker_state_file.read_text())
            return str(state["bootstrap_servers"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                "no Kafka is known: set EASYREMOTE_KAFKA=host:port, or start the embedded broker with "
                "'easyremote broker start' (or everything with 'easyremote up')"
            ) from error


def _explain(error: ValidationError) -> str:
    lines = []
    for item in error.errors():
        name = "EASYREMOTE_" + "_".join(str(part) for part in item["loc"][:1]).upper()
        lines.append(f"{name}={item['input']!r}: {item['msg']}")
    return "; ".join(lines)


@lru_cache(maxsize=1)
def load_settings() -> Settings:
    """Return this process's settings, read from the environment once.

    Raises
    ------
    ConfigError
        If a variable has a value that it cannot take; the message names it.
    """
    try:
        return Settings()
    except ValidationError as error:
        raise ConfigError(_explain(error)) from error
