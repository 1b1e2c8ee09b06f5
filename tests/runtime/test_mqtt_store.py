"""What lies in the store of an MQTT service is read back as it was written, or set aside by name: bit by bit."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import pytest
from edgelstm.runtime import InputError, load
from edgelstm.runtime.mqtt.database import Database
from edgelstm.runtime.mqtt.record import Answer
from edgelstm.runtime.mqtt.row import Row
from edgelstm.runtime.mqtt.store import NoRoomError, StreamStore

from tests.runtime.command_line import call, refused
from tests.runtime.killed import killed_at

FILE = "streams.sqlite"
NEW = "plant/new/in"


def row(topic: str, value: int = 7, sequence: int | None = 5) -> Row:
    return Row(topic, 0, sequence, f'[[1, "0102", {json.dumps(sequence)}, "{{}}"]]', bytes([value]) * 40)


def topics(count: int) -> list[str]:
    return [f"plant/{k}/in" for k in range(count)]


@pytest.fixture
def small(tmp_path) -> Path:
    """Three streams and a setting in small pages, so that no byte is far from any other."""
    folder = tmp_path / "small"
    with closing(Database(folder)) as database:
        database.write([row(topic) for topic in topics(3)])
        database.keep_setting("client_id", "edgelstm-7")
    with closing(sqlite3.connect(folder / FILE)) as raw:
        for statement in ("journal_mode=DELETE", "page_size=512"):
            raw.execute(f"PRAGMA {statement}")
        raw.execute("VACUUM")
        raw.execute("PRAGMA journal_mode=WAL")
    return folder


def opened(folder: Path, expected: dict[str, Row]) -> tuple[list[str], list[str], str | None]:
    """Topics whose row is as it was, those of which damage is said, and what is said to a new topic."""
    with closing(Database(folder)) as database:
        found = {topic: database.find(topic) for topic in expected}
        about_new = database.find(NEW)[1]
        client_id = database.setting("client_id")
    assert client_id in (None, "edgelstm-7")
    same = [topic for topic, (kept, _) in found.items() if kept == expected[topic]]
    told = [topic for topic, (_, notice) in found.items() if notice]
    return same, told, about_new


def flips(content: bytes, seed: int) -> list[bytearray]:
    """The content with one bit of each byte changed; of long runs of zeros, which no table uses, now and then one."""
    rng, made = random.Random(seed), list[bytearray]()
    for at, byte in enumerate(content):
        if byte or any(content[at - 4 : at + 4]) or at % 64 == 0:
            changed = bytearray(content)
            changed[at] ^= 1 << rng.randrange(8)
            made.append(changed)
    return made


@pytest.mark.slow
def test_a_bit_of_any_byte_changes_nothing_or_is_found(small, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda handle: None)
    expected = {topic: row(topic) for topic in topics(3)}
    content, counts = (small / FILE).read_bytes(), {"harmless": 0, "found": 0, "aside": 0}
    for changed in flips(content, 1)[::5]:
        copy = tmp_path / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(small, copy)
        (copy / FILE).write_bytes(changed)
        same, told, about_new = opened(copy, expected)
        said = capsys.readouterr().err
        aside = [path for path in copy.iterdir() if ".damaged" in path.name]
        assert set(same) | set(told) == set(expected), said  # None is wrong or new without a word.
        assert not aside or aside[0].read_bytes() == changed
        assert not aside or "damaged" in said
        assert bool(told or about_new or aside) <= ("damaged" in said)
        counts["found" if said else "harmless"] += 1
        counts["aside"] += bool(aside)
        # What was put right stays so.
        again = opened(copy, expected)
        assert (again, capsys.readouterr().err) == ((same, told, about_new), "")
    assert counts["found"] > 90
    assert counts["aside"] > 20


@pytest.mark.slow
@pytest.mark.parametrize("cut", [False, True])
def test_damage_to_the_log_of_a_service_that_was_killed_is_found(tmp_path, capsys, monkeypatch, cut):
    """SQLite takes a damaged log for one that ends there; the streams go on from before then, and say so."""
    monkeypatch.setattr("os.fsync", lambda handle: None)
    killed = tmp_path / "killed"
    with closing(Database(tmp_path / "living")) as database:
        database.write([row(topic, 0) for topic in topics(3)])
        database.close()
    with closing(Database(tmp_path / "living")) as database:
        for value in (1, 2):
            database.write([row(topic, value) for topic in topics(3)])
        shutil.copytree(tmp_path / "living", killed)
    expected = {topic: row(topic, 2) for topic in topics(3)}
    log = (killed / f"{FILE}-wal").read_bytes()
    copy = tmp_path / "copy"
    shutil.copytree(killed, copy)
    assert opened(copy, expected) == (topics(3), [], None)
    assert not capsys.readouterr().err
    for changed in [log[:at] for at in range(0, len(log), 997)] if cut else flips(log, 2)[::29]:
        shutil.rmtree(copy)
        shutil.copytree(killed, copy)
        (copy / f"{FILE}-wal").write_bytes(changed)
        same, told, about_new = opened(copy, expected)
        said = capsys.readouterr().err
        assert set(same) | set(told) == set(expected)
        assert bool(told) == bool(about_new) == ("saves in its log are gone" in said)
        if told:
            assert (copy / f"{FILE}.damaged-wal").exists() == bool(changed)
        # The last frames are of the last transaction: there is none that may be missing.
        assert told


def test_what_the_small_file_of_saves_says_is_checked_too(small, capsys):
    expected = {topic: row(topic) for topic in topics(3)}
    content = (small / "saves").read_bytes()
    for changed in flips(content, 3):
        (small / "saves").write_bytes(changed)
        assert opened(small, expected) == (topics(3), [], None)
        assert "saves: damaged" in capsys.readouterr().err
    (small / FILE).unlink()
    _, told, about_new = opened(small, expected)
    assert "it is gone, or empty" in capsys.readouterr().err
    assert len(told) == 3
    assert "starts again from zero state" in about_new


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


def test_damage_to_the_file_while_the_service_runs_ends_it_and_starting_again_helps(tmp_path, capsys):
    folder, many = tmp_path / "states", [f"plant/{k}/in" for k in range(2000)]
    with closing(Database(folder)) as database:
        database.write([row(topic) for topic in many])
    database = Database(folder)
    database._database.execute("PRAGMA cache_size = 1")
    with (folder / FILE).open("r+b") as file:
        file.seek(4096 * 20)
        file.write(bytes(4096))
    with pytest.raises(InputError, match=r"the states cannot be read .*; start again: what can be read is kept then"):
        [database.find(topic) for topic in many]
    database.close()
    with closing(Database(folder)) as database:
        assert 1900 < len(database) < 2000
        lost = next(topic for topic in many if database.find(topic)[0] is None)
        assert "starts again from zero state" in database.find(lost)[1]
    assert "the damaged file is kept as streams.sqlite.damaged" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["the first page", "all", "cut"])
def test_damage_to_the_file_itself(tmp_path, capsys, damage):
    """The first page holds no rows, so all are saved; of noise nothing is; of a part what is whole there."""
    folder = tmp_path / "states"
    with closing(Database(folder)) as database:
        database.write([row(topic) for topic in topics(200)])
        database.keep_setting("client_id", "edgelstm-7")
    content = (folder / FILE).read_bytes()
    noise = random.Random(4).randbytes(len(content))
    changed = {"the first page": noise[:4096] + content[4096:], "all": noise, "cut": content[: len(content) // 2]}[
        damage
    ]
    (folder / FILE).write_bytes(changed)
    expected = {topic: row(topic) for topic in topics(200)}
    same, told, about_new = opened(folder, expected)
    assert set(same) | set(told) == set(expected)
    assert (folder / f"{FILE}.damaged").read_bytes() == changed
    assert "the damaged file is kept as streams.sqlite.damaged" in capsys.readouterr().err
    if damage == "the first page":
        assert (len(same), about_new) == (200, None)
    else:
        assert about_new
        assert len(same) == 0 if damage == "all" else 20 < len(same) < 180
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "saves", FILE, f"{FILE}.damaged"]


EARLIER = (
    "CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS streams"
    " (topic TEXT PRIMARY KEY, state BLOB NOT NULL, sequence INTEGER, answers TEXT NOT NULL)",
)


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


def test_later_versions_and_other_programs_are_refused(small, tmp_path):
    from edgelstm.runtime.mqtt.row import check

    with closing(sqlite3.connect(small / FILE, isolation_level=None)) as raw:
        raw.execute("UPDATE settings SET value = '3', sum = ? WHERE name = 'format'", (check(("format", "3")),))
    with pytest.raises(InputError, match=r"of a later version of EdgeLSTM \(format 3, .* update EdgeLSTM"):
        Database(small)
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


@pytest.mark.slow
@pytest.mark.parametrize("what", ["a damaged file", "one with a log", "the format before", "a damaged row"])
def test_a_kill_while_the_store_is_put_right_loses_nothing(tmp_path, capsys, what):
    """The file and its copy are whole in front of each call that changes a name; the next start finishes the work."""
    made, folder = tmp_path / "made", tmp_path / "states"
    expected = {topic: row(topic, k) for k, topic in enumerate(topics(30), 65)}
    if what == "the format before":
        made.mkdir()
        with closing(sqlite3.connect(made / FILE, isolation_level=None)) as raw:
            for statement in EARLIER:
                raw.execute(statement)
            for topic, each in expected.items():
                state = each.state + zlib.crc32(each.state).to_bytes(4, "little")
                raw.execute("INSERT INTO streams VALUES (?, ?, 5, '[]')", (topic, state))
                expected[topic] = Row(topic, 0, 5, "[]", state)
    else:
        with closing(Database(tmp_path / "living")) as database:
            database.write(row(topic) for topic in topics(30))
            database.close()
        with closing(Database(tmp_path / "living")) as database:
            database.keep_setting("client_id", "edgelstm-7")
            database.write(expected.values())
            if what != "one with a log":
                database.close()
            shutil.copytree(tmp_path / "living", made)
        content = (made / FILE).read_bytes()
        noise = random.Random(5).randbytes(4096)
        in_row = content.replace(b"C" * 40, b"C" * 39 + b"c")
        (made / FILE).write_bytes(in_row if what == "a damaged row" else noise + content[4096:])
    lost = {"plant/2/in"} if what == "a damaged row" else set[str]()
    for number in range(1000):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(made, folder)
        killed = killed_at(number, lambda: Database(folder).close())
        same, told, about_new = opened(folder, expected)
        assert (set(same), set(told), about_new) == (set(expected) - lost, lost, None)
        left = {path.name for path in folder.iterdir()} - {".lock", "saves", FILE}
        assert all(name.startswith(f"{FILE}.damaged") for name in left)
        capsys.readouterr()
        if not killed:
            break
    assert number >= 4
