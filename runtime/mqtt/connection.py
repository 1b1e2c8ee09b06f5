"""A connection to a broker that is kept up: found, lost and found again, all in the caller's own loop.

Nothing here runs beside the caller but the attempt to connect, which may hang for seconds where a network is down.
"""

from __future__ import annotations

import importlib
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from ..errors import BackendUnavailableError, InputError
from ..notes import note
from .broker import Broker
from .message import Message

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage

_KEEPALIVE = 60
# Seconds before the first and at most before any later attempt to connect again.
_DELAYS = 1.0, 60.0
# Messages on their way to the broker at once. Packet identifiers are 16 bits, so there is an end to it.
_IN_FLIGHT = 1000
# Seconds for what is on its way when the end is asked for.
_PARTING = 5.0


class Connection:
    """A connection to a broker. Owned by one thread.

    Attributes:
        connected: whether there is one at the moment.
        subscribed: whether the broker has confirmed the subscription once.
        kept: whether the broker still knew the session when last connected; None before.
        losses: how often a connection ended. What was not acknowledged by then comes again.
        received: messages that came and nobody has taken yet, oldest first.
        confirmed: how many acknowledgements, counted as `acknowledge` does, the broker is known to have.
    """

    def __init__(
        self,
        broker: Broker,
        client_id: str,
        keep_session: bool = False,
        status: str | None = None,
        subscribe: str | None = None,
        leave: str | None = None,
        announce: bool = True,
    ) -> None:
        """Prepare; `turn` connects.

        Args:
            broker: where to.
            client_id: the name under which the broker knows the session.
            keep_session: whether the broker keeps messages for it while there is no connection.
            status: where to say "online" and, by the last will, "offline", both retained.
            subscribe: the topic filter to receive.
            leave: a topic filter of earlier that the session may still have.
            announce: whether to say so when it listens.

        Raises:
            BackendUnavailableError: paho-mqtt is not installed.
            InputError: a certificate is unusable.
        """
        mqtt = _paho()
        self._broker = broker
        self._status, self._subscribe, self._leave, self._announce = status, subscribe, leave, announce
        self.connected = self.subscribed = False
        self.kept: bool | None = None
        self.received: deque[Message] = deque()
        self.losses = self.confirmed = 0
        self._acknowledged = 0
        self._waiting: deque[tuple[str, bytes, bool, Callable[[], None] | None]] = deque()
        # By packet identifier: whom to tell, and how many acknowledgements went before it on this connection.
        self._on_the_way: dict[int, tuple[Callable[[], None] | None, int]] = {}
        self._attempt: threading.Thread | None = None
        self._failure: Exception | None = None
        self._refusal: str | None = None
        self._greeting = self._told = self._closing = False
        self._delay, self._again_at = _DELAYS[0], 0.0
        self._client: Client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id,
            clean_session=not keep_session,
            protocol=mqtt.MQTTv311,
            manual_ack=True,
        )
        self._prepare(self._client)

    def _prepare(self, client: Client) -> None:
        broker = self._broker
        client.max_inflight_messages_set(0)
        client.connect_async(broker.host, broker.port, _KEEPALIVE)
        if broker.user is not None:
            client.username_pw_set(broker.user, broker.password)
        if broker.tls:
            cast(Any, client).tls_set_context(broker.tls_context())
        if self._status is not None:
            client.will_set(self._status, "offline", qos=1, retain=True)

        def on_socket_open(_client: Client, _data: Any, sock: Any) -> None:
            # Else the small packets of an exchange wait for each other's acknowledgements, 40 ms at a time.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def on_connect(_client: Client, _data: Any, flags: Any, reason: Any, _properties: Any) -> None:
            if reason.is_failure:
                self._refusal = str(reason)
            else:
                self.connected, self._greeting, self.kept = True, True, bool(flags.session_present)

        def on_disconnect(_client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
            if self.connected and not self._closing:
                note(f"the connection to {broker} is lost ({reason}); connecting again")
            self.connected = False
            self.losses += 1
            self.received.clear()  # Not acknowledged, so they come again.
            self._postpone()
            # What was sent last on it may never have arrived.
            self._on_the_way = {mid: (done, 0) for mid, (done, _) in self._on_the_way.items()}

        def on_subscribe(_client: Client, _data: Any, _mid: int, reasons: Any, _properties: Any) -> None:
            if any(reason.is_failure for reason in reasons):
                raise InputError(f"{broker} refuses the subscription to {self._subscribe}; check its access rules")
            self.subscribed = True
            if self._announce:
                note(f"listening to {self._subscribe} on {broker}")

        def on_message(_client: Client, _data: Any, message: MQTTMessage) -> None:
            try:
                topic = message.topic
            except UnicodeDecodeError:
                topic = None
            payload = bytes(message.payload)
            self.received.append(Message(topic, payload, message.mid, message.qos, message.dup, message.retain))

        def on_publish(_client: Client, _data: Any, mid: int, _reason: Any, _properties: Any) -> None:
            done, acknowledged = self._on_the_way.pop(mid, (None, 0))
            # The broker takes packets in the order in which they were sent: what went before this has arrived too.
            self.confirmed = max(self.confirmed, acknowledged)
            if done is not None:
                done()

        client.on_socket_open = on_socket_open
        client.on_connect = on_connect
        client.on_disconnect = on_disconnect
        client.on_subscribe = on_subscribe
        client.on_message = on_message
        client.on_publish = on_publish

    @property
    def unpublished(self) -> int:
        """How many messages the broker has not confirmed."""
        return len(self._waiting) + len(self._on_the_way)

    def publish(self, topic: str, payload: bytes, done: Callable[[], None] | None = None, retain: bool = False) -> None:
        """Publish at QoS 1, now or when there is a connection again; call `done` when the broker has it."""
        self._waiting.append((topic, payload, retain, done))
        self._send()

    def drop_oldest(self) -> bool:
        """Give up the oldest message that was not sent yet; False if there is none."""
        if self._waiting:
            self._waiting.popleft()
            return True
        return False

    def acknowledge(self, message: Message) -> int:
        """Tell the broker that a message need not come again.

        Returns:
            Which acknowledgement it is, from 1, to compare with `confirmed`.
        """
        self._acknowledged += 1
        self._client.ack(message.mid, message.qos)
        return self._acknowledged

    def turn(self, timeout: float, *others: int) -> set[int]:
        """One round: wait for something to do and do it, connecting included.

        Args:
            timeout: seconds to wait at most.
            others: file descriptors of the caller's to wait for as well.

        Returns:
            Those of `others` that can be read, and -1 if the broker sent something.

        Raises:
            InputError: the broker refuses, at the first connection; later ones are tried again.
        """
        sock, timeout = self._connection(timeout)
        buffered = sock is not None and hasattr(sock, "pending") and sock.pending() > 0
        reads = [*others, *([] if sock is None else [sock])]
        writes = [sock] if sock is not None and self._client.want_write() else []
        readable, writable, _ = select.select(reads, writes, [], 0.0 if buffered else timeout)
        ready = {file for file in readable if file is not sock}
        if sock is None:
            return ready
        if buffered or sock in readable:
            self._client.loop_read()
            self._acknowledge_at_once()
            ready.add(-1)
        if writable:
            self._client.loop_write()
        self._client.loop_misc()
        if self._refusal is not None:
            self._refused(self._refusal)
        if self._greeting:
            self._greet()
        self._send()
        return ready

    def close(self) -> int:
        """Say "offline" where that was asked for, wait a little for what is on its way, and leave.

        Returns:
            How many messages the broker has not confirmed.
        """
        self._closing = True
        if self._status is not None and self.connected:
            self.publish(self._status, b"offline", retain=True)
        until = time.monotonic() + _PARTING
        while self.connected and (self.unpublished or self._client.want_write()) and time.monotonic() < until:
            self.turn(0.1)
        if self.connected:
            self._client.disconnect()
        return self.unpublished

    def _acknowledge_at_once(self) -> None:
        """A broker without TCP_NODELAY holds its next small packet until we acknowledge the last: 40 ms by default."""
        sock: Any = self._client.socket()
        if sock is not None and hasattr(socket, "TCP_QUICKACK"):
            # It does not stay set.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def _connection(self, timeout: float) -> tuple[Any, float]:
        """The socket, if there is one, and how long to wait at most; starts and ends attempts to connect."""
        if self._attempt is not None:
            if self._attempt.is_alive():
                return None, min(timeout, 0.02)
            self._attempt = None
            if self._failure is not None:
                self._failed(self._failure)
        sock: Any = self._client.socket()
        if sock is not None or self._closing:
            return sock, timeout
        wait = self._again_at - time.monotonic()
        if wait > 0:
            return None, min(timeout, wait)
        self._attempt = threading.Thread(target=self._try, daemon=True)
        self._attempt.start()
        return None, min(timeout, 0.02)

    def _try(self) -> None:
        self._failure = None
        try:
            self._client.reconnect()
        except (OSError, ValueError) as error:
            self._failure = error

    def _failed(self, failure: Exception) -> None:
        import ssl

        if isinstance(failure, ssl.SSLError | ssl.CertificateError) and self.kept is None:
            raise InputError(
                f"no TLS connection to {self._broker} ({failure}); check its port, its certificate and --ca-file"
            ) from failure
        if not self._told:
            note(f"{self._broker} cannot be reached ({failure}); trying again until it can")
            self._told = True
        self._postpone()

    def _refused(self, reason: str) -> None:
        self._refusal = None
        if self.kept is None and "unavailable" not in reason.lower():
            raise InputError(f"{self._broker} refuses the connection ({reason}); check --credentials and --client-id")
        if not self._told:
            note(f"{self._broker} refuses the connection ({reason}); trying again")
            self._told = True

    def _postpone(self) -> None:
        self._again_at = time.monotonic() + self._delay
        self._delay = min(2 * self._delay, _DELAYS[1])

    def _greet(self) -> None:
        self._greeting = self._told = False
        self._delay = _DELAYS[0]
        if self._leave is not None:
            self._client.unsubscribe(self._leave)
        if self._subscribe is not None:
            # Also where the session is kept: it costs nothing, and mends a session that lacks it.
            self._client.subscribe(self._subscribe, qos=1)
        if self._status is not None:
            self.publish(self._status, b"online", retain=True)

    def _send(self) -> None:
        while self.connected and self._waiting and len(self._on_the_way) < _IN_FLIGHT:
            topic, payload, retain, done = self._waiting.popleft()
            sent = self._client.publish(topic, payload, qos=1, retain=retain)
            self._on_the_way[sent.mid] = (done, self._acknowledged)


def _paho() -> Any:
    try:
        return importlib.import_module("paho.mqtt.client")
    except ModuleNotFoundError as error:
        raise BackendUnavailableError('MQTT needs paho-mqtt: pip install "edgelstm[mqtt]"') from error
