"""What a deployment is made of: the wheels that a board needs, its unit, and the script that the unit starts."""

from __future__ import annotations

import importlib
import os
import subprocess
import tempfile
from itertools import takewhile
from pathlib import Path

import pytest
from edgelstm.devices import unit as units
from edgelstm.devices.agent.messages import Facts
from edgelstm.devices.board import BoardError
from edgelstm.devices.deploy import Deployment, choose_wheels, devices_in
from edgelstm.runtime import InputError

from tests.engine.toolchain import require
from tests.runtime.test_window_graphs import bundle_of

deploys = importlib.import_module("edgelstm.devices.deploy")  # Whose name the function has, too.
OURS = [f"edgelstm-0.1.0-cp311-abi3-{platform}.whl" for platform in ("manylinux_2_27_aarch64", "linux_armv6l")]
PURE = ["paho_mqtt-2.1.0-py3-none-any.whl", "pyserial-3.5-py2.py3-none-any.whl"]
NOTHING = dict.fromkeys(("numpy", "ai-edge-litert", "tflite-runtime", "onnxruntime", "paho-mqtt", "pyserial"))


def facts(machine: str = "aarch64", bits: int = 64, **packages: str) -> Facts:
    there = {**NOTHING, **{name.replace("_", "-"): version for name, version in packages.items()}}
    return Facts(
        machine, bits, (3, 11, 2), ("glibc", "2.36"), there, True, False, 10**9, "/home/pi/x", (), 1000, "Linux"
    )


@pytest.mark.parametrize(
    ("there", "backend", "arguments", "wheels", "chosen"),
    [
        (facts(numpy="1.24.2"), "auto", (), OURS, [OURS[0]]),
        (facts("armv6l", 32, numpy="1.24.2"), "auto", (), OURS, [OURS[1]]),
        (facts("armv7l", 32, numpy="1.24.2"), "auto", (), OURS, [OURS[1]]),
        # A 64-bit kernel below 32-bit programs.
        (facts("aarch64", 32, numpy="1.24.2"), "auto", (), OURS, [OURS[1]]),
        (
            facts(),
            "auto",
            (),
            [*OURS, "numpy-2.3.5-cp311-cp311-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl"],
            [OURS[0], "numpy-2.3.5-cp311-cp311-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl"],
        ),
        (
            facts(numpy="1.24.2", paho_mqtt="1.6.1"),
            "auto",
            ("--mqtt=mqtt://localhost", "--baud", "9600"),
            [
                *OURS,
                "paho_mqtt-2.1.0-py3-none-any (1).whl",
                "paho_mqtt-2.1.0-py3-none-any.whl",
                "pyserial-3.5-py2.py3-none-any.whl",
            ],
            [OURS[0], "paho_mqtt-2.1.0-py3-none-any.whl", "pyserial-3.5-py2.py3-none-any.whl"],
        ),
        (facts(numpy="1.24.2", paho_mqtt="2.1.0"), "auto", ("--mqtt", "mqtt://localhost"), OURS, [OURS[0]]),
        (facts(numpy="1.24.2", tflite_runtime="2.14.0"), "tflite", (), OURS, [OURS[0]]),
    ],
)
def test_the_wheels_that_a_board_needs(there, backend, arguments, wheels, chosen, tmp_path):
    for name in wheels:
        (tmp_path / name).touch()
    deployment = Deployment(Path("pump.edge"), tmp_path, arguments, "pump", backend)
    assert [path.name for path in choose_wheels(deployment, there, "pi")] == chosen


@pytest.mark.parametrize(
    ("there", "backend", "arguments", "words"),
    [
        (facts(), "auto", (), "no wheel of numpy in .*sudo apt install python3-numpy"),
        (facts(numpy="1.24"), "tflite", (), "pip download ai-edge-litert .*--python-version 3.11 .*_aarch64"),
        (facts("aarch64", 32, numpy="1.24"), "tflite", (), "pip download tflite-runtime .*_armv7l"),
        (facts(numpy="1.24"), "auto", ("--baud", "9600"), "no wheel of pyserial in .* pip download pyserial"),
        (facts("riscv64", numpy="1.24"), "auto", (), "no wheel of edgelstm .*it has edgelstm-.*make wheels"),
    ],
)
def test_what_to_do_where_one_is_lacking(there, backend, arguments, words, tmp_path):
    for name in OURS:
        (tmp_path / name).touch()
    with pytest.raises(BoardError, match=words):
        choose_wheels(Deployment(Path("pump.edge"), tmp_path, arguments, "pump", backend), there, "pi")


def test_a_port_is_opened_to_the_service():
    assert devices_in(["--input=/dev/ttyUSB0", "--baud", "9600", "/dev/x"]) == ["/dev/ttyUSB0", "/dev/x"]
    # Topics are called what they like.
    named = ["--publish", "/dev/room/1", "--subs=/dev/a", "--status", "/dev/b", "--input", "/dev/c"]
    assert devices_in(named) == ["/dev/c"]


NASTY = [
    "a b",
    "50%h",
    'a"b',
    "it's",
    "back\\slash",
    "$HOME ${HOME}",
    "é",
    "%%",
    "a\nExecStartPre=/bin/touch x",
    "a\tb",
]


