"""Services under the real systemd: what it makes of the unit, what brings a service back, and what it may open."""

from __future__ import annotations

import base64
import json
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from edgelstm.export import export
from edgelstm.runtime import load

from tests.devices.boards import DIST, fetch
from tests.devices.booted import booted_board
from tests.devices.stand_in import StandIn
from tests.engine.models import inputs, network
from tests.engine.toolchain import require
from tests.runtime.mosquitto import Mosquitto, Peer
from tests.toolkit.conftest import call
from tests.waiting import until

pytestmark = pytest.mark.devices
NAME = "LSTM 8 32 32 4"


@pytest.fixture(scope="module", params=["bookworm", "trixie"])
def machine(request, tmp_path_factory):
    with booted_board(tmp_path_factory.mktemp("machine") / "board", request.param) as running:
        running.root.ssh("mkdir -m 777 /srv/pipes")  # A service's /tmp is its own.
        yield running


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return export(network(NAME), tmp_path_factory.mktemp("bundle") / "pump.edge", ["native"]).path


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheels") / "dist"
    shutil.copytree(DIST, folder)
    fetch(folder, "paho-mqtt", "pyserial")
    return folder


@dataclass(frozen=True)
class Service:
    """A service on the board.

    Attributes:
        board: as its user sees it.
        name: of the model there.
        system: whether it is the whole system's.
    """

    board: StandIn
    name: str
    system: bool

    @property
    def unit(self) -> str:
        return f"{'' if self.system else '--user '}edgelstm-{self.name}.service"

    @property
    def state(self) -> str:
        """Its folder there."""
        return f"/var/lib/edgelstm/{self.name}" if self.system else f".local/share/edgelstm/{self.name}/state"

    @property
    def where(self) -> tuple[str, ...]:
        """What `edgelstm` is told of it."""
        return (self.board.host, *self.board.arguments, "--name", self.name, *(["--system"] if self.system else []))

    def deploy(self, bundle: Path, wheels: Path, *arguments: object):
        return call("deploy", bundle, *self.where, "--wheels", wheels, "--", *arguments)

    def shown(self, name: str) -> str:
        """What systemd knows of it."""
        return self.board.ssh(f"systemctl show --value --property={name} {self.unit}").strip()

    @property
    def process(self) -> int:
        """Its process; none while another state than running."""
        running = self.shown("SubState") == "running"
        return int(self.shown("MainPID")) if running else 0

    def again(self, before: int, seconds: float = 60) -> None:
        """Wait until it runs as another process than this one."""
        until(lambda: self.process not in (0, before), f"{self.unit} runs again", seconds)

    def answers(self, count: int) -> np.ndarray:
        """All that it has answered, as soon as it is so many lines."""
        until(lambda: len(self._lines()) >= count, f"{count} answers of {self.unit}")
        return np.loadtxt(self._lines(), delimiter=",", ndmin=2)

    def saved(self, bundle: Path) -> int:
        """Timesteps that its saved state has seen."""
        stream = load(bundle).stream()
        stream.restore(base64.b64decode(self.board.ssh(f"base64 {self.state}/stream")))
        return stream.steps

    def _lines(self) -> list[str]:
        return self.board.ssh(f"cat {self.state}/out").splitlines()


def text(rows: np.ndarray) -> str:
    return "".join(",".join(map(str, row)) + "\n" for row in rows)


def close(answers: object, want: np.ndarray) -> bool:
    return np.allclose(np.asarray(answers, np.float64), want, rtol=1e-5, atol=1e-6)


@pytest.fixture(params=[False, True], ids=["user", "system"])
def service(request, machine) -> Service:
    """One of each kind, not deployed yet."""
    name = f"{request.function.__name__.removeprefix('test_')[:12]}-{'system' if request.param else 'user'}"
    return Service(machine.root if request.param else machine.pi, name, request.param)


