"""What fits on a device: bytes against the files and the compiler, instructions against a count of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from edgelstm.devices import find_profile, fit, profiles
from edgelstm.devices.estimate import cost, work_of
from edgelstm.export import export, export_c
from edgelstm.export.to_native import native_step_file
from edgelstm.runtime import Bundle
from edgelstm.runtime.network import LSTM, Dense, Network
from edgelstm.runtime.streaming import Window

from tests.engine.models import network
from tests.engine.toolchain import require
from tests.toolkit.conftest import call


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    where = tmp_path_factory.mktemp("fit") / "pump.edge"
    precisions = ["float32", "float16", "dynamic", "int8"]
    rows = np.random.default_rng(0).normal(size=(2, 100, 8))
    return export(network("LSTM 8 32 32 4"), where, precisions=precisions, calibration=rows).path


def of(path: Path, name: str) -> dict[str, object]:
    return {each.artifact: each for each in fit(Bundle.open(path), find_profile(name))}


def test_a_step_s_work_is_what_the_layers_have():
    """Against the arithmetic of a stacked LSTM, by hand."""
    work = work_of(native_step_file(network("LSTM 8 32 32 4"), "int8", None))
    assert work.weights == 4 * 32 * (8 + 32) + 4 * 32 * (32 + 32) + 32 * 4
    assert (work.units, work.precision) == (64, "int8")
    work = work_of(native_step_file(network("GRU 9 33 16 20"), "float32", None))
    assert work.weights == 3 * 33 * (9 + 33) + 3 * 16 * (33 + 16) + 16 * 20


def test_what_can_run_where(path):
    on = {name: {a for a, each in of(path, name).items() if not each.problem} for name in profiles()}
    engine = {f"{f} {p}" for f in ("native", "c") for p in ("float32", "float16", "int8")}
    tflite = {"tflite float32", "tflite float16", "tflite int8"}
    onnx = {"onnx float32", "onnx float16", "onnx dynamic"}
    assert on["raspberry-pi-4b-64"] == engine | tflite | {"tflite dynamic"} | onnx
    assert on["raspberry-pi-4b-32"] == engine | tflite
    assert on["raspberry-pi-zero"] == engine
    assert on["stm32f4"] == on["esp32"] == {"c float32", "c float16", "c int8"}
    assert on["browser"] >= {"onnx float32", "tflite float32", "c float32"}


def test_sequence_graphs_in_dynamic_are_refused_like_step_graphs(tmp_path):
    """tflite-runtime 2.14 does not know the product of either; see tests/runtime/test_tflite_runtime_2_14.py."""
    wanted = (["tflite"], ["float32", "dynamic"], ["sequence"])
    bundle = export(network("LSTM 8 32 32 4"), tmp_path / "x.edge", *wanted, window=30)
    found = fit(bundle, find_profile("raspberry-pi-4b-32"))
    assert {each.state for each in found if "sequence" in each.artifact} == {0}  # It keeps nothing between calls.
    problems = {each.artifact: each.problem for each in found}
    assert "--tflite-runtime-2.14" in problems["tflite dynamic (sequence)"]
    assert not problems["tflite float32 (sequence)"]


def test_bytes_are_those_of_the_files(path):
    manifest = Bundle.open(path).manifest
    sizes = {a.label: a.size for a in manifest.artifacts}
    for artifact, each in of(path, "raspberry-pi-4b-64").items():
        if artifact in sizes:
            assert each.flash == sizes[artifact]
        assert each.state == 4 * 4 * 32  # h and c of two layers of 32, float32.


@pytest.mark.slow
def test_a_model_that_is_too_large_for_a_device_says_by_how_much(tmp_path):
    rng = np.random.default_rng(0)
    weights = [rng.normal(0, 0.05, shape).astype(np.float32) for shape in ((8, 1024), (256, 1024), (1024,))]
    head = Dense("dense", rng.normal(0, 0.1, (256, 1)).astype(np.float32), np.zeros(1, np.float32))
    large = Network("large", (LSTM("lstm", *weights), head), 8, True, lambda xs: np.ones((len(xs), 1), np.float32))
    made = export(large, tmp_path / "large.edge", ["native"], ["float32", "int8"], min_snr=-1e9)
    (found,) = (each for each in fit(made, find_profile("stm32f4")) if each.artifact == "c float32")
    assert found.problem == f"needs {found.flash:,} bytes of flash, of 1,048,576"
    assert found.flash > 4 * 264 * 1024
    (small,) = (each for each in fit(made, find_profile("stm32f4")) if each.artifact == "c int8")
    assert not small.problem
    assert 264 * 1024 < small.flash < 264 * 1024 + 60_000


def test_an_estimate_says_what_it_rests_on(path):
    each = of(path, "stm32f4")["c float32"]
    assert each.microseconds == pytest.approx(each.instructions / 168)
    assert each.basis.startswith("estimate: instructions counted for cortex-m4f (arm-none-eabi-gcc")
    assert "168 MHz" in each.basis
    assert of(path, "esp32")["c float32"].microseconds is None


@pytest.mark.slow
def test_by_window_a_stream_is_a_state_for_each_in_flight(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)  # No compiler: what is compiled is another test's.
    made = export(network("LSTM 8 32 32 4"), tmp_path / "w.edge", ["native"], window=30, hop=4)
    carried = export(network("LSTM 8 32 32 4"), tmp_path / "c.edge", ["native"])
    by_window, alone = of(made.path, "stm32f4")["c float32"], of(carried.path, "stm32f4")["c float32"]
    assert by_window.state == 8 * alone.state == 8 * 4 * 4 * 32
    assert by_window.instructions == 8 * alone.instructions
    assert "for each of the 8 windows in flight" in by_window.basis
    built = export_c(network("LSTM 8 32 32 4"), tmp_path / "folder", window=30, hop=4)
    assert of(made.path, "raspberry-pi-4b-64")["c float32"].ram == built.state
    large = export(network("LSTM 8 32 32 4"), tmp_path / "l.edge", ["native"], window=1000)
    assert "bytes of RAM with its stack, of 196,608" in of(large.path, "stm32f4")["c float32"].problem


@pytest.mark.engine
def test_windows_in_flight_take_no_more_than_is_said(tmp_path):
    require("aarch64-linux-gnu-gcc", "qemu-aarch64")
    from tests.devices.count_instructions import CORES, count_windows, make_plugin

    make_plugin(tmp_path)
    of_one, counted = count_windows(CORES["cortex-a53"], "float32", tmp_path, Window(30))
    table = cost("cortex-a53", "float32")
    assert table is not None
    assert 0.85 <= counted / (30 * table.instructions(of_one)) <= 1.02


@pytest.mark.engine
@pytest.mark.parametrize("precision", ["int8"])  # Any of the three will do, and each takes half a minute.
def test_the_counts_are_repeatable(precision, tmp_path):
    """The table against a count here and now. Another release of the compiler may move it a little."""
    require("aarch64-linux-gnu-gcc", "qemu-aarch64")
    from tests.devices.count_instructions import CORES, count, make_plugin

    make_plugin(tmp_path)
    counted, code, error = count(CORES["cortex-a53"], precision, tmp_path)
    table = cost("cortex-a53", precision)
    assert table is not None
    work = work_of(native_step_file(network("LSTM 8 32 32 4"), precision, None))
    here = counted["per_step"] + counted["per_weight"] * work.weights + counted["per_unit"] * work.units
    assert table.instructions(work) == pytest.approx(here, rel=0.05)
    assert (table.error, table.code) == (pytest.approx(error, abs=0.02), pytest.approx(code, rel=0.05))


def test_the_commands(path):
    listed = call("devices")
    assert listed.status == 0
    assert all(name in listed.out for name in profiles())
    one = call("devices", "stm32f4")
    assert "source: ST datasheet DS8626" in one.out
    assert len(json.loads(call("devices", "--json").out)["devices"]) == len(profiles())
    everywhere = call("fit", path)
    assert everywhere.status == 0
    row = next(line for line in everywhere.out.splitlines() if line.startswith("stm32f4"))
    assert "c float32" in row
    assert "tflite" not in row
    shown = call("fit", path, "--device", "raspberry-pi-4b-32")
    assert "no onnx runtime exists for armv7 there" in shown.out
    described = json.loads(call("fit", path, "--device", "stm32f4", "--json").out)["devices"]["stm32f4"]
    assert {each["artifact"] for each in described if not each["problem"]} == {"c float32", "c float16", "c int8"}
    wrong = call("fit", path, "--device", "toaster")
    assert (wrong.status, "no device 'toaster'" in wrong.err) == (2, True)


def test_where_nothing_fits_the_status_says_so(tmp_path):
    made = export(network("tutorial_last"), tmp_path / "x.edge", ["onnx"])
    tiny = tmp_path / "tiny.toml"
    text = (Path(__file__).parents[2] / "devices" / "profiles" / "stm32f4.toml").read_text()
    tiny.write_text(text.replace("flash = 1_048_576", "flash = 16_384").replace("ram = 196_608", "ram = 1_024"))
    done = call("fit", made.path, "--device", tiny)
    assert done.status == 1
    assert "of RAM with its stack, of 1,024" in done.out
