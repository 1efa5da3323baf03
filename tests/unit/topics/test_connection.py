"""TLS and SASL reach both Kafka clients from the same settings."""

import ssl
import subprocess
from pathlib import Path

import pytest
from confluent_kafka import Producer
from easyremote.errors import ConfigError
from easyremote.settings import Settings
from easyremote.topics.connection import confluent_config, faust_credentials
from faust import SASLCredentials, SSLCredentials
from pydantic import SecretStr


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test",
         "-keyout", folder / "key.pem", "-out", folder / "ca.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


def test_sasl_over_tls_reaches_both_clients(authority: Path) -> None:
    settings = Settings(
        kafka="broker:9093",
        kafka_security_protocol="SASL_SSL",
        kafka_sasl_username="ann",
        kafka_sasl_password=SecretStr("secret"),
        kafka_ssl_cafile=authority / "ca.pem",
    )
    config = confluent_config(settings)
    Producer(config)  # librdkafka refuses what it does not know
    assert config["security.protocol"] == "SASL_SSL"
    assert (config["sasl.mechanism"], config["sasl.username"], config["sasl.password"]) == (
        "SCRAM-SHA-512", "ann", "secret",
    )  # fmt: skip
    assert config["ssl.ca.location"] == str(authority / "ca.pem")
    credentials = faust_credentials(settings)
    assert isinstance(credentials, SASLCredentials)
    assert (credentials.username, credentials.password) == ("ann", "secret")
    assert credentials.ssl_context is not None
    assert credentials.ssl_context.verify_mode == ssl.CERT_REQUIRED


def test_mutual_tls_reaches_both_clients(authority: Path) -> None:
    settings = Settings(
        kafka="broker:9093",
        kafka_security_protocol="SSL",
        kafka_ssl_cafile=authority / "ca.pem",
        kafka_ssl_certfile=authority / "ca.pem",
        kafka_ssl_keyfile=authority / "key.pem",
    )
    config = confluent_config(settings)
    Producer(config)
    assert config["ssl.certificate.location"].endswith("ca.pem")
    assert config["ssl.key.location"].endswith("key.pem")
    assert isinstance(faust_credentials(settings), SSLCredentials)


def test_without_security_nothing_is_asked_for() -> None:
    settings = Settings(kafka="broker:9092")
    assert faust_credentials(settings) is None
    assert "sasl.username" not in confluent_config(settings)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="EASYREMOTE_KAFKA_SASL_USERNAME"):
        confluent_config(Settings(kafka="b:1", kafka_security_protocol="SASL_PLAINTEXT"))
    with pytest.raises(ConfigError, match="EASYREMOTE_KAFKA_SSL_CAFILE"):
        faust_credentials(Settings(kafka="b:1", kafka_security_protocol="SSL", kafka_ssl_cafile=tmp_path / "no.pem"))