def pipe(service: Service) -> str:
    """A named pipe there that everybody may write to and read from."""
    path = f"/srv/pipes/{service.name}"
    service.board.ssh(f"mkfifo {path} && chmod 666 {path}")
    return path


def hold_open(service: Service, path: str) -> None:
    """A writer that stays, so that none of those that come and go is the last one."""
    service.board.ssh(f"setsid sh -c 'exec sleep 1000 <>{path}' >/dev/null 2>&1 &")


def test_systemd_confines_it(service, bundle, wheels):
    xs, path = inputs(NAME, 40), pipe(service)
    done = service.deploy(bundle, wheels, "--input", path, "--output", "{state}/out", "--state", "{state}/stream")
    assert done.status == 0, done.out
    assert "UNTIL YOU LOG OUT" not in done.out
    first = service.process
    service.board.ssh(f"cat > {path}", text(xs))
    assert close(service.answers(40), load(bundle).stream().run(xs))
    service.again(first)  # That was the end of its input.
    process = service.process
    shown = call("status", *service.where, "--json")
    (model,) = json.loads(shown.out)["boards"][0]["models"]
    assert (shown.status, model["running"], model["report"]["pid"]) == (0, True, process)
    assert "report.json" not in service.board.ssh(f"ls -a {service.state}")  # Written too often for a card.
    said = service.board.ssh(f"cat /proc/{process}/status")
    facts = dict(line.split(":", 1) for line in said.splitlines())
    assert int(facts["NoNewPrivs"]) == 1
    assert int(facts["Uid"].split()[0]) != 0
    root = next(
        line.split()
        for line in service.board.ssh(f"cat /proc/{process}/mountinfo").splitlines()
        if line.split()[4] == "/"
    )
    assert root[5].startswith("ro,")
    assert service.shown("MemoryMax") == str(256 * 2**20)
    assert service.shown("WatchdogUSec") == "30s"


def test_whatever_ends_it_it_goes_on(machine, bundle, wheels):
    """Killed, stuck, out of input, and after a reboot: every answer is that of a stream without a break."""
    services = [Service(machine.pi, "lasting", False), Service(machine.root, "lasting-system", True)]
    paths = [pipe(service) for service in services]
    xs = inputs(NAME, 100)
    want = load(bundle).stream().run(xs)
    for service, path in zip(services, paths, strict=True):
        keeping = ("--output", "{state}/out", "--state", "{state}/stream", "--save-every", "0")
        done = service.deploy(bundle, wheels, "--input", path, *keeping)
        assert done.status == 0, done.out
    for i, event in enumerate(("kill -KILL", "kill -STOP", "pkill sleep", "reboot", "")):
        before = [0 if event == "reboot" else service.process for service in services]
        for service, path in zip(services, paths, strict=True):
            hold_open(service, path)
            service.board.ssh(f"cat > {path}", text(xs[20 * i : 20 * i + 20]))
            assert close(service.answers(20 * i + 20), want[: 20 * i + 20]), event
        for service in services:  # The state is saved behind the answer.
            until(lambda at=service, all_=20 * i + 20: at.saved(bundle) == all_, f"{service.unit} has saved its state")
        if event == "reboot":
            machine.reboot()
        elif event == "pkill sleep":  # The end of the input.
            machine.root.ssh(event)
        elif event:
            for service, process in zip(services, before, strict=True):
                service.board.ssh(f"{event} {process}")
        if event:
            for service, process in zip(services, before, strict=True):
                service.again(process)
    for service in services:
        assert [len(service._lines()), service.shown("NRestarts")] == [100, "0"]  # Since the reboot.


def test_what_does_not_start_says_why(service, bundle, wheels):
    path = pipe(service)
    keeping = ("--output", "{state}/out", "--state", "{state}/stream")
    assert service.deploy(bundle, wheels, "--input", path, *keeping).status == 0
    done = service.deploy(bundle, wheels, "--input", "/nowhere/at/all", *keeping)
    assert done.status == 1
    assert "the service does not start: edgelstm: error: /nowhere/at/all: cannot be opened" in done.out
    assert "the version before runs again" in done.out
    xs = inputs(NAME, 5)
    service.board.ssh(f"cat > {path}", text(xs))
    assert close(service.answers(5), load(bundle).stream().run(xs))


