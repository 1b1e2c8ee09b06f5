"""Every message steps its stream exactly once, wherever a connection, a process or the broker ends in between."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
from edgelstm.runtime import load

from tests.engine.toolchain import require
from tests.runtime.conftest import FEATURES, textbook_lstm
from tests.runtime.mosquitto import Mosquitto, Peer
from tests.runtime.scripted_broker import TOPIC, close, exchange, message, numbers
from tests.runtime.served import Served
from tests.waiting import until


@pytest.mark.slow
@pytest.mark.parametrize("sequences", [(5, 6), (None, None)])
def test_a_message_is_acknowledged_when_it_is_saved_and_its_answer_confirmed(start, broker, xs, expected, sequences):
    start()
    for mid, (x, want, sequence) in enumerate(zip(xs, expected, sequences, strict=False), 1):
        broker.send(TOPIC, message(x, sequence), mid)
        answer = broker.answer()
        assert close(answer.payload, want)
        assert json.loads(answer.payload).get("seq") == sequence
        assert broker.silent()
        broker.confirm(answer)
        assert broker.acknowledged() == mid


@pytest.mark.slow
def test_answers_do_not_wait_for_the_disk_but_acknowledgements_do(start, broker, xs, expected):
    start("--save-every", 3)
    broker.send(TOPIC, message(xs[0]), 1)
    broker.confirm(broker.answer())
    assert broker.acknowledged() == 1  # The first is saved at once; then nothing for three seconds.
    broker.send(TOPIC, message(xs[1]), 2)
    answer = broker.answer()
    broker.confirm(answer)
    assert close(answer.payload, expected[1])
    assert broker.silent(1)
    assert broker.acknowledged() == 2


def saved_answers(folder: Path) -> int:
    """How many answers to the topic are on disk, by a copy of what is there: the service lets nobody else read it."""
    copy = shutil.copytree(folder / "states", folder / "copy", dirs_exist_ok=True)
    with closing(sqlite3.connect(copy / "streams.sqlite")) as database, suppress(sqlite3.DatabaseError):
        for (answers,) in database.execute("SELECT answers FROM streams WHERE topic = ?", (TOPIC,)):
            return len(json.loads(answers))
    return 0


@pytest.mark.slow
@pytest.mark.parametrize("sequences", [range(10, 15), pytest.param([None] * 5, marks=pytest.mark.slow)])
def test_a_kill_after_the_save_and_before_the_acknowledgement(start, broker, xs, expected, sequences, tmp_path):
    served = start()
    first = []
    for mid in range(3):
        broker.send(TOPIC, message(xs[mid], sequences[mid]), mid + 1)
        first.append(broker.answer())
    until(lambda: saved_answers(tmp_path) == 3, "all are saved")
    assert broker.silent()  # It waits for confirmations.
    served.kill()
    start(session_present=True)
    for mid in range(3):
        again = exchange(broker, message(xs[mid], sequences[mid]), mid + 1, dup=True)
        assert again == first[mid].payload
    for mid in range(3, 5):
        assert close(exchange(broker, message(xs[mid], sequences[mid]), mid + 1), expected[mid])


@pytest.mark.parametrize("sequences", [range(10, 15), pytest.param([None] * 5, marks=pytest.mark.slow)])
def test_a_kill_before_the_save(start, broker, xs, expected, sequences):
    served = start("--save-every", 1000)
    exchange(broker, message(xs[0], sequences[0]), 1)
    first = []
    for mid in range(1, 4):
        broker.send(TOPIC, message(xs[mid], sequences[mid]), mid + 1)
        first.append(broker.answer())
    served.kill()
    start(session_present=True)
    for mid in range(1, 4):
        again = exchange(broker, message(xs[mid], sequences[mid]), mid + 1, dup=True)
        assert again == first[mid - 1].payload
        assert close(again, expected[mid])
    assert close(exchange(broker, message(xs[4], sequences[4]), 5), expected[4])


@pytest.mark.slow
@pytest.mark.parametrize("sequences", [range(3), pytest.param([None] * 3, marks=pytest.mark.slow)])
@pytest.mark.parametrize("lost", ["the confirmation", "the acknowledgement"])
def test_a_connection_lost_before(start, broker, xs, expected, sequences, lost):
    start()
    broker.send(TOPIC, message(xs[0], sequences[0]), 1)
    answer = broker.answer()
    if lost == "the acknowledgement":
        broker.confirm(answer)
        assert broker.acknowledged() == 1  # But we do as if it never came.
    broker.drop()
    broker.accept(session_present=True)
    assert exchange(broker, message(xs[0], sequences[0]), 1, dup=True) == answer.payload
    for mid in (1, 2):
        assert close(exchange(broker, message(xs[mid], sequences[mid]), mid + 1), expected[mid])


def test_equal_readings_are_not_taken_for_repetitions(start, broker, weights, xs):
    start()
    constant = np.tile(xs[0], (4, 1))
    expected = textbook_lstm(weights, constant)
    # The broker gives an identifier anew as soon as it is free.
    assert close(exchange(broker, message(constant[0]), 1), expected[0])
    assert close(exchange(broker, message(constant[1]), 1), expected[1])
    assert close(exchange(broker, message(constant[2]), 2), expected[2])
    broker.drop()
    broker.accept(session_present=True)
    # Lost with the connection, so marked as sent before; but what had this identifier is known to be acknowledged.
    assert close(exchange(broker, message(constant[3]), 1, dup=True), expected[3])


def test_a_sequence_number_again(start, broker, xs, expected):
    start()
    answers = [exchange(broker, message(xs[i], 10 * i), i + 1) for i in range(3)]
    assert exchange(broker, message(xs[2], 20), 4) == answers[2]
    # The same number with other values is no repetition; with other fields, which the model does not see, it is one.
    broker.send(TOPIC, message(np.zeros(3), 20), 5)
    report = broker.answer()
    assert report.topic == "plant/7/out/error"
    assert "number 20 came before with other values" in json.loads(report.payload)["error"]
    broker.confirm(report)
    assert broker.acknowledged() == 5
    again = json.dumps({**json.loads(message(xs[2], 20)), "attempt": 2}).encode()
    assert exchange(broker, again, 9) == answers[2]
    # The answer to an old one is gone: the last is given, and it is said why.
    broker.send(TOPIC, message(xs[0], 0), 6)
    report, last = broker.answer(), broker.answer()
    assert (report.topic, last.payload) == ("plant/7/out/error", answers[2])
    assert "the last number was 20, so 0 was taken for a repetition" in json.loads(report.payload)["error"]
    broker.confirm(report)
    broker.confirm(last)
    assert broker.acknowledged() == 6
    assert close(exchange(broker, message(xs[3], 30), 7), expected[3])


def test_messages_are_acknowledged_in_their_order(start, broker, xs):
    start()
    for mid in (1, 2):
        broker.send(TOPIC, message(xs[mid]), mid)
    first, second = broker.answer(), broker.answer()
    broker.confirm(second)
    assert broker.silent()
    broker.confirm(first)
    assert [broker.acknowledged(), broker.acknowledged()] == [1, 2]


@pytest.mark.slow
def test_hundreds_of_sensors_through_a_restart_of_the_broker_and_a_kill(bundle, weights, tmp_path):
    require("mosquitto")
    sensors, steps = 300, 100
    rng = np.random.default_rng(3)
    xs = rng.standard_normal((steps, sensors, FEATURES)).astype(np.float32)
    broker = Mosquitto(tmp_path / "broker").start()
    options = ("--state", tmp_path / "states", "--max-streams", 250)
    reader = Peer(broker, "plant/+/out", "plant/+/out/error", name="reader")
    sender = Peer(broker, name="sender")
    served = Served(bundle, broker.url, *options)
    everything = sensors * steps

    def send() -> None:
        for t in range(steps):
            for sensor in rng.permutation(sensors).tolist():
                sender.client.publish(f"plant/{sensor}/in", message(xs[t, sensor], t), 1)
            # The broker would hold all of them; it shows more to have some under way.
            until(lambda least=(t - 5) * sensors: len(reader.received) >= least, "answers", 180, pause=0.02)

    sending = threading.Thread(target=send)
    try:
        sending.start()
        until(lambda: len(reader.received) > 0.3 * everything, "a third", 120)
        broker.stop()
        broker.start()
        until(lambda: len(reader.received) > 0.6 * everything, "two thirds", 120)
        served.kill()
        served = Served(bundle, broker.url, *options)
        until(lambda: len(reader.distinct) >= everything, "all answers", 180)
        sending.join()
        served.end()
        counts = served.counts()
        sender.publish("plant/last/out", b"")  # Whatever might still come is in front of this.
        reader.wait("plant/last/out", 1)
    finally:
        served.kill()
        sender.close()
        reader.close()
        broker.stop()

    # As often as it is answered, a message has one answer: the set has one element for each.
    assert len(reader.distinct) == everything + 1
    assert counts["malformed"] == 0
    got = np.full((steps, sensors, 2), np.nan, np.float32)
    for topic, payload in reader.distinct - {("plant/last/out", b"")}:
        got[json.loads(payload)["seq"], int(topic.split("/")[1])] = numbers(payload)
    model = load(bundle)
    for sensor in range(sensors):
        np.testing.assert_array_equal(got[:, sensor], model.stream().run(xs[:, sensor]))
    for sensor in range(0, sensors, 50):
        np.testing.assert_allclose(got[:, sensor], textbook_lstm(weights, xs[:, sensor]), atol=5e-6)
