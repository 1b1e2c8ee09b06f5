"""A model as a service on MQTT, against a real broker; the numbers are the textbook's."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import numpy as np
import paho.mqtt.client as mqtt
import pytest

from tests.engine.toolchain import require
from tests.runtime.command_line import call_process
from tests.runtime.conftest import textbook_lstm
from tests.runtime.mosquitto import Mosquitto, Peer, until
from tests.runtime.served import Served


@pytest.fixture
def broker(tmp_path):
    require("mosquitto")
    made = Mosquitto(tmp_path / "broker").start()
    yield made
    made.stop()


@pytest.fixture
def peer(broker):
    made = Peer(broker, "#")
    yield made
    made.close()


def refused(*arguments: object) -> str:
    """What it says as a process of its own, which leaves its streams and its connection to others."""
    done = call_process(*arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    return done.stderr


def text(x: np.ndarray, **more: int) -> str:
    return json.dumps({**more, "c": float(x[2]), "a": float(x[0]), "b": float(x[1]), "unit": "mm/s"})


def numbers(payloads: list[bytes]) -> np.ndarray:
    return np.array([[json.loads(p)["u"], json.loads(p)["v"]] for p in payloads])


def test_objects_arrays_and_float32_give_the_same_numbers(bundle, broker, peer, xs, expected):
    with Served(bundle, broker.url):
        for t, x in enumerate(xs[:20]):
            peer.publish("plant/object/in", text(x, seq=t))
            peer.publish("plant/array/in", json.dumps(x.tolist()))
            peer.publish("plant/raw/in", x.astype("<f4").tobytes())
            peer.publish("plant/plain/in", text(x))
        arrays, raw = peer.wait("plant/array/out", 20), peer.wait("plant/raw/out", 20)
        plain, objects = peer.wait("plant/plain/out", 20), peer.wait("plant/object/out", 20)
    np.testing.assert_allclose(numbers(plain), expected[:20], atol=2e-6)
    np.testing.assert_array_equal(numbers(arrays), numbers(plain))
    floats = np.frombuffer(b"".join(raw), "<f4").reshape(20, 2)
    np.testing.assert_array_equal(floats, numbers(plain).astype(np.float32))
    assert objects == [b'{"seq": %d, ' % t + answer[1:] for t, answer in enumerate(plain)]


def test_each_topic_has_a_stream_of_its_own(bundle, broker, peer, weights, xs):
    where = ("--subscribe", "site/+/+/#", "--publish", "answers/{2}/{1}/{3}")
    with Served(bundle, broker.url, *where, topics=False):
        for t in range(10):
            for k in range(5):
                peer.publish(f"site/a/m{k}/x/y", text(xs[10 * k + t], seq=t))
        for k in range(5):
            got = peer.wait(f"answers/m{k}/a/x/y", 10)
            assert [json.loads(p)["seq"] for p in got] == list(range(10))
            np.testing.assert_allclose(numbers(got), textbook_lstm(weights, xs[10 * k : 10 * k + 10]), atol=2e-6)


MALFORMED = [
    ("[1, 2", "not JSON"),
    ("[1, 2]", "2 values where 3 belong"),
    ('{"a": 1, "b": 2}', "no 'c'"),
    ('{"a": 1, "b": 2, "c": NaN}', "feature 2 is nan"),
    ('{"a": 1, "b": 1e99, "c": 2}', "feature 1 is inf"),
    ('{"a": 1, "b": true, "c": 2}', "b is True, not a number"),
    ('{"seq": "7", "a": 1, "b": 2, "c": 3}', "seq is '7', not a whole number"),
    ('{"seq": 1e3, "a": 1, "b": 2, "c": 3}', "seq is 1000.0, not a whole number"),
    ("1,2,3", "not JSON"),
    ("3", "an object or an array"),
    ("", "not JSON"),
    ("[" * 100_000, "not JSON"),
    (np.zeros(4, "<f4").tobytes(), "16 bytes"),
    (b"\xff" * 13, "13 bytes where 12 belong"),
    (np.array([1, np.nan, 2], "<f4").tobytes(), "feature 1 is nan"),
]


def test_malformed_messages_are_reported_and_touch_no_state(bundle, broker, peer, xs, expected):
    with Served(bundle, broker.url, "--state", bundle.parent / "states") as served:
        for i, (payload, _) in enumerate(MALFORMED):
            peer.publish("plant/7/in", text(xs[i], seq=i))
            peer.publish("plant/7/in", payload)
            peer.publish("plant/new/in", payload)
        got, reports = peer.wait("plant/7/out", len(MALFORMED)), peer.wait("plant/7/out/error", len(MALFORMED))
        peer.publish("plant/new/in", text(xs[0]))
        assert close(peer.wait("plant/new/out", 1), expected[:1])
        served.end()
        assert served.counts() == {"messages": 16, "duplicates": 0, "malformed": 30, "ignored": 0}
    assert close(got, expected[: len(MALFORMED)])
    for report, (_, words) in zip(reports, MALFORMED, strict=True):
        assert json.loads(report)["topic"] == "plant/7/in"
        assert words in json.loads(report)["error"]


def close(payloads: list[bytes], want: np.ndarray) -> bool:
    return bool(np.allclose(numbers(payloads), want, atol=2e-6))


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--max-streams", 2), marks=pytest.mark.slow),
        ("--idle", 0.1),
        pytest.param(("--max-streams", 1, "--save-every", 2), marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("kept", [True, False])
def test_streams_leave_memory_and_come_back(bundle, broker, peer, weights, xs, options, kept):
    state = ("--state", bundle.parent / "states") if kept else ()
    with Served(bundle, broker.url, *state, *options, observed=True) as served:
        for t in range(4):
            for k in range(6):
                peer.publish(f"plant/{k}/in", text(xs[10 * k + t], seq=t))
            if "--idle" in options:
                until(lambda leave=6 * (t + 1): served.said.count("has left") >= leave, "all streams leave memory")
        for k in range(6):
            want = textbook_lstm(weights, xs[10 * k : 10 * k + 4])
            assert close(peer.wait(f"plant/{k}/out", 4), want)
        assert "has left" in served.said


@pytest.mark.slow
@pytest.mark.parametrize("killed", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_windows_answer_when_they_are_due_and_go_on_after_a_restart(bundle, broker, peer, weights, xs, killed):
    """T = 4, hop = 3: answers to timesteps 3, 6, 9, 12; a repetition of one without an answer has none either."""
    options = ("--window", 4, "--hop", 3, "--state", bundle.parent / "states")
    want = np.array([textbook_lstm(weights, xs[t - 3 : t + 1])[-1] for t in (3, 6, 9, 12)])
    served = Served(bundle, broker.url, *options)
    for t in range(8):
        peer.publish("plant/7/in", text(xs[t], seq=t))
    assert close(peer.wait("plant/7/out", 2), want[:2])
    if killed:
        served.kill()
    else:
        served.end()
        assert served.counts() == {"messages": 8, "duplicates": 0, "malformed": 0, "ignored": 0}
    served = Served(bundle, broker.url, *options)
    for t in range(5, 13):
        peer.publish("plant/7/in", text(xs[t], seq=t))
    until(lambda: json.loads(peer.on("plant/7/out")[-1])["seq"] == 12, "the last answer")
    got = {json.loads(payload)["seq"]: payload for payload in peer.on("plant/7/out")}
    assert sorted(got) == [3, 6, 9, 12]
    assert close([got[t] for t in (3, 6, 9, 12)], want)
    served.end()


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_an_end_is_clean_and_states_survive_it(bundle, broker, peer, xs, expected, number):
    options = ("--state", bundle.parent / "states", "--status", "status/7", "--save-every", 1000)
    served = Served(bundle, broker.url, *options)
    for x in xs[:5]:
        peer.publish("plant/7/in", text(x))
    peer.wait("plant/7/out", 5)
    assert "5 messages" in served.end(number)
    assert peer.wait("status/7", 2) == [b"online", b"offline"]
    for x in xs[5:10]:
        peer.publish("plant/7/in", text(x))  # The broker keeps them.
    served = Served(bundle, broker.url, *options)
    assert close(peer.wait("plant/7/out", 10), expected[:10])
    served.end()
    assert served.counts() == {"messages": 5, "duplicates": 0, "malformed": 0, "ignored": 0}


def test_the_last_will_says_that_it_was_killed(bundle, broker, peer):
    served = Served(bundle, broker.url, "--status", "status/7")
    assert peer.wait("status/7", 1) == [b"online"]
    served.kill()
    assert peer.wait("status/7", 2) == [b"online", b"offline"]
    late = Peer(broker, "status/7")
    assert late.wait("status/7", 1) == [b"offline"]
    late.close()


@pytest.mark.slow
def test_the_broker_may_come_later_and_go(bundle, broker, xs, expected):
    broker.stop()
    served = Served(bundle, broker.url, "--state", bundle.parent / "states", ready=False)
    until(lambda: "cannot be reached" in served.said, "it says that there is no broker")
    broker.start()
    until(lambda: "listening" in served.said, "it listens")
    peer = Peer(broker, "#")
    peer.publish("plant/7/in", text(xs[0]))
    peer.wait("plant/7/out", 1)
    broker.stop()
    until(lambda: "is lost" in served.said, "it notices")
    served.end()  # Without the broker too.
    broker.start()
    with Served(bundle, broker.url, "--state", bundle.parent / "states"):
        until(peer.client.is_connected, "the test's client is back")
        peer.publish("plant/7/in", text(xs[1]))
        # The first answer may come again: the broker may have gone before it had confirmed it.
        until(lambda: len(set(peer.on("plant/7/out"))) >= 2, "two answers")
        assert close(list(dict.fromkeys(peer.on("plant/7/out"))), expected[:2])
    peer.close()


def test_what_the_broker_keeps_for_newcomers_is_no_timestep(bundle, broker, peer, xs, expected):
    peer.publish("plant/7/in", text(xs[9]), retain=True)
    with Served(bundle, broker.url) as served:
        peer.publish("plant/7/in", text(xs[0]))
        assert close(peer.wait("plant/7/out", 1), expected[:1])
        served.end()
        assert served.counts()["ignored"] == 1


@pytest.mark.slow
def test_another_subscription_of_the_same_session(bundle, broker, peer, xs, expected):
    state = ("--state", bundle.parent / "states")
    Served(bundle, broker.url, *state).end()
    peer.publish("plant/7/in", text(xs[0]))
    with Served(bundle, broker.url, *state, "--subscribe", "hall/+", "--publish", "out/{1}", topics=False) as served:
        peer.publish("hall/1", text(xs[0]))
        assert close(peer.wait("out/1", 1), expected[:1])
        peer.publish("plant/7/in", text(xs[0]))
        served.end()
        assert served.counts() == {"messages": 1, "duplicates": 0, "malformed": 0, "ignored": 1}


@pytest.mark.slow
def test_a_state_folder_serves_one_process_and_one_model(bundle, broker, xs):
    state = ("--state", bundle.parent / "states")
    where = ("--mqtt", broker.url, "--subscribe", "plant/+/in", "--publish", "out/{1}")
    with Served(bundle, broker.url, *state) as served:
        assert "in use by another process" in refused(bundle, *where, *state)
        peer = Peer(broker, "#")
        peer.publish("plant/7/in", text(xs[0]))
        peer.close()
        served.end()
    assert "of another model" in refused(bundle, *where, *state, "--backend", "tflite")
    assert "answers on the last 3 inputs" in refused(bundle, *where, *state, "--window", 3)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    require("openssl")
    folder = tmp_path_factory.mktemp("ca")

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    new = ("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl(*new, "-x509", "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=the test's authority")
    (folder / "names").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("broker", "client"):
        openssl(*new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        signed = ("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial")
        openssl(*signed, "-out", f"{name}.pem", "-extfile", "names")
    return folder


@pytest.mark.slow
def test_tls_certificates_and_credentials(bundle, xs, expected, certificates, tmp_path):
    require("mosquitto", "mosquitto_passwd")
    ca = certificates
    subprocess.run(["mosquitto_passwd", "-b", "-c", tmp_path / "users", "pump", "s3cret"], check=True)
    settings = f"cafile {ca}/ca.pem\ncertfile {ca}/broker.pem\nkeyfile {ca}/broker.key\nrequire_certificate true\n"
    broker = Mosquitto(tmp_path / "broker", f"{settings}password_file {tmp_path}/users\n").start()
    url = broker.url.replace("mqtt://", "mqtts://")
    (tmp_path / "good").write_text("pump\ns3cret\n")
    (tmp_path / "wrong").write_text("pump\nsecret\n")
    for name in ("good", "wrong"):
        (tmp_path / name).chmod(0o600)
    own = ("--client-cert", ca / "client.pem", "--client-key", ca / "client.key")

    def prepare(client: mqtt.Client) -> None:
        client.tls_set(f"{ca}/ca.pem", f"{ca}/client.pem", f"{ca}/client.key")
        client.username_pw_set("pump", "s3cret")

    try:
        with Served(bundle, url, "--ca-file", ca / "ca.pem", *own, "--credentials", tmp_path / "good"):
            peer = Peer(broker, "#", prepare=prepare)
            for x in xs[:5]:
                peer.publish("plant/7/in", text(x))
            assert close(peer.wait("plant/7/out", 5), expected[:5])
            peer.close()
        where = (bundle, "--mqtt", url, "--subscribe", "plant/+/in", "--publish", "out/{1}")
        trusted = ("--ca-file", ca / "ca.pem", *own)
        assert "no TLS connection" in refused(*where, *own, "--credentials", tmp_path / "good")
        assert "refuses the connection" in refused(*where, *trusted, "--credentials", tmp_path / "wrong")
        assert "refuses the connection" in refused(*where, *trusted)
        (tmp_path / "good").chmod(0o644)
        assert "everyone here can read" in refused(*where, *trusted, "--credentials", tmp_path / "good")
    finally:
        broker.stop()


def test_without_paho_it_says_what_to_install(bundle):
    code = "import sys; sys.modules['paho'] = None; from edgelstm.runtime.cli import main; sys.exit(main(sys.argv[1:]))"
    where = ["--mqtt", "mqtt://localhost", "--subscribe", "plant/+/in", "--publish", "out/{1}"]
    done = subprocess.run([sys.executable, "-c", code, str(bundle), *where], capture_output=True, text=True)
    assert done.returncode == 2
    assert 'pip install "edgelstm[mqtt]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_topic_that_would_make_another_too_long_does_no_harm(bundle, broker, peer, xs, expected):
    topics = ["--subscribe", "plant/+/in", "--publish", "out/{1}/{1}"]
    with Served(bundle, broker.url, *topics, topics=False) as served:
        peer.publish(f"plant/{'x' * 40_000}/in", text(xs[0]))
        peer.publish("plant/a/in", text(xs[0]))
        np.testing.assert_allclose(numbers(peer.wait("out/a/a", 1)), expected[:1], atol=2e-6)
        assert "which is no topic" in served.end()
