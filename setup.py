"""The native engine as an extension module; everything else is in pyproject.toml.

The module is optional: without a compiler the package installs all the same, and says so when it is first used.
"""

import os
from glob import glob

from setuptools import Extension, setup

try:
    from numpy import get_include
except ImportError:  # A build without isolation, on a machine without NumPy's headers.
    extensions = []
else:
    sources = [path for path in sorted(glob("runtime/engine/*.c")) if not path.endswith(("bench.c", "example.c"))]
    extensions = [
        Extension(
            "edgelstm.runtime._native",
            ["runtime/native_module.c", "runtime/native_windows.c", *sources],
            include_dirs=[get_include()],
            depends=["runtime/native_module.h", *sorted(glob("runtime/engine/*.h"))],
            libraries=[] if os.name == "nt" else ["m"],
            define_macros=[("Py_LIMITED_API", "0x030B0000")],
            extra_compile_args=["-std=c99", "-O3", "-ffp-contract=off", "-fvisibility=hidden", "-g0"],
            py_limited_api=True,
            optional=True,
        )
    ]

if __name__ == "__main__":  # devices/wheels.py reads what is above.
    setup(ext_modules=extensions)
