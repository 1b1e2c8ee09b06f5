"""A power cut at every point of a deployment: the board runs the old version or the new one, and says which."""

from __future__ import annotations

import io
import json
import os
import tarfile
from pathlib import Path

import pytest
from edgelstm.devices import agent
from edgelstm.devices.agent import condition, messages, model, service, storage
from edgelstm.devices.unit import unit

from tests.devices.power_cuts import Disk, Recorder, copied, recorded

FIRST, SECOND, THIRD = "v1", "v2", "v3"
UNIT = "edgelstm-m.service"


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A user's home on a board whose systemd does all that it is asked for."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setattr(service, "_run", lambda command, environment=None: "")
    monkeypatch.setattr(service, "lingers", lambda: True)
    for name in ("fsync", "sync"):  # The disk of this machine is not what is cut off.
        monkeypatch.setattr(os, name, lambda *of: None)
    _at(home, monkeypatch)
    return home


def _at(home: Path, monkeypatch: pytest.MonkeyPatch) -> dict:
    monkeypatch.setenv("HOME", str(home))
    base = home / "edgelstm/m"
    return {"base": str(base), "unit": UNIT, "state": str(base / "state"), "settle": 0}


def put(place: dict, id_: str, runs: bool = True) -> None:
    """A version, as it arrives."""
    files = {"bundle.edge": id_.encode() * 100, "site/a.py": b"pass"}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    buffer.seek(0)
    deployed = {"arguments": ["--input", "x"] if runs else [], "backend": "auto", "precision": None}
    texts = {
        "deployment.json": json.dumps(deployed),
        "start": "#!/bin/sh\n",
        UNIT: unit("m", place["base"].split("/home/")[0] + "/BASE", False, version=id_),
    }
    agent.receive({**place, "id": id_, "files": {}, "texts": texts}, buffer)


def runs_at_boot(place: dict) -> str | None:
    """The version that systemd starts: what its unit says, if a link asks for it."""
    units = Path.home() / ".config/systemd/user"
    wanted = units / "default.target.wants" / UNIT
    if not wanted.is_symlink() or not (units / UNIT).exists():
        return None
    (start,) = (line for line in (units / UNIT).read_text().splitlines() if line.startswith("ExecStart="))
    return start.split("/versions/")[1].removesuffix("/start")


def said(place: dict) -> tuple[str | None, tuple[str, ...]]:
    """What the board says runs, when it is next asked for something."""
    asked = messages.Place(**place)
    with storage.locked(Path(place["base"])):
        notes = agent.switch.recover(asked)
    return model.Model(Path(place["base"])).current, notes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "work"),
    [
        ([], ("activate", FIRST, True)),
        pytest.param([], ("activate", FIRST, False), marks=pytest.mark.slow),
        ([(FIRST, True)], ("activate", SECOND, True)),
        pytest.param([(FIRST, True)], ("activate", SECOND, False), marks=pytest.mark.slow),
        pytest.param([(FIRST, False)], ("activate", SECOND, True), marks=pytest.mark.slow),
        pytest.param([(FIRST, False)], ("activate", SECOND, False), marks=pytest.mark.slow),
        ([(FIRST, True), (SECOND, True)], ("rollback", FIRST, True)),
        pytest.param([(FIRST, True), (SECOND, True)], ("fail", THIRD, True), marks=pytest.mark.slow),
        pytest.param([(FIRST, True)], ("fail", SECOND, False), marks=pytest.mark.slow),
        pytest.param([(FIRST, False)], ("fail", SECOND, True), marks=pytest.mark.slow),
        pytest.param([], ("fail", FIRST, True), marks=pytest.mark.slow),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, tuple) else None,
)
def test_a_cut_leaves_the_old_version_or_the_new_one(home, before, work, tmp_path, monkeypatch):
    kind, new, new_runs = work
    place = _at(home, monkeypatch)
    for id_, runs in before:
        put(place, id_, runs)
        agent.activate({**place, "id": id_})
    if kind != "rollback":
        put(place, new, new_runs)
    is_service = dict([*before, (new, new_runs)])
    old = before[-1][0] if before else None
    start = copied(home, tmp_path / "start")
    with recorded(home, storage, monkeypatch, ignored=(".lock",)) as recorder:
        if kind == "fail":
            fails = iter(["does not come up"])
            real = "restart" if new_runs else "stop"
            monkeypatch.setattr(service, real, lambda place: next(fails, ""))
            with pytest.raises(agent.RefusedError, match="does not come up"):
                agent.activate({**place, "id": new})
        elif kind == "rollback":
            agent.rollback({**place, "id": None})
        else:
            agent.activate({**place, "id": new})
    assert len(recorder.calls) > 10
    monkeypatch.setattr(service, "_run", lambda command, environment=None: "")
    ends = set()
    for count in range(len(recorder.calls) + 1):
        disk = Disk(start)
        for call in recorder.calls[:count]:
            disk.do(call)
        for left in ("all", "names", "synced"):
            there = tmp_path / f"cut-{count}-{left}"
            disk.left(left, there)
            cut = _at(there, monkeypatch)
            booted, before_asked = runs_at_boot(cut), recorder.calls[:count][-1:]
            assert booted in (*(v for v in (old, new) if v and is_service[v]), None), before_asked
            current, _ = said(cut)
            where = f"after {count} calls, {left}: {before_asked}"
            assert current in (old, new), where
            # What it says is what it had started, and starts from now on.
            expected = current if current and is_service[current] else None
            assert booted == expected, where
            assert runs_at_boot(cut) == expected, where
            found = model.Model(Path(cut["base"]))
            assert found.switching() is None, where
            history = found.history()
            assert (history[-1] if history else None) == current, where
            if current:
                found.check(current)
            ends.add(current)
            # And it goes on: the new version can be put there.
            if left == "synced":
                assert agent.activate({**cut, "id": new})["version"] == new, where
    assert ends == {old, new} if kind != "fail" else ends <= {old, new}


