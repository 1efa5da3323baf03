"""How both Kafka clients reach the broker: one place turns the settings into each one's own words."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any

from easyremote.errors import ConfigError
from easyremote.topics.outages import ClientLog

if TYPE_CHECKING:
    from faust.types.auth import CredentialsT

    from easyremote.settings import Settings

__all__ = ["COORDINATOR_LIMIT_S", "END_IS_TOLD_SOON", "confluent_config", "faust_broker_url", "faust_credentials"]

COORDINATOR_LIMIT_S = 3_600.0
"""The time limit of every administrative request to a group's coordinator: the longest that librdkafka takes.

One that runs out while the coordinator is away ends the process when that is back (decision 20). Who asks waits for
less, and lets the client go: a request that is given up together with its client harms nobody.
"""

END_IS_TOLD_SOON = {"fetch.wait.max.ms": 10}
"""For who reads to an end once: a partition's is told by a fetch that finds nothing, which waits half a second else."""


def confluent_config(settings: Settings) -> dict[str, Any]:
    """Return what every confluent-kafka client of this process is made with.

    Returns
    -------
    dict
        librdkafka settings: bootstrap servers, and TLS and SASL where they are set.

    Raises
    ------
    ConfigError
        If no Kafka is known, or SASL is asked for without a user and a password.
    """
    config: dict[str, Any] = {  # Any: librdkafka's settings are strings, numbers, booleans and functions
        "bootstrap.servers": settings.bootstrap_servers(),
        "security.protocol": settings.kafka_security_protocol,
        "client.id": settings.node_id,
        "socket.nagle.disable": True,
        "reconnect.backoff.ms": 50,
        "reconnect.backoff.max.ms": 1_000,
        "log_level": 3,
    } | ClientLog(settings.bootstrap_servers()).client
    if settings.kafka_security_protocol.startswith("SASL"):
        user, password = _sasl(settings)
        config["sasl.mechanism"] = settings.kafka_sasl_mechanism
        config["sasl.username"] = user
        config["sasl.password"] = password
    files = {
        "ssl.ca.location": settings.kafka_ssl_cafile,
        "ssl.certificate.location": settings.kafka_ssl_certfile,
        "ssl.key.location": settings.kafka_ssl_keyfile,
    }
    config |= {name: str(path) for name, path in files.items() if path is not None}
    if settings.kafka_ssl_key_password is not None:
        config["ssl.key.password"] = settings.kafka_ssl_key_password.get_secret_value()
    return config


def faust_broker_url(settings: Settings) -> str:
    """Return the broker as Faust names it.

    Examples
    --------
    >>> from easyremote.settings import Settings
    >>> faust_broker_url(Settings(kafka="a:9092,b:9092"))
    'kafka://a:9092;kafka://b:9092'
    """
    return ";".join(f"kafka://{host.strip()}" for host in settings.bootstrap_servers().split(","))


def faust_credentials(settings: Settings) -> CredentialsT | None:
    """Return the credentials for Faust's client, or None where the broker asks for none.

    Raises
    ------
    ConfigError
        If SASL is asked for without a user and a password, or a TLS file cannot be read.
    """
    from faust import SASLCredentials, SSLCredentials

    protocol = settings.kafka_security_protocol
    if protocol == "PLAINTEXT":
        return None
    context = _ssl_context(settings) if protocol.endswith("SSL") else None
    if protocol == "SSL":
        return SSLCredentials(context=context)
    user, password = _sasl(settings)
    return SASLCredentials(
        mechanism=settings.kafka_sasl_mechanism, username=user, password=password, ssl_context=context
    )


def _sasl(settings: Settings) -> tuple[str, str]:
    if settings.kafka_sasl_username is None or settings.kafka_sasl_password is None:
        raise ConfigError(
            f"EASYREMOTE_KAFKA_SECURITY_PROTOCOL={settings.kafka_security_protocol} needs "
            "EASYREMOTE_KAFKA_SASL_USERNAME and EASYREMOTE_KAFKA_SASL_PASSWORD"
        )
    return settings.kafka_sasl_username, settings.kafka_sasl_password.get_secret_value()


def _ssl_context(settings: Settings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(
            cafile=None if settings.kafka_ssl_cafile is None else str(settings.kafka_ssl_cafile)
        )
        if settings.kafka_ssl_certfile is not None:
            password = settings.kafka_ssl_key_password
            context.load_cert_chain(
                settings.kafka_ssl_certfile,
                settings.kafka_ssl_keyfile,
                None if password is None else password.get_secret_value(),
            )
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"the TLS files cannot be used ({error}): check EASYREMOTE_KAFKA_SSL_CAFILE, _CERTFILE and _KEYFILE"
        ) from error
    return context
