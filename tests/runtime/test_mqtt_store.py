"""What the store of an MQTT service keeps, for how long, and what of it is set aside."""

from __future__ import annotations

import json
import os
import random
import sqlite3
from contextlib import closing

import pytest
from edgelstm.runtime import InputError, load
from edgelstm.runtime.mqtt.database import Database
from edgelstm.runtime.mqtt.record import Answer
from edgelstm.runtime.mqtt.row import Row, check
from edgelstm.runtime.mqtt.store import NoRoomError, StreamStore

from tests.runtime.command_line import call, refused
from tests.runtime.stored import EARLIER, FILE, NEW, row, topics


def test_a_damaged_row_is_set_aside_and_the_others_go_on(tmp_path, capsys):
    folder = tmp_path / "states"
    with closing(Database(folder)) as database:
        database.write([row(topic, k) for k, topic in enumerate(topics(5), 65)])
    content = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(content.replace(b"C" * 40, b"C" * 39 + b"c"))
    with closing(Database(folder)) as database:
        assert "1 damaged streams are set aside" in capsys.readouterr().err
        assert [each.topic for each in database.rows()] == [t for t in topics(5) if t != "plant/2/in"]
        assert database.damaged() == [("plant/2/in", "it is not what was written")]
        assert database.find(NEW) == (None, None)
        found, notice = database.find("plant/2/in")
        assert found is None
        assert "the stream of this topic was damaged on disk" in notice
        database.write([row("plant/2/in", 90)])
        assert database.find("plant/2/in") == (row("plant/2/in", 90), None)
    with closing(sqlite3.connect(folder / FILE)) as raw:
        assert raw.execute("SELECT state FROM damaged").fetchall() == [(b"C" * 39 + b"c",)]
    assert not [path for path in folder.iterdir() if ".damaged" in path.name]


def test_a_row_that_is_damaged_while_the_service_runs_is_set_aside(tmp_path, capsys):
    with closing(Database(tmp_path / "states")) as database:
        database.write([row(topic) for topic in topics(3)])
        database._database.execute("UPDATE streams SET sequence = 6 WHERE topic = 'plant/1/in'")
        assert "was damaged on disk" in database.find("plant/1/in")[1]
        assert "a damaged stream is set aside" in capsys.readouterr().err
        assert database.find("plant/2/in") == (row("plant/2/in"), None)
        database.write([row("plant/2/in", 8)])
    with closing(Database(tmp_path / "states")) as database:
        assert len(database) == 2
    assert not capsys.readouterr().err


def test_a_store_of_the_format_before_is_taken_over(bundle, xs, tmp_path, capsys):
    model, folder = load(bundle), tmp_path / "states"
    folder.mkdir()
    unbroken = model.stream().run(xs[:6])
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as raw:
        raw.execute("PRAGMA journal_mode = WAL")
        for statement in EARLIER:
            raw.execute(statement)
        raw.execute("INSERT INTO settings VALUES ('client_id', 'edgelstm-7')")
        stream = model.stream()
        stream.run(xs[:5])
        state = stream.snapshot()
        damaged = state[:60] + bytes([state[60] ^ 1]) + state[61:]
        answers = json.dumps([(7, "0102030405060708", 4, '{"u": 1}'), (8, "0102030405060708", None, None)])
        for topic, content in (("plant/a/in", state), ("plant/b/in", damaged), ("plant/c/in", state)):
            raw.execute("INSERT INTO streams VALUES (?, ?, ?, ?)", (topic, content, 4, answers))
    with closing(StreamStore(model.stream, folder, 10)) as store:
        assert "kept as streams.sqlite.damaged" in capsys.readouterr().err
        assert store.setting("client_id") == "edgelstm-7"
        for topic in ("plant/a/in", "plant/c/in"):
            record = store.record(topic)
            assert (record.sequence, record.notice, record.stream.steps) == (4, None, 5)
            # A number that came before the change of format is known by itself; what it held is not.
            assert record.answers == [Answer(7, b"", 4, b'{"u": 1}'), Answer(8, bytes(range(1, 9)), None, None)]
            assert (record.stream.step(xs[5]) == unbroken[5]).all()
        assert "damaged on disk" in store.record("plant/b/in").notice
        assert store.record("plant/d/in").notice is None
    with closing(StreamStore(model.stream, folder, 10)) as store:
        assert store.record("plant/a/in").stream.steps == 5
    assert not capsys.readouterr().err