@pytest.mark.slow
@pytest.mark.parametrize("name", NASTY)
def test_systemd_reads_what_was_meant(name):
    """systemd itself says what it makes of a unit, as the manager of a user who is not root."""
    require("systemd-analyze", "setpriv")
    with tempfile.TemporaryDirectory() as folder:
        base, text = Path(folder, name), Path(folder, "units/x.service")
        start = base / "versions/v1/start"
        start.parent.mkdir(parents=True)
        start.write_text("#!/bin/sh\n")
        text.parent.mkdir()
        text.write_text(units.unit("x", str(base), False, version="v1"))
        done = subprocess.run(["systemd-analyze", "verify", "--man=no", text], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        dump = _dumped(Path(folder))
    assert [line for line in dump if line.startswith("-> Exec")] == ["-> ExecStart:"]
    assert units.unfit(name) == any(ord(c) < 32 for c in name)
    if not units.unfit(name):  # Others are refused before.
        (command,) = (line for line in dump if line.startswith("Command Line: "))
        # As a shell takes it; $$ is systemd's $.
        shell = ["sh", "-c", f"printf '%s\\n' {command.removeprefix('Command Line: ')}"]
        words = subprocess.run(shell, capture_output=True, text=True, check=True).stdout.splitlines()
        assert [word.replace("$$", "$") for word in words] == ["/bin/sh", str(start)]
        assert f"ReadWritePaths: {base}/state" in dump


def _dumped(folder: Path) -> list[str]:
    """What systemd's test mode prints of the unit `x.service` in a folder's `units`."""
    (folder / "run").mkdir()
    for path, mode in ((folder, 0o755), (folder / "run", 0o777)):
        path.chmod(mode)
    own = {"PATH": os.environ["PATH"], "HOME": "/", "SYSTEMD_LOG_TARGET": "console"}
    own |= {"SYSTEMD_UNIT_PATH": f"{folder}/units:", "XDG_RUNTIME_DIR": f"{folder}/run"}
    command = ["/lib/systemd/systemd", "--user", "--test", "--unit=x.service"]
    if os.geteuid() == 0:
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
    done = subprocess.run(command, capture_output=True, text=True, env=own, timeout=60)
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines()]
    if "-> Unit x.service:" not in lines:
        pytest.skip(f"systemd does not run here: {lines[-1:]}")
    rest = lines[lines.index("-> Unit x.service:") + 1 :]
    return list(takewhile(lambda line: not line.startswith("-> Unit "), rest))


def test_what_systemd_could_not_read_is_refused(tmp_path):
    bundle = tmp_path / "pump.edge"
    there = facts(numpy="1.24")
    for system, arguments in (
        (False, ("--input", "/dev/ttyUSB0\nDeviceAllow=/dev/mem")),
        (True, ("--credentials", "/etc/a\nExecStartPre=/bin/x")),
        (True, ("--credentials=/etc/back\\",)),
    ):
        deployment = Deployment(bundle, tmp_path, arguments, "pump", system=system)
        with pytest.raises(InputError, match="a service cannot be given a path with such characters"):
            deploys._texts(deployment, there, [], "v1")
    text = units.unit("pump", "/opt/edgelstm/pump", True, secrets={"credentials": "/etc/100% a\nExecStart=/bin/x"})
    assert "LoadCredential=credentials:/etc/100%% a?ExecStart=/bin/x\n" in text


def test_secrets_are_handed_over_by_systemd():
    """The user of a system's service is made at its start and may read none of root's files."""
    given = ["--mqtt", "mqtts://broker", "--credentials=/etc/edgelstm/mqtt", "--client-key", "/etc/edgelstm/a key"]
    arguments, secrets = units.with_credentials(given)
    assert secrets == {"credentials": "/etc/edgelstm/mqtt", "client-key": "/etc/edgelstm/a key"}
    text = units.unit("pump", "/opt/edgelstm/pump", True, secrets=secrets)
    assert "LoadCredential=credentials:/etc/edgelstm/mqtt\n" in text
    script = units.start_script("auto", None, arguments, True)
    assert (
        '--credentials "$CREDENTIALS_DIRECTORY"/credentials --client-key "$CREDENTIALS_DIRECTORY"/client-key' in script
    )


@pytest.mark.parametrize("system", [True, False])
def test_systemd_takes_the_unit(system, tmp_path):
    require("systemd-analyze")
    start = tmp_path / "current/start"
    start.parent.mkdir()
    start.write_text("#!/bin/sh\n")
    start.chmod(0o755)
    file = tmp_path / "edgelstm-pump.service"
    file.write_text(
        units.unit("pump", str(tmp_path), system, devices=["/dev/ttyUSB0"], secrets={"credentials": "/etc/mqtt"})
    )
    done = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for line in (
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "Restart=always",
        "WatchdogSec=30",
        "MemoryMax=256M",
    ):
        assert line in file.read_text().splitlines()


def test_the_start_script_quotes_what_it_is_given(tmp_path):
    script = tmp_path / "start"
    arguments = ["--publish", "it's a 'topic'; rm -rf {state}", "$HOME", "{state}/x y"]
    script.write_text(units.start_script("auto", None, arguments, True).replace("exec python3", "exec echo"))
    (tmp_path / "kept").mkdir()
    folders = {"STATE_DIRECTORY": "/kept", "RUNTIME_DIRECTORY": "/run/x"}
    done = subprocess.run(["sh", "-c", f". {script}"], capture_output=True, text=True, env={**os.environ, **folders})
    assert done.stdout.strip().endswith(
        "--report /run/x/report.json --publish it's a 'topic'; rm -rf /kept $HOME /kept/x y"
    )


def test_a_bundle_that_the_engine_does_not_run_needs_its_interpreter(tmp_path):
    for name in OURS:
        (tmp_path / name).touch()
    deployment = Deployment(bundle_of(tmp_path / "whole.edge"), tmp_path, (), "whole", "auto")
    with pytest.raises(BoardError, match=r"no wheel of onnxruntime in .* pip download onnxruntime"):
        choose_wheels(deployment, facts(numpy="1.24.2"), "pi")
    assert choose_wheels(deployment, facts(numpy="1.24.2", onnxruntime="1.18.0"), "pi") == [tmp_path / OURS[0]]
