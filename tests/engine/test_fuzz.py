"""The engine against any bytes: libFuzzer with AddressSanitizer and UndefinedBehaviorSanitizer, from real files.

`make fuzz` runs it for ten minutes; EDGELSTM_FUZZ_SECONDS sets another time.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.engine.models import elm, precisions
from tests.engine.toolchain import HERE, SOURCES, compile_engine, language, require

SECONDS = int(os.environ.get("EDGELSTM_FUZZ_SECONDS", "20"))
SEEDS = ["tutorial_last", "tutorial_stacked", "gru", "gru_reset_before", "simple_rnn", "masking", "activation_layers",
         "layer_normalization", "batch_normalization", "softmax_classifier"]  # fmt: skip


@pytest.mark.engine
def test_no_bytes_make_it_read_or_write_out_of_bounds(tmp_path):
    require("clang")
    corpus, seeds, found = (tmp_path / name for name in ("corpus", "seeds", "found"))
    for folder in (corpus, seeds, found):
        folder.mkdir()
    for name in SEEDS:
        for precision in precisions(name):
            (seeds / f"{name}.{precision}").write_bytes(elm(name, precision))
    program = tmp_path / "fuzz_file"
    check = ["-D_GNU_SOURCE", "-O1", "-g1", "-fno-sanitize-recover=all"]
    kernels = [source for source in SOURCES if source.stem.startswith("kernel_")]
    others = [source for source in SOURCES if source not in kernels]
    # In the kernels' long straight lines, every check there is would take minutes to compile, and finds what these do.
    arithmetic = "-fsanitize=address,signed-integer-overflow,float-cast-overflow,shift"
    objects = compile_engine(tmp_path / "kernels", "clang", *check, arithmetic, sources=kernels)
    everything = "-fsanitize=fuzzer-no-link,address,undefined,float-cast-overflow"
    objects += compile_engine(tmp_path / "others", "clang", *check, everything, sources=others)
    link = ["-fsanitize=fuzzer,address,undefined", f"-I{SOURCES[0].parent}", HERE / "fuzz_file.c", *objects]
    command = ["clang", *language("clang"), *check, *link, "-o", program, "-lm"]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    arguments = [f"-max_total_time={SECONDS}", "-seed=1", "-rss_limit_mb=4096", "-timeout=20", "-print_final_stats=1"]
    command = [program, *arguments, f"-artifact_prefix={found}/", corpus, seeds]
    fuzzed = subprocess.run([*map(str, command)], capture_output=True, text=True)
    report = [line for line in fuzzed.stderr.splitlines() if "stat::" in line or "cov:" in line]
    print(*report[-6:], sep="\n")
    kept = _keep(found)
    assert fuzzed.returncode == 0, f"{fuzzed.stderr[-4000:]}\ninputs that fail: {kept}"


def _keep(found: Path) -> list[str]:
    """What fails is kept where it can be found again."""
    kept: list[str] = []
    for file in found.iterdir():
        to = Path.cwd() / f"fuzz-{file.name}"
        shutil.copy(file, to)
        kept.append(str(to))
    return kept
