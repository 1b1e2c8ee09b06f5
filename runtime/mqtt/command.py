"""What `run` does with MQTT: answers messages, or publishes answers to what it reads."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

from ..heartbeat import Heartbeat
from ..interrupt import Interrupt, interrupts
from ..model import Model, load
from ..notes import note
from ..run_answers import ALL, check_rows
from ..run_command import carried_note, streaming_settings
from .broker import broker
from .connection import Connection
from .options import MOST_TOPICS
from .payload import PayloadReader
from .publisher import Publisher
from .service import Keeping, Service, Topics
from .store import StreamStore
from .topics import Subscription, TopicTemplate


def serve(args: argparse.Namespace) -> int:
    """Answer the messages of a subscription until interrupted.

    Raises:
        EdgeLSTMError: something is wrong with the options, the model, the states or the broker.
    """
    address = broker(args.mqtt, args.ca_file, args.client_cert, args.client_key, args.credentials)
    subscription = Subscription(args.subscribe)
    topics = Topics(
        subscription,
        TopicTemplate(args.publish, "--publish", subscription),
        TopicTemplate(args.errors or f"{args.publish}/error", "--errors", subscription),
    )
    if args.status is not None:
        TopicTemplate(args.status, "--status", subscription)
    model = load(args.model, args.backend, args.precision, args.allowed_signers)
    check_rows(model, args.rows == ALL, as_message=True)
    sequence = "seq" if args.sequence is None else args.sequence or None
    reader = PayloadReader(model.features, model.outputs, args.payload or "auto", sequence, args.rows == ALL)
    with ExitStack() as stack:
        stop = stack.enter_context(interrupts())
        settings = streaming_settings(args)
        store = StreamStore(
            lambda: model.stream(**settings), args.state, args.max_streams or 10000, args.max_topics or MOST_TOPICS
        )
        stack.callback(store.close)
        connection = Connection(
            address,
            args.client_id or _client_id(store),
            # Without --state nothing is continued, so the broker should keep nothing.
            keep_session=args.state is not None,
            status=args.status,
            subscribe=subscription.text,
            leave=_earlier_subscription(store, subscription),
        )
        _say(args, model)
        idle = 600.0 if args.idle is None else args.idle
        keeping = Keeping(idle, args.forget_after, args.save_every or 0.0, args.sequence_reset)
        heartbeat = stack.enter_context(Heartbeat(args.report, {"model": model.name, "backend": model.backend}))
        service = Service(store, connection, topics, reader, keeping, heartbeat)
        service.run(stop)
        counts = vars(service.counts)
    if args.json:
        print(json.dumps(counts))
    else:
        print("edgelstm: " + ", ".join(f"{n} {name}" for name, n in counts.items()), file=sys.stderr)
    return 0


@contextmanager
def publishing(args: argparse.Namespace, stop: Interrupt, patient: bool) -> Generator[Publisher]:
    """Something to write answers to, which publishes them; in the end it waits for the broker to have them.

    Args:
        args: of the command line.
        stop: the interruption that ends waiting.
        patient: whether the input can wait while the broker is away.

    Raises:
        EdgeLSTMError: something is wrong with the options or the broker.
    """
    address = broker(args.mqtt, args.ca_file, args.client_cert, args.client_key, args.credentials)
    topic = TopicTemplate(args.publish, "--publish", None).topic(())
    if args.status is not None:
        TopicTemplate(args.status, "--status", None)
    connection = Connection(address, args.client_id or _new_client_id(), status=args.status)
    publisher = Publisher(connection, topic, stop, patient)
    try:
        yield publisher
        publisher.finish()
    finally:
        publisher.close()


def _client_id(store: StreamStore) -> str:
    found = store.setting("client_id")
    if found is None:
        found = _new_client_id()
        store.keep_setting("client_id", found)
    return found


def _new_client_id() -> str:
    return f"edgelstm-{secrets.token_hex(6)}"


def _earlier_subscription(store: StreamStore, subscription: Subscription) -> str | None:
    """What the session on the broker may still be subscribed to from an earlier run."""
    found = store.setting("subscription")
    store.keep_setting("subscription", subscription.text)
    return None if found == subscription.text else found


def _say(args: argparse.Namespace, model: Model) -> None:
    notes: list[str] = []
    if args.state is None:
        notes.append("without --state FOLDER, all streams start from zero state next time")
    if model.streaming.window is not None and model.streaming.choose(**streaming_settings(args)) is None:
        notes.append(carried_note(model))
    for text in notes:
        note(text)
