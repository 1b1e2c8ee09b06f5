"""What a service on MQTT does with damaged streams, sensors that count anew, and topics without end."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from contextlib import closing, suppress

import pytest
from edgelstm.runtime.mqtt.database import Database
from edgelstm.runtime.mqtt.options import duration

from tests.runtime.command_line import call, refused
from tests.runtime.conftest import textbook_lstm
from tests.runtime.scripted_broker import TOPIC, close, exchange, message, reported
from tests.waiting import until

OTHER, THIRD = "plant/8/in", "plant/9/in"
FILE = "streams.sqlite"


@pytest.mark.slow
def test_a_damaged_stream_is_reported_and_the_others_go_on(start, broker, weights, xs, expected, tmp_path):
    served = start()
    for t in range(3):
        for topic in (TOPIC, OTHER):
            exchange(broker, message(xs[t], t), 1, topic=topic)
    served.end()
    file = tmp_path / "states" / FILE
    content = file.read_bytes()
    at = content.index(b"EDGESTRM") + 60  # A state's bytes, of one of the two.
    file.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
    with closing(Database(shutil.copytree(file.parent, tmp_path / "copy"))) as database:
        ((broken, _),) = database.damaged()
    sound = OTHER if broken == TOPIC else TOPIC

    served = start()
    assert close(exchange(broker, message(xs[3], 3), 1, topic=sound), expected[3])
    broker.send(broken, message(xs[3], 3), 2)
    assert "the stream of this topic was damaged on disk" in reported(broker, broken)
    answer = broker.answer()
    assert close(answer.payload, textbook_lstm(weights, xs[3:4])[0])
    broker.confirm(answer)
    assert broker.acknowledged() == 2
    exchange(broker, message(xs[4], 4), 3, topic=broken)
    assert "1 damaged streams are set aside" in served.end()
    shown = json.loads(call("streams", tmp_path / "states", "--json").stdout)
    assert shown["damaged"] == [{"topic": broken, "problem": "it is not what was written"}]
    assert [stream["topic"] for stream in shown["streams"]] == [TOPIC, OTHER]


@pytest.mark.slow
def test_a_file_of_noise_is_kept_and_every_topic_told(start, broker, weights, xs, tmp_path):
    served = start()
    for topic in (TOPIC, OTHER):
        exchange(broker, message(xs[0], 0), 1, topic=topic)
    served.end()
    noise = random.Random(3).randbytes(12288)
    (tmp_path / "states" / FILE).write_bytes(noise)
    served = start()
    for topic in (TOPIC, OTHER):
        broker.send(topic, message(xs[1], 1), 1)
        assert "if this topic had one, it starts again from zero state" in reported(broker, topic)
        answer = broker.answer()
        assert close(answer.payload, textbook_lstm(weights, xs[1:2])[0])
        broker.confirm(answer)
        assert broker.acknowledged() == 1
        assert close(exchange(broker, message(xs[2], 2), 2, topic=topic), textbook_lstm(weights, xs[1:3])[1])
    assert "kept as streams.sqlite.damaged" in served.end()
    assert (tmp_path / "states" / f"{FILE}.damaged").read_bytes() == noise


def test_a_sensor_that_counts_anew_has_its_stream_start_again(start, broker, weights, xs, expected):
    served = start("--sequence-reset")
    for t in range(3):
        assert close(exchange(broker, message(xs[t], t), t + 1), expected[t])
    again = textbook_lstm(weights, xs[10:13])
    assert close(exchange(broker, message(xs[10], 0), 4), again[0])
    # Repetitions of the new numbers are some, and of other values none.
    assert close(exchange(broker, message(xs[10], 0), 5), again[0])
    assert close(exchange(broker, message(xs[11], 1), 6), again[1])
    broker.send(TOPIC, message(xs[12], 1), 7)
    assert "number 1 came before with other values" in reported(broker)
    assert broker.acknowledged() == 7
    # What does not fit the model starts nothing again.
    broker.send(TOPIC, b'{"seq": 0, "a": 1, "b": 1e99, "c": 2}', 8)
    assert "feature 1 is inf" in reported(broker)
    assert broker.acknowledged() == 8
    assert close(exchange(broker, message(xs[12], 2), 9), again[2])
    assert "its numbers start again at 0" in served.end()


@pytest.mark.slow
def test_what_the_broker_sends_again_starts_nothing_again(start, broker, weights, xs, tmp_path):
    """Numbers 0 and 1 of the old count and 0 of the new one are saved and not acknowledged: all of them come again."""
    served = start("--sequence-reset")
    sent = [(xs[0], 0), (xs[1], 1), (xs[5], 0)]
    first = []
    for mid, (x, sequence) in enumerate(sent, 1):
        broker.send(TOPIC, message(x, sequence), mid)
        first.append(broker.answer().payload)
    assert close(first[2], textbook_lstm(weights, xs[5:6])[0])
    until(lambda: saved(tmp_path) == {TOPIC: 3}, "all are saved")
    served.kill()
    start("--sequence-reset", session_present=True)
    for mid, (x, sequence) in enumerate(sent, 1):
        assert exchange(broker, message(x, sequence), mid, dup=True) == first[mid - 1]
    assert close(exchange(broker, message(xs[6], 1), 4), textbook_lstm(weights, xs[5:7])[1])


def test_a_count_that_begins_with_another_number(start, broker, weights, xs):
    start("--sequence-reset", 1)
    for t in (1, 2):
        exchange(broker, message(xs[t], t), t)
    assert close(exchange(broker, message(xs[5], 1), 3), textbook_lstm(weights, xs[5:6])[0])


def test_without_the_option_a_low_number_is_a_repetition_and_the_remedy_is_named(start, broker, xs):
    start()
    for t in range(3):
        exchange(broker, message(xs[t], t), t + 1)
    broker.send(TOPIC, message(xs[5], 0), 4)
    assert "--sequence-reset starts its stream again" in reported(broker)
    broker.confirm(broker.answer())
    assert broker.acknowledged() == 4


def saved(folder) -> dict[str, int]:
    """Topics on disk and how many answers each has, by a copy: the service lets nobody else read it."""
    copy = shutil.copytree(folder / "states", folder / "copy", dirs_exist_ok=True)
    with closing(sqlite3.connect(copy / FILE)) as database, suppress(sqlite3.DatabaseError):
        found = database.execute("SELECT topic, answers FROM streams").fetchall()
        return {topic: len(json.loads(answers)) for topic, answers in found}
    return {}


@pytest.mark.slow
def test_topics_are_forgotten_and_begin_anew(start, broker, weights, xs, tmp_path):
    start("--forget-after", "2s")
    for t in range(2):
        exchange(broker, message(xs[t]), t + 1)
    until(lambda: TOPIC in saved(tmp_path), "it is saved")
    until(lambda: TOPIC not in saved(tmp_path), "it is forgotten", pause=0.1)
    assert close(exchange(broker, message(xs[2]), 3), textbook_lstm(weights, xs[2:3])[0])


@pytest.mark.slow
def test_one_topic_too_many_is_reported_and_the_others_go_on(start, broker, xs, expected):
    served = start("--max-topics", 2)
    for topic in (TOPIC, OTHER):
        exchange(broker, message(xs[0]), 1, topic=topic)
    broker.send(THIRD, message(xs[0]), 2)
    assert "2 topics have a stream, and no more may (--max-topics)" in reported(broker, THIRD)
    assert broker.acknowledged() == 2
    assert close(exchange(broker, message(xs[1]), 3), expected[1])
    served.end()
    # The remedy that the message names.
    served = start("--max-topics", 2, "--forget-after", "1s")
    exchange(broker, message(xs[2]), 4)
    served.end()


@pytest.mark.slow
def test_a_topic_that_is_dropped_begins_anew(start, broker, weights, xs, expected, tmp_path):
    served = start()
    for topic in (TOPIC, OTHER):
        exchange(broker, message(xs[0]), 1, topic=topic)
    assert "in use by another process" in refused("streams", tmp_path / "states")
    served.end()
    assert call("streams", tmp_path / "states", "--drop", TOPIC).returncode == 0
    start()
    assert close(exchange(broker, message(xs[1]), 2), textbook_lstm(weights, xs[1:2])[0])
    assert close(exchange(broker, message(xs[1]), 2, topic=OTHER), expected[1])


def test_durations():
    given = {"90": 90, "90s": 90, "1.5m": 90, "12h": 43200, "7d": 604800, "4w": 2419200, "2 d": 172800}
    assert {text: duration(text) for text in given} == given
    where = ("--mqtt", "mqtt://127.0.0.1:1", "--subscribe", "plant/+/in", "--publish", "out/{1}")
    for text in ("0", "-1", "nan", "inf", "1y", "", "1e3", "٣"):
        assert "is no duration; such are 90, 90s, 30m" in refused("any.edge", *where, f"--forget-after={text}")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--forget-after", "7d"), "--forget-after goes with --mqtt"),
        (("--sequence-reset",), "--sequence-reset goes with --mqtt"),
        (("--max-topics", "5"), "--max-topics goes with --mqtt"),
    ],
)
def test_options_that_go_with_a_subscription(bundle, options, words):
    with_publish = ("--mqtt", "mqtt://127.0.0.1:1", "--publish", "out")
    assert words.removesuffix("mqtt") + "subscribe" in refused(bundle, *with_publish, *options)
    subscribed = (*with_publish, "--subscribe", "in/+")
    assert "is at least 1" in refused(bundle, *subscribed, "--max-topics", "0")
    assert "says that there are none" in refused(bundle, *subscribed, "--sequence-reset", "--sequence", "")
