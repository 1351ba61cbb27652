"""Finals as messages of MQTT, by paho-mqtt (extra `mqtt`): at least once, in their order."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTv311
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from edgeasr.actions.action import Action
from edgeasr.errors import ActionError, ConfigError

PORT, TLS_PORT = 1883, 8883
_AT_LEAST_ONCE = 1
_LONGEST_PAUSE_S = 30


class Broker(NamedTuple):
    """Of mqtt://[USER[:PASSWORD]@]HOST[:PORT]/TOPIC; mqtts:// is encrypted."""

    host: str
    port: int
    secure: bool
    user: str | None
    password: str | None
    topic: str

    @classmethod
    def parse(cls, url: str) -> Broker:
        """Errors: ConfigError, which does not repeat a password"""
        try:
            parts = urlsplit(url, allow_fragments=False)
            secure = parts.scheme == "mqtts"
            port = parts.port or (TLS_PORT if secure else PORT)
        except ValueError as error:
            raise ConfigError(f"got --mqtt with an address that cannot be read ({error})") from error
        topic = unquote(parts.path.removeprefix("/"))
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or "?" in url:
            raise ConfigError("got another address than --mqtt wants: mqtt://[USER:PASSWORD@]HOST[:PORT]/TOPIC")
        if set(topic) & {"#", "+"}:
            raise ConfigError(f"got topic {topic!r} in --mqtt, wanted one to publish on: # and + are not allowed there")
        if not topic or "\0" in topic or len(topic.encode()) > 65_535:
            raise ConfigError(f"got topic {topic!r} in --mqtt, wanted one to publish on, such as edgeasr/kitchen")
        user, password = (unquote(one) if one is not None else None for one in (parts.username, parts.password))
        return cls(parts.hostname, port, secure, user, password, topic)


class Mqtt(Action):
    """Publishes to one topic. A broker that is not there is tried again and again, in the background.

    timeout_s: for the broker to say that it has a message
    errors:    ConfigError for an address that cannot be used
    """

    def __init__(self, url: str, timeout_s: float = 5.0) -> None:
        self._broker, self._timeout_s = Broker.parse(url), timeout_s
        self.name = f"--mqtt {self._broker.host}"
        self._changed = threading.Condition()
        self._taken: set[int] = set()
        self._message: int | None = None  # that was published and not yet taken
        self._state = "not connected yet"
        self._client = self._connecting()

    def deliver(self, event: Mapping[str, Any]) -> None:
        if self._message is None:
            # Not before: what paho queued would come twice when it is tried again here.
            if not self._client.is_connected():
                raise ActionError(f"the broker is not there ({self._state})", again=True)
            published = self._client.publish(self._broker.topic, json.dumps(event), qos=_AT_LEAST_ONCE)
            self._message = published.mid
        with self._changed:
            if not self._changed.wait_for(lambda: self._message in self._taken, self._timeout_s):
                raise ActionError(f"the broker did not take a message within {self._timeout_s:g} s", again=True)
            self._taken.clear()
            self._message = None

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _connecting(self) -> Client:
        client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv311)
        if self._broker.user is not None:
            client.username_pw_set(self._broker.user, self._broker.password)
        if self._broker.secure:
            client.tls_set()
        client.on_connect, client.on_disconnect, client.on_publish = (
            self._connected,
            self._disconnected,
            self._published,
        )
        client.on_connect_fail = self._not_connected
        client.reconnect_delay_set(1, _LONGEST_PAUSE_S)
        client.connect_timeout = self._timeout_s
        try:
            client.connect_async(self._broker.host, self._broker.port)
        except ValueError as error:
            raise ConfigError(f"got --mqtt to {self._broker.host}:{self._broker.port} ({error})") from error
        client.loop_start()
        return client

    def _connected(
        self, client: Client, data: object, flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        del client, data, flags, properties
        self._state = str(reason)

    def _not_connected(self, client: Client, data: object) -> None:
        """paho does not say why, but calls this while it handles the error."""
        del client, data
        error = sys.exception()
        self._state = str(getattr(error, "strerror", None) or error)

    def _disconnected(
        self, client: Client, data: object, flags: DisconnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        del client, data, flags, properties
        if reason.is_failure and self._state == "Success":
            self._state = str(reason)

    def _published(
        self, client: Client, data: object, message: int, reason: ReasonCode, properties: Properties | None
    ) -> None:
        del client, data, reason, properties
        with self._changed:
            self._taken.add(message)
            self._changed.notify()
