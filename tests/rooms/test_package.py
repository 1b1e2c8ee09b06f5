"""What the package says of itself to pip and to its users."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import edgelstm.runtime

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_there_is_one_version():
    cmake = re.search(r"project\(edgelstm VERSION (\S+)", (ROOT / "runtime/engine/CMakeLists.txt").read_text())
    assert cmake is not None
    assert PROJECT["version"] == edgelstm.runtime.__version__ == cmake[1]


def test_the_readme_says_where_it_is():
    (path,) = re.findall(r"`(edgelstm[\w.]*)\.__version__` is the version", (ROOT / "README.md").read_text("utf-8"))
    assert importlib.import_module(path).__version__ == PROJECT["version"]
    # A module of that name would hide the other rooms where they are installed apart.
    assert importlib.import_module("edgelstm").__file__ is None


def test_python_as_the_classifiers_have_it():
    least = PROJECT["requires-python"].removeprefix(">=")
    named = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["classifiers"]))
    assert named[0] == least
    assert [int(version[2:]) for version in named] == list(range(int(least[2:]), int(least[2:]) + len(named)))
    assert PROJECT["authors"]
