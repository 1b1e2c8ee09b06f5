"""Damage to the store of an MQTT service, bit by bit and call by call: it is found, and what is whole goes on."""

from __future__ import annotations

import random
import shutil
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import pytest
from edgelstm.runtime import InputError
from edgelstm.runtime.mqtt.database import Database
from edgelstm.runtime.mqtt.row import Row

from tests.runtime.killed import killed_at
from tests.runtime.stored import EARLIER, FILE, flips, opened, row, topics


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


@pytest.mark.parametrize("damage", ["the first page", "all", "cut", "cut short"])
def test_damage_to_the_file_itself(tmp_path, capsys, damage):
    """The first page holds no rows, so all are saved; of noise nothing is; of a part what is whole there."""
    folder = tmp_path / "states"
    with closing(Database(folder)) as database:
        database.write([row(topic) for topic in topics(200)])
        database.keep_setting("client_id", "edgelstm-7")
    content = (folder / FILE).read_bytes()
    noise = random.Random(4).randbytes(len(content))
    cuts = {"cut": content[: len(content) // 2], "cut short": content[:300]}
    changed = {"the first page": noise[:4096] + content[4096:], "all": noise, **cuts}[damage]
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
        assert 20 < len(same) < 180 if damage == "cut" else len(same) == 0
    assert sorted(path.name for path in folder.iterdir()) == [".lock", "saves", FILE, f"{FILE}.damaged"]


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
