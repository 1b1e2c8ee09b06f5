"""What only an emulated board shows: other runtimes that come along, and a service on MQTT that goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from edgelstm.devices.userland import ARCHITECTURES
from edgelstm.export import export, read_keras

from tests.devices.boards import DIST, current, deploy, fetch, started, status
from tests.engine.toolchain import require
from tests.runtime.mosquitto import Mosquitto, Peer
from tests.zoo import zoo_inputs, zoo_model

pytestmark = pytest.mark.devices


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return export(
        read_keras(zoo_model("tutorial_stacked")), tmp_path_factory.mktemp("b") / "pump.edge", name="pump"
    ).path


@pytest.mark.devices
@pytest.mark.parametrize(
    ("architecture", "backend", "requirement"),
    [("arm64", "tflite", "ai-edge-litert"), ("arm64", "onnx", "onnxruntime"), ("armhf", "tflite", "tflite-runtime")],
)
def test_another_runtime_comes_along(architecture, backend, requirement, bundle, tmp_path):
    """Offline: its wheel lies beside ours, and the board installs nothing."""
    wheels = tmp_path / "wheels"
    shutil.copytree(DIST, wheels)
    platforms = [f"--platform=manylinux_2_{n}_{ARCHITECTURES[architecture].machine}" for n in (17, 27, 28, 34)]
    fetch(wheels, "--only-binary=:all:", "--python-version=3.11", *platforms, requirement)
    with started(architecture, tmp_path / "board") as board:
        done = deploy(board, bundle, wheels, "--backend", backend, "--json")
        assert done.status == 0, done.out + done.err
        (result,) = json.loads(done.out)["boards"]
        assert (result["step"]["backend"], result["parity"]["passed"]) == (backend, True)
        assert current(board) == result["version"]


@pytest.mark.parametrize("architecture", ["arm64", "armhf"])
def test_a_service_on_mqtt_goes_on_from_version_to_version(architecture, bundle, tmp_path):
    """The broker is this machine's; the board has Debian's NumPy, and paho-mqtt comes along."""
    require("mosquitto")
    wheels = tmp_path / "wheels"
    shutil.copytree(DIST, wheels)
    broker = Mosquitto(tmp_path / "broker").start()
    xs = zoo_inputs("tutorial_stacked", 60, 7)
    service = ["--", "--mqtt", broker.url, "--subscribe", "plant/+/in", "--publish", "plant/{1}/out"]
    service += ["--state", "{state}/streams", "--carry"]
    peer = Peer(broker, "plant/+/out")
    try:
        with started(architecture, tmp_path / "board") as board:
            lacking = deploy(board, bundle, wheels, *service)
            assert lacking.status == 1
            assert "no wheel of paho-mqtt in" in lacking.out
            assert "pip download paho-mqtt" in lacking.out
            fetch(wheels, "paho-mqtt")
            for part in (xs[:30], xs[30:]):
                done = deploy(board, bundle, wheels, *service)
                assert done.status == 0, done.out + board.ssh("cat ~/.running/*.journal")
                for x in part:
                    peer.publish("plant/a/in", json.dumps(x.tolist()))
                peer.wait("plant/a/out", len(part))
            (shown,) = status(board)
            assert shown["running"]
            answers = [list(json.loads(payload).values()) for payload in peer.on("plant/a/out")]
    finally:
        peer.close()
        broker.stop()
    np.testing.assert_allclose(answers, read_keras(zoo_model("tutorial_stacked")).reference(xs), rtol=1e-4, atol=2e-6)
