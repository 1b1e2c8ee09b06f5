"""The engine as a library: installed, found by CMake and by pkg-config, and used by a program that knows only that."""

from __future__ import annotations

import os
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.engine.models import write
from tests.engine.toolchain import ENGINE, require, run
from tests.rooms.test_readme import blocks
from tests.wheel import build_sdist, build_wheel

pytestmark = pytest.mark.engine
CMAKE = """cmake_minimum_required(VERSION 3.16)
project(user LANGUAGES C)
find_package(edgelstm 0.1 REQUIRED)
add_executable(user {source})
target_link_libraries(user PRIVATE edgelstm::edgelstm)
"""


@pytest.fixture(scope="module", params=["static", "shared"])
def installed(request, tmp_path_factory):
    require("cmake", "cc")
    folder = tmp_path_factory.mktemp(request.param)
    shared = request.param == "shared"
    flags = "-Werror -DEDGELSTM_PORTABLE" if shared else "-Werror"  # One of them with every kernel is enough.
    prefix = f"-DCMAKE_INSTALL_PREFIX={folder / 'prefix'}"
    run(
        "cmake",
        "-S",
        ENGINE,
        "-B",
        folder / "build",
        prefix,
        f"-DBUILD_SHARED_LIBS={'ON' if shared else 'OFF'}",
        f"-DCMAKE_C_FLAGS={flags}",
    )
    run("cmake", "--build", folder / "build", "--parallel", 2)
    run("cmake", "--install", folder / "build")
    return folder


def test_cmake_finds_it(installed, tmp_path):
    (tmp_path / "CMakeLists.txt").write_text(CMAKE.format(source=ENGINE / "example.c"))
    run("cmake", "-S", tmp_path, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={installed / 'prefix'}")
    run("cmake", "--build", tmp_path / "build")
    assert ": " in run(tmp_path / "build" / "user", write(tmp_path, "tutorial_last", "float32", 10)[0])


def test_pkg_config_finds_it(installed, tmp_path):
    require("pkg-config")
    (pc,) = (installed / "prefix").rglob("edgelstm.pc")
    flags = run("pkg-config", "--cflags", "--libs", "--static", "edgelstm", PKG_CONFIG_PATH=str(pc.parent)).split()
    run("cc", ENGINE / "example.c", "-o", tmp_path / "user", *flags, f"-Wl,-rpath,{pc.parents[1]}")
    assert ": " in run(tmp_path / "user", write(tmp_path, "tutorial_last", "float32", 10)[0])


def test_the_benchmark_measures(installed, tmp_path):
    models = [write(tmp_path, "LSTM 8 32 32 4", precision, 10)[0] for precision in ("float32", "int8")]
    lines = run(installed / "build" / "edgelstm_bench", "--json", *models).splitlines()
    assert len(lines) == 2
    assert all('"bandwidth": ' in line for line in lines)


def test_the_readme_builds_it_from_an_installed_package(tmp_path):
    require("cmake", "cc")
    site, project = tmp_path / "site", tmp_path / "app"
    # The module needs no compiler here: it is the sources in the wheel that are built.
    zipfile.ZipFile(build_wheel(tmp_path, compiler="false")).extractall(site)
    engine = site / "edgelstm" / "runtime" / "engine"
    project.mkdir()
    (code,) = (block for block in blocks("sh") if "/engine" in block)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    quickly = {"CMAKE_BUILD_TYPE": "Debug", "CMAKE_BUILD_PARALLEL_LEVEL": "2", "CFLAGS": "-DEDGELSTM_PORTABLE"}
    run("sh", "-ec", f"cd {project}\n{code}", HOME=str(tmp_path), PYTHONPATH=str(site), PATH=path, **quickly)
    # It was built from the package, not from the clone beside it.
    assert f"={engine}\n" in (project / "build" / "CMakeCache.txt").read_text()
    (snippet,) = blocks("cmake")
    head = "cmake_minimum_required(VERSION 3.16)\nproject(user LANGUAGES C)\n"
    (project / "CMakeLists.txt").write_text(f"{head}add_executable(app {engine / 'example.c'})\n{snippet}")
    run("cmake", "-S", project, "-B", project / "out", f"-DCMAKE_PREFIX_PATH={tmp_path / '.local'}")
    run("cmake", "--build", project / "out")
    assert ": " in run(project / "out" / "app", write(tmp_path, "tutorial_last", "float32", 10)[0])


def test_an_sdist_has_the_whole_engine(tmp_path):
    with tarfile.open(build_sdist(tmp_path)) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (engine,) = tmp_path.glob("edgelstm-*/runtime/engine")
    assert {path.name: path.read_bytes() for path in engine.iterdir()} == {
        path.name: path.read_bytes() for path in ENGINE.iterdir()
    }
