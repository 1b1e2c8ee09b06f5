"""Device profiles: whole, consistent, sourced; and what a wrong one is told."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
from edgelstm.devices import find_profile, profiles, read_profile
from edgelstm.devices.estimate import cost
from edgelstm.runtime import InputError
from edgelstm.runtime.backends import BACKENDS

FOLDER = Path(__file__).parents[2] / "devices" / "profiles"
ASKED_FOR = {
    *("raspberry-pi-zero", "raspberry-pi-pico", "raspberry-pi-pico-2", "stm32f4", "stm32h7", "nrf52840"),
    *("esp32", "esp32-s3", "arm64-phone", "browser"),
    *(f"raspberry-pi-{board}-{bits}" for board in ("zero-2-w", "3b", "4b", "5") for bits in (32, 64)),
}


def test_all_that_were_asked_for_are_there():
    assert set(profiles()) == ASKED_FOR


@pytest.mark.parametrize("name", sorted(ASKED_FOR))
def test_a_profile_is_consistent(name):
    profile = profiles()[name]
    assert {"processor", "clock_hz", "ram", "formats"} <= set(profile.sources)
    assert ("flash" in profile.sources) == (profile.flash > 0)
    assert 1e6 < profile.clock_hz < 6e9
    assert profile.cores >= 1
    assert set(profile.formats) <= {"native", "tflite", "onnx", "c"}
    assert set(profile.backends) <= set(BACKENDS)
    # A backend is there for every format that Python would run, and Python only on Linux.
    assert bool(profile.backends) == (profile.kind == "linux") == bool(profile.wheel)
    assert {"native", "tflite", "onnx"} & set(profile.formats) >= {BACKENDS[b][0] for b in profile.backends}
    if profile.kind == "microcontroller":
        assert profile.formats == ("c",)
        assert profile.ram < profile.flash
    if profile.core:
        assert cost(profile.core, "float32") is not None


def test_figures_that_everybody_knows():
    """Against the boards' own front pages."""
    assert profiles()["raspberry-pi-pico"].ram == 264 * 1024
    assert profiles()["nrf52840"].clock_hz == 64_000_000
    assert profiles()["stm32h7"].flash == 2 * 1024**2
    assert profiles()["raspberry-pi-5-64"].clock_hz == 2_400_000_000


def test_a_profile_of_the_user_s_own(tmp_path):
    path = tmp_path / "gateway.toml"
    path.write_text((FOLDER / "raspberry-pi-4b-64.toml").read_text())
    mine = find_profile(str(path))
    assert mine.id == "gateway"
    assert {**asdict(mine), "id": ""} == {**asdict(profiles()["raspberry-pi-4b-64"]), "id": ""}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("clock_hz = 168_000_000", ""), "missing 'clock_hz'"),
        (("cores = 1", "cores = 1\ncolour = 3"), "unknown 'colour'"),
        (("cores = 1", 'cores = "one"'), "cores = 'one' is not what"),
        (("cores = 1", "cores = true"), "cores = True is not what"),
        (('formats = ["c"]', 'formats = "c"'), "formats = 'c' is not what"),
        (('class = "microcontroller"', 'class = "toaster"'), "class = 'toaster' is none of"),
        (('class = "microcontroller"', ""), "missing 'class'"),
        (("cores = 1", "cores ="), "not TOML"),
    ],
)
def test_what_is_wrong_with_a_profile_is_named(tmp_path, change, words):
    path = tmp_path / "mine.toml"
    path.write_text((FOLDER / "stm32f4.toml").read_text().replace(*change))
    with pytest.raises(InputError, match=words) as raised:
        read_profile(path)
    assert "mine.toml" in str(raised.value)


def test_a_device_that_is_not_known():
    with pytest.raises(InputError, match="there are raspberry-pi-4b-32, raspberry-pi-4b-64, or"):
        find_profile("4b")
    with pytest.raises(InputError, match=r"nowhere\.toml: cannot be read"):
        find_profile("nowhere.toml")