def test_a_sound_store_of_the_format_before_leaves_nothing_beside(tmp_path, capsys):
    folder = tmp_path / "states"
    folder.mkdir()
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as raw:
        for statement in EARLIER:
            raw.execute(statement)
    Database(folder).close()
    assert "written anew in the format of this version, 0 streams" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "saves", FILE]


def test_later_versions_and_other_programs_are_refused(tmp_path):
    later = tmp_path / "later"
    Database(later).close()
    with closing(sqlite3.connect(later / FILE, isolation_level=None)) as raw:
        raw.execute("UPDATE settings SET value = '3', sum = ? WHERE name = 'format'", (check(("format", "3")),))
    with pytest.raises(InputError, match=r"of a later version of EdgeLSTM \(format 3, .* update EdgeLSTM"):
        Database(later)
    other = tmp_path / "other"
    other.mkdir()
    with closing(sqlite3.connect(other / FILE, isolation_level=None)) as raw:
        raw.execute("CREATE TABLE photos (name TEXT)")
    before = (other / FILE).read_bytes()
    with pytest.raises(InputError, match="another program's; choose another --state"):
        Database(other)
    assert (other / FILE).read_bytes() == before
    Database(tmp_path / "free").close()


def test_a_state_that_is_not_finite_any_more_stops_no_other_topic(bundle, xs, tmp_path):
    model, folder = load(bundle), tmp_path / "states"
    with closing(StreamStore(model.stream, folder, 10)) as store:
        for topic in ("a", "b"):
            record = store.record(topic)
            record.stream.step(xs[0])
            record.diverged = topic == "a"
            store.changed(record)
        store.save()
    with closing(StreamStore(model.stream, folder, 10)) as store:
        assert store.record("a").diverged
        assert not store.record("b").diverged
        assert store.record("b").stream.steps == 1
        store.record("a").begin_anew()
        assert not store.record("a").diverged


def test_a_row_of_another_model_among_this_ones_is_set_aside(bundle, xs, tmp_path):
    model, folder = load(bundle), tmp_path / "states"
    other = load(bundle, backend="tflite").stream()
    with closing(StreamStore(model.stream, folder, 10)) as store:
        record = store.record("b")
        record.stream.step(xs[0])
        store.changed(record)
        store.save()
    with closing(Database(folder)) as database:
        database.write([Row("a", 0, None, "[]", other.snapshot())])
    with closing(StreamStore(model.stream, folder, 10)) as store:
        assert "of another model" in store.record("a").notice
        assert store.record("b").stream.steps == 1


def test_no_more_topics_than_there_may_be(bundle, xs, tmp_path):
    model = load(bundle)
    with closing(StreamStore(model.stream, tmp_path / "states", 10, most_topics=2)) as store:
        for topic in ("a", "b"):
            record = store.record(topic)
            record.stream.step(xs[0])
            store.changed(record)
        with pytest.raises(NoRoomError, match=r"2 topics have a stream, and no more may \(--max-topics\)"):
            store.record("c")
        store.save()
        with pytest.raises(NoRoomError):
            store.record("c")
        assert (store.topics, len(store)) == (2, 2)
        store.forget(-1.0)  # All are older than a moment to come.
        store.evict_idle(-1.0)
        assert store.record("c").stream.steps == 0
        assert store.topics == 0


def test_the_last_of_the_disk_is_for_the_streams_that_are_there(bundle, xs, tmp_path, monkeypatch):
    model, folder = load(bundle), tmp_path / "states"
    monkeypatch.setattr("edgelstm.runtime.mqtt.store._LEAST_FREE", 8192)
    with closing(StreamStore(model.stream, folder, 10)) as store:
        for topic in ("a", *topics(300)):
            record = store.record(topic)
            record.stream.step(xs[0])
            store.changed(record)
        store.save()
        store.evict_idle(-1.0)
        full = os.statvfs_result((4096, 4096, 1000, 0, 0, 0, 0, 0, 0, 255))
        monkeypatch.setattr("os.statvfs", lambda folder: full)
        with pytest.raises(NoRoomError, match="only 0 MiB are free where streams are kept"):
            store.record("b")
        assert store.record("a").stream.steps == 1
    assert call("streams", folder, "--drop", "plant/#").returncode == 0
    with closing(StreamStore(model.stream, folder, 10)) as store:
        assert store.record("b").fresh  # What was dropped left room in the file.


