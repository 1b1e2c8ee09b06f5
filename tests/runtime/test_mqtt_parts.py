"""Topics, payloads and options, without a broker."""

from __future__ import annotations

import numpy as np
import paho.mqtt.client as mqtt
import pytest
from edgelstm.runtime import InputError
from edgelstm.runtime.mqtt.payload import PayloadReader
from edgelstm.runtime.mqtt.topics import Subscription, TopicTemplate

from tests.runtime.command_line import refused

HERE = ("--mqtt", "mqtt://127.0.0.1:1")
THERE = ("--subscribe", "plant/+/in", "--publish", "out/{1}")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--subscribe", "a/+"], "--subscribe goes with --mqtt"),
        ([*HERE], "needs --publish"),
        ([*HERE, "--publish", "out", "--idle", "3"], "--idle goes with --subscribe"),
        ([*HERE, "--publish", "out/{1}"], "there is no --subscribe"),
        ([*HERE, *THERE, "--input", "in.csv"], "messages are the input"),
        ([*HERE, *THERE, "--max-streams", "0"], "at least 1"),
        ([*HERE, *THERE, "--state", "{bundle}"], "is a folder"),
        ([*HERE, *THERE, "--errors", "out/{2}"], "plant/+/in has 1"),
        ([*HERE, *THERE, "--status", "plant/1/in"], "come back"),
        ([*HERE, *THERE, "--sequence", "b"], "has a feature or an output of that name"),
        ([*HERE, *THERE, "--client-key", "{bundle}"], "certificates are for mqtts"),
        ([*HERE, "--subscribe", "plant/#", "--publish", "plant/{1}/out"], "come back"),
        ([*HERE, "--subscribe", "$share/g/plant/#", "--publish", "out/{1}"], "a stream needs all of them"),
        ([*HERE, "--subscribe", "plant+/in", "--publish", "out"], "one whole level"),
        ([*HERE, "--subscribe", "plant/#/in", "--publish", "out"], "one whole level"),
        (["--mqtt", "http://x", *THERE], "mqtt://HOST"),
        (["--mqtt", "mqtt://user:word@x", *THERE], "--credentials FILE"),
        (["--mqtt", "mqtts://x", "--ca-file", "absent", *THERE], "absent: no such file"),
        (["--mqtt", "mqtts://x", "--ca-file", "{bundle}", *THERE], "cannot be used"),
    ],
)
def test_bad_options(bundle, arguments, words):
    assert words in refused(bundle, *(argument.replace("{bundle}", str(bundle)) for argument in arguments))


@pytest.mark.parametrize(
    "pattern", ["a/b", "a/+", "+/b", "+/+/c", "a/#", "#", "+", "a/+/#", "/+", "+/", "a//b", "a/+/c"]
)
def test_subscriptions_match_as_paho_has_them(pattern):
    levels = ["a", "b", "c", ""]
    topics = {
        "/".join(parts) for parts in [(x, y, z)[:n] for x in levels for y in levels for z in levels for n in (1, 2, 3)]
    }
    subscription = Subscription(pattern)
    for topic in topics - {""}:
        assert (subscription.match(topic) is not None) == mqtt.topic_matches_sub(pattern, topic), topic


def test_what_the_wildcards_matched():
    assert Subscription("a/+/b/#").match("a/7/b/c/d") == ("7", "c/d")
    assert Subscription("a/#").match("a") == ("",)
    template = TopicTemplate("x/{2}/{1}-{1}", "--publish", Subscription("a/+/b/#"))
    assert template.topic(("{2}", "c/d")) == "x/c/d/{2}-{2}"


def test_auto_never_takes_text_for_numbers_or_numbers_for_text():
    reader = PayloadReader(["a", "b", "c"], ["u"], "auto", "seq")
    rng = np.random.default_rng(5)
    for bits in rng.integers(0, 2**32, (20_000, 3), np.uint32):
        values = bits.view("<f4")
        payload = values.tobytes()
        try:
            reading = reader.read(payload)
        except InputError:
            # Text, by chance, that is not JSON.
            assert payload.decode().isprintable() or any(c in payload for c in b"\t\r\n")
            continue
        assert not reading.is_json
        np.testing.assert_array_equal(np.asarray(reading.values).view(np.uint32), bits)
    for cut in (b"[1, 2, 3.00", b"1.5,2.5,3.25", b'{"a": 1, "b"'):
        with pytest.raises(InputError, match="not JSON"):
            reader.read(cut.ljust(12))