def test_a_writer_that_goes_past_the_recorder_is_noticed(tmp_path, monkeypatch):
    with recorded(tmp_path, storage, monkeypatch) as recorder:
        storage.write(tmp_path / "a", b"x")
        with pytest.raises(AssertionError, match="recorded nowhere"):
            (tmp_path / "b").write_text("x")
        with pytest.raises(AssertionError, match="recorded nowhere"):
            (tmp_path / "a").chmod(0o600)
    assert [call[0] for call in recorder.calls] == ["create", "write", "fsync", "rename", "fsync"]


def test_a_file_that_is_not_synced_is_lost_in_the_replay(tmp_path):
    """Or the replay would prove nothing."""
    (tmp_path / "start").mkdir()
    (tmp_path / "start/a").write_bytes(b"old")
    disk = Disk(tmp_path / "start")
    for call in (("create", ".a"), ("write", ".a", b"new"), ("rename", ".a", "a")):
        disk.do(call)
    found = {}
    for kind in ("all", "names", "synced"):
        (tmp_path / kind).mkdir()
        disk.left(kind, tmp_path / kind)
        found[kind] = (tmp_path / kind / "a").read_bytes()
    assert found == {"all": b"new", "names": b"", "synced": b"old"}
    assert isinstance(Recorder(tmp_path), Recorder)


def test_every_byte_of_a_history_counts(home, monkeypatch):
    place = _at(home, monkeypatch)
    for id_ in (FIRST, SECOND):
        put(place, id_)
        agent.activate({**place, "id": id_})
    base = Path(place["base"])
    whole = (base / "history.json").read_bytes()
    for i in range(len(whole)):
        (base / "history.json").write_bytes(whole[:i] + bytes([whole[i] ^ 1]) + whole[i + 1 :])
        with pytest.raises(agent.RefusedError, match=r"history\.json is damaged.*name one of --list with --to"):
            agent.rollback({**place, "id": None})
    assert model.Model(base).current == SECOND
    # The remedy, and what a deployment makes of it.
    done = agent.rollback({**place, "id": FIRST})
    assert done["version"] == FIRST
    assert "lies in history.json.damaged now" in done["notes"][0]
    assert (base / "history.json.damaged").read_bytes() != whole
    assert model.Model(base).history() == [SECOND, FIRST]


def test_a_version_is_checked_before_it_becomes_current(home, monkeypatch):
    place = _at(home, monkeypatch)
    for id_ in (FIRST, SECOND):
        put(place, id_)
        agent.activate({**place, "id": id_})
    version = Path(place["base"]) / "versions" / FIRST
    for file in sorted(path for path in version.rglob("*") if path.is_file()):
        whole = file.read_bytes()
        for damaged in (b"", whole[:-1], whole[:1] + bytes([whole[1] ^ 1]) + whole[2:], None):
            file.unlink()
            if damaged is not None:
                file.write_bytes(damaged)
            with pytest.raises(agent.RefusedError, match=r"is damaged|cannot be read"):
                agent.rollback({**place, "id": FIRST})
            assert model.Model(Path(place["base"])).current == SECOND
            listed = agent.versions(place)["versions"]
            assert [each["problem"] is None for each in sorted(listed, key=lambda v: v["id"])] == [False, True]
            file.write_bytes(whole)
    assert agent.rollback({**place, "id": FIRST})["version"] == FIRST


def test_nothing_that_another_verifies_is_pruned(home, monkeypatch):
    """Nor does it matter what a version is called: clocks differ."""
    place = _at(home, monkeypatch)
    for id_ in ("20300101", "20300102", "20200101"):
        put(place, id_)
        agent.activate({**place, "id": id_})
    put(place, "20100101")
    assert agent.prune({**place, "keep": 2})["removed"] == ("20300101",)
    agent.activate({**place, "id": "20100101"})
    assert agent.prune({**place, "keep": 2})["removed"] == ("20300102",)


@pytest.mark.parametrize(
    ("command", "argument", "words"),
    [
        ("verify", {"id": "v1", "precison": "int8"}, "the request to verify has the unknown field 'precison'"),
        ("activate", {}, "the request to activate lacks the field 'id'"),
        ("prune", {"keep": "3"}, "the request to prune.keep is '3', not a whole number"),
    ],
)
def test_a_request_that_is_none(home, monkeypatch, command, argument, words):
    with pytest.raises(agent.RefusedError, match=words):
        agent.COMMANDS[command]({**_at(home, monkeypatch), **argument})


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 60_000, b"x" * 10**6, b'{"pid": 1}'])
def test_a_report_that_is_none(home, monkeypatch, content):
    place = messages.Place(**_at(home, monkeypatch))
    Path(place.state).mkdir(parents=True)
    (Path(place.state) / "report.json").write_bytes(content)
    with pytest.raises(agent.RefusedError, match=r"report\.json"):
        condition.read_report(place)