def test_streams_are_forgotten_by_the_time_that_the_store_was_open(bundle, xs, tmp_path, monkeypatch):
    model, folder = load(bundle), tmp_path / "states"
    now = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])

    def used(store: StreamStore, topic: str) -> None:
        record = store.record(topic)
        record.stream.step(xs[0])
        store.changed(record)

    with closing(StreamStore(model.stream, folder, 1)) as store:
        for topic in ("old", "memory", "disk"):
            used(store, topic)
        store.save()
        now[0] += 100
        used(store, "disk")
        used(store, "memory")
        store.save()
        now[0] += 50
    now[0] += 10**9  # While nobody serves, nobody can be heard.
    with closing(StreamStore(model.stream, folder, 1)) as store:
        now[0] += 10
        store.forget(155)
        assert [store.record(topic).stream.steps for topic in ("disk", "memory", "old")] == [2, 2, 0]
        now[0] += 200
        used(store, "new")
        store.forget(155)
        assert [store.record(topic).stream.steps for topic in ("disk", "memory", "new")] == [0, 0, 1]
        store.save()
    with closing(Database(folder)) as database:
        assert [each.topic for each in database.rows()] == ["new"]


def test_the_command_lists_and_drops(tmp_path):
    folder = tmp_path / "states"
    assert "no folder in which" in refused("streams", folder)
    with closing(Database(folder)) as database:
        database.write([row(topic, k, k or None) for k, topic in enumerate(topics(4))])
        assert "in use by another process" in refused("streams", folder)
    listed = json.loads(call("streams", folder, "--json").stdout)
    assert [stream["topic"] for stream in listed["streams"]] == topics(4)
    assert [stream["sequence"] for stream in listed["streams"]] == [None, 1, 2, 3]
    assert (listed["damaged"], listed["lost"]) == ([], False)
    assert "plant/3/in" in call("streams", folder).stdout
    assert "no stream of such a topic" in refused("streams", folder, "--drop", "plant/+/out")
    assert "one whole level" in refused("streams", folder, "--drop", "plant+")
    done = call("streams", folder, "--drop", "plant/1/in", "--drop", "plant/3/+")
    assert done.stdout == "dropped plant/1/in\ndropped plant/3/in\n"
    assert [s["topic"] for s in json.loads(call("streams", folder, "--json").stdout)["streams"]] == [
        "plant/0/in",
        "plant/2/in",
    ]
    assert call("streams", folder, "--drop", "#").stdout.count("dropped") == 2
    assert call("streams", folder).stdout == "no streams\n"


def test_the_command_shows_damage_and_drops_it(tmp_path):
    folder = tmp_path / "states"
    with closing(Database(folder)) as database:
        database.write([row(topic, k) for k, topic in enumerate(topics(3), 65)])
    content = (folder / FILE).read_bytes()
    (folder / FILE).write_bytes(content.replace(b"B" * 40, b"B" * 39 + b"b").replace(b"plant/2/in", b"plant/x/in"))
    done = call("streams", folder)
    assert "damaged: plant/1/in: it is not what was written\n" in done.stdout
    assert "damaged: a topic that is not known any more: it is not what was written\n" in done.stdout
    assert "damaged: other streams were lost" in done.stdout
    assert call("streams", folder, "--drop-damaged").stdout == ""
    assert json.loads(call("streams", folder, "--json").stdout)["damaged"] == []
    with closing(Database(folder)) as database:
        assert database.find("plant/1/in") == database.find(NEW) == (None, None)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_whatever_root_makes_there_is_the_folders_owners(tmp_path):
    """As `sudo edgelstm-run streams` does in the folder of a service that has a user of its own."""
    folder = tmp_path / "states"
    with closing(Database(folder)) as database:
        database.write([row(topic) for topic in topics(3)])
    (folder / FILE).write_bytes(random.Random(6).randbytes(8192))
    (folder / "saves").unlink()
    os.chown(folder, 65534, 65534)
    assert call("streams", folder).returncode == 0
    assert {path.stat().st_uid for path in folder.iterdir()} == {65534}
    assert (folder / f"{FILE}.damaged").exists()


def test_a_link_in_the_place_of_the_file_is_not_followed(tmp_path):
    """Else root would keep a copy of what it leads to, and give that away."""
    folder, secret = tmp_path / "states", tmp_path / "secret"
    folder.mkdir()
    secret.write_bytes(b"secret")
    for name in (FILE, f"{FILE}-wal"):
        (folder / name).symlink_to(secret)
        with pytest.raises(InputError, match="is a link"):
            Database(folder)
        (folder / name).unlink()
    assert secret.read_bytes() == b"secret"
    assert {path.name for path in folder.iterdir()} == {".lock", "saves"}
