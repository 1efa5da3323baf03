import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # exported without saying so
from easyremote.errors import BrokerUnavailable, TopicError
from easyremote.settings import Settings
from easyremote.topics import admin as admin_module
from easyremote.topics.admin import TopicAdmin
from easyremote.topics.catalog import declarations
from easyremote.topics.follower import Follower

pytestmark = pytest.mark.broker


def test_a_topic_that_differs_is_named_with_the_difference(settings: Settings) -> None:
    client = AdminClient({"bootstrap.servers": settings.bootstrap_servers()})
    odd = NewTopic(settings.namespace + "alerts", num_partitions=3, config={"message.timestamp.type": "CreateTime"})
    client.create_topics([odd])[settings.namespace + "alerts"].result(10)
    with pytest.raises(TopicError) as told:
        TopicAdmin(settings).ensure(declarations())
    message = str(told.value)
    assert f"{settings.namespace}alerts: partitions 3, declared 4" in message
    assert "message.timestamp.type=CreateTime, declared LogAppendTime" in message


def test_topics_are_made_once_and_found_as_declared(settings: Settings) -> None:
    created = TopicAdmin(settings).ensure(declarations("mine"))
    assert settings.namespace + "inference.mine" in created
    assert TopicAdmin(settings).ensure(declarations("mine")) == []


def test_a_topic_that_is_not_there_says_what_to_start(settings: Settings) -> None:
    with pytest.raises(TopicError, match="easyremote up"):
        Follower(settings, settings.namespace + "nowhere", print, start="end")


def test_no_broker_is_named_with_its_address(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin_module, "_TIMEOUT_S", 0.5)
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:9"):
        TopicAdmin(settings.model_copy(update={"kafka": "127.0.0.1:9"})).partitions()