def test_services_come_and_go(service, bundle, wheels):
    path = pipe(service)
    assert service.deploy(bundle, wheels, "--input", path, "--output", "{state}/out").status == 0
    alone = call("deploy", bundle, *service.where, "--wheels", wheels)
    assert alone.status == 0, alone.out
    assert [service.shown(name) for name in ("ActiveState", "UnitFileState")] == ["inactive", "disabled"]
    back = call("deploy", bundle, *service.where, "--rollback")
    assert (back.status, "service runs" in back.out) == (0, True), back.out
    assert [service.shown(name) for name in ("ActiveState", "UnitFileState")] == ["active", "enabled"]
    xs = inputs(NAME, 5)
    service.board.ssh(f"cat > {path}", text(xs))
    assert close(service.answers(5), load(bundle).stream().run(xs))


# The other end of a port: gives it to the group that serial ports belong to, says its name, and sends what comes in.
_PORT = """
import os, shutil, sys, tty
ours, theirs = os.openpty()
tty.setraw(theirs)
name = os.ttyname(theirs)
shutil.chown(name, "root", "dialout")
os.chmod(name, 0o660)
print(name, flush=True)
for line in sys.stdin:
    os.write(ours, line.encode())
"""


def test_it_reads_a_serial_port(service, machine, bundle, wheels):
    xs = inputs(NAME, 20)
    script = ["ssh", *machine.root.options, machine.root.host, f"python3 -uc {shlex.quote(_PORT)}"]
    with subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as sender:
        assert sender.stdin is not None
        assert sender.stdout is not None
        try:
            name = sender.stdout.readline().strip()
            done = service.deploy(bundle, wheels, "--input", name, "--baud", 115200, "--output", "{state}/out")
            assert done.status == 0, done.out
            # What comes first may be the rest of a line, so that one is dropped.
            sender.stdin.write("\n" + text(xs))
            sender.stdin.flush()
            assert close(service.answers(20), load(bundle).stream().run(xs))
        finally:
            # Or it would take the next port of that name, which it opens for itself alone.
            service.board.ssh(f"systemctl stop {service.unit}")
            sender.kill()


def test_secrets_reach_it_and_nobody_else(machine, bundle, wheels, tmp_path):
    require("mosquitto", "mosquitto_passwd")
    subprocess.run(["mosquitto_passwd", "-b", "-c", tmp_path / "users", "pump", "s3cret"], check=True)
    service = Service(machine.root, "secret", True)
    machine.root.ssh("install -m 600 /dev/stdin /etc/pump-mqtt", "pump\ns3cret\n")
    xs = inputs(NAME, 10)
    broker = Mosquitto(tmp_path / "broker", f"password_file {tmp_path}/users\n").start()
    try:
        peer = Peer(broker, "out/#", prepare=lambda client: client.username_pw_set("pump", "s3cret"))
        topics = ("--subscribe", "in/+", "--publish", "out/{1}", "--state", "{state}/streams")
        done = service.deploy(bundle, wheels, "--mqtt", broker.url, *topics, "--credentials", "/etc/pump-mqtt")
        assert done.status == 0, done.out
        for x in xs:
            peer.publish("in/a", json.dumps(x.tolist()))
        answers = [list(json.loads(payload).values()) for payload in peer.wait("out/a", 10)]
        assert close(answers, load(bundle).stream().run(xs))
        peer.close()
    finally:
        broker.stop()
    assert "s3cret" not in machine.root.ssh(f"tr '\\0' '\\n' < /proc/{service.process}/environ")
    shown = call("status", *service.where)
    assert (shown.status, "dB against Keras there" in shown.out) == (0, True), shown.out
