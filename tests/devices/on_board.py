"""What a board does in these tests, with the wheel and NumPy alone: `on_board.py BUNDLES OUT MODEL …` replays the
golden vectors of each model's bundle on every backend that is there, and streams the inputs that lie beside the bundle
as an application would, for whoever asked to compare."""

import contextlib
import io
import json
import platform
import sys
from pathlib import Path

import numpy as np
from edgelstm.runtime import load, trial
from edgelstm.runtime.cli import main

# A process of its own for each bundle takes an emulator minutes; deployments to such boards have it.
trial._LIBRARIES.clear()
bundles, out = map(Path, sys.argv[1:3])
checks = {}
kernel = ""
for bundle in (bundles / f"{name}.edge" for name in sys.argv[3:]):
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        main(["verify", str(bundle), "--json"])
    checks[bundle.stem] = json.loads(printed.getvalue())["checks"]
    model = load(bundle, "native")
    kernel = model._opened.kernel
    stream = model.stream()
    np.save(out / f"{bundle.stem}.npy", [stream.step(x) for x in np.load(bundle.with_suffix(".npy"))])
about = {"machine": platform.machine(), "python": platform.python_version(), "numpy": np.__version__, "kernel": kernel}
print(json.dumps({**about, "checks": checks}))
