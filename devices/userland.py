"""Userlands of other processors on a build machine: Debian's packages unpacked, run by QEMU's user emulation.

Raspberry Pi OS 12 and 13 are Debian bookworm and trixie, so these stand in for boards. Nothing is installed or
configured on the build machine, and no rights are needed: `mmdebstrap` unpacks packages without running their scripts,
and QEMU looks for every absolute path in the userland first.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parents[1] / ".userlands"
# Python with Debian's NumPy and pip, the headers that extension modules are compiled with, and what wheels link to.
PYTHON = ("libgomp1", "libpython3-dev", "libstdc++6", "python3", "python3-numpy", "python3-pip")


@dataclass(frozen=True)
class Architecture:
    """A kind of processor, by its name in Debian.

    Attributes:
        triplet: of its compiler, and of the folder of its libraries.
        machine: what Python's platform tags call it.
        emulator: QEMU's program for it; empty where this machine's processor runs it.
        cpuinfo: what a Raspberry Pi 4 of this architecture says of each core.
    """

    triplet: str
    machine: str
    emulator: str = ""
    cpuinfo: str = ""


_CORTEX_A72 = "CPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n"
_ARM_32 = "Features\t: half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm crc32\n"
ARCHITECTURES = {
    "amd64": Architecture("x86_64-linux-gnu", "x86_64"),
    "arm64": Architecture(
        "aarch64-linux-gnu",
        "aarch64",
        "qemu-aarch64-static",
        "Features\t: fp asimd evtstrm crc32 cpuid\n" + _CORTEX_A72,
    ),
    "armhf": Architecture("arm-linux-gnueabihf", "armv7l", "qemu-arm-static", _ARM_32 + _CORTEX_A72),
    # ARMv5 with floats passed in integer registers: what runs on an ARMv6 processor without a rebuilt Debian.
    "armel": Architecture("arm-linux-gnueabi", "armv6l", "qemu-arm-static", _ARM_32 + _CORTEX_A72),
}


@dataclass(frozen=True)
class Userland:
    """An unpacked root file system.

    Attributes:
        root: its folder.
        architecture: by its name in Debian.
    """

    root: Path
    architecture: str

    @property
    def libraries(self) -> Path:
        """The folder of its shared libraries."""
        return self.root / "usr" / "lib" / ARCHITECTURES[self.architecture].triplet

    @property
    def python(self) -> Path:
        """Its Python."""
        return next(path for path in (self.root / "usr" / "bin").glob("python3.*") if path.suffix[1:].isdigit())

    def command(self, program: str | Path, *arguments: str | Path, cpu: str = "max") -> list[str]:
        """A command line that runs one of its programs here.

        Args:
            program: its path on this machine.
            arguments: for it. Paths of this machine are good where the userland has nothing of that name.
            cpu: the emulated processor, as QEMU calls it.
        """
        architecture = ARCHITECTURES[self.architecture]
        if architecture.emulator:
            prefix = [architecture.emulator, "-cpu", cpu, "-L", self.root]
        else:
            folders = [self.root / "lib" / architecture.triplet, self.libraries]
            loader = self.root / "lib64" / "ld-linux-x86-64.so.2"
            prefix = [loader, "--library-path", ":".join(map(str, folders))]
        return [str(part) for part in (*prefix, program, *arguments)]

    def environment(self, *path: Path) -> dict[str, str]:
        """What its Python needs in the environment: nothing of this machine's, and packages from these folders.

        Bytecode is kept under the userland: Python would write it beside the modules, and where a folder of that name
        is not in the userland, QEMU takes this machine's.
        """
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": ":".join(map(str, path)),
            "PYTHONNOUSERSITE": "1",
            "PYTHONPYCACHEPREFIX": str(self.root / "var" / "cache" / "python"),
        }


def userland(
    architecture: str,
    packages: Sequence[str] = PYTHON,
    suite: str = "bookworm",
    folder: Path = FOLDER,
    installed: bool = False,
) -> Userland:
    """A root file system with these packages and what they depend on, made once and kept in `folder`.

    Args:
        architecture: of `ARCHITECTURES`.
        packages: Debian's, unpacked without their scripts being run.
        suite: Debian's release.
        folder: where userlands are kept.
        installed: whether their scripts run, so that it can be booted; takes root and this machine's processor.

    Raises:
        RuntimeError: it could not be made; the message has what mmdebstrap said.
    """
    # base-files holds the links /lib → /usr/lib, which a package's files need in trixie.
    wanted = ",".join(sorted({"base-files", *packages}))

    def make(root: Path) -> None:
        # Debian's main suite alone, from the mirror that this machine uses. Ownership would need rights: a tar has it.
        mirror = _mirror()
        sources = [f"deb {mirror} {suite} main"] if mirror else []
        variant = "minbase" if installed else "extract"
        options = ["--quiet", f"--architectures={architecture}", f"--variant={variant}", f"--include={wanted}"]
        archive = root / "userland.tar"
        _run("mmdebstrap", *options, suite, str(archive), *sources)
        owner = "--same-owner" if installed else "--no-same-owner"
        _run("tar", "-x", "-f", str(archive), "-C", str(root), "--exclude=./dev", owner)
        archive.unlink()
        if not installed:
            _finish(root, ARCHITECTURES[architecture])

    name = f"{suite}-{architecture}{'-installed' if installed else ''}"
    return Userland(_kept(folder, name, wanted, make), architecture)


def site(architecture: str, python: str, requirements: Sequence[str], folder: Path = FOLDER) -> Path:
    """A folder for `PYTHONPATH` with packages for another processor, fetched once as wheels, without dependencies.

    Args:
        architecture: of `ARCHITECTURES`.
        python: its version there, such as 3.11.
        requirements: as pip takes them.
        folder: where it is kept.

    Raises:
        RuntimeError: pip found none; the message has what it said.
    """
    machine = ARCHITECTURES[architecture].machine
    # pip knows no other processor's list of tags: every glibc up to Debian 12's.
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in range(36, 16, -1)]

    def make(target: Path) -> None:
        options = ["--quiet", "--no-deps", "--only-binary=:all:", f"--python-version={python}", f"--target={target}"]
        _run(sys.executable, "-m", "pip", "install", *options, *platforms, *requirements)

    return _kept(folder, f"site-{python}-{architecture}", ",".join(sorted(requirements)), make)


def _finish(root: Path, architecture: Architecture) -> None:
    """What the packages' scripts and a running kernel would have added."""
    libraries = root / "usr" / "lib" / architecture.triplet
    for alternative in ("blas/libblas.so.3", "lapack/liblapack.so.3"):
        if (libraries / alternative).exists():
            (libraries / Path(alternative).name).symlink_to(alternative)
    if not architecture.emulator:
        return
    # LiteRT and onnxruntime read these at their start, and crash on those of a build machine with other processors.
    (root / "proc").mkdir(exist_ok=True)
    cores = range(4)
    model = "Revision\t: c03111\nModel\t\t: Raspberry Pi 4 Model B Rev 1.1\n"
    each = "".join(f"processor\t: {core}\nBogoMIPS\t: 108.00\n{architecture.cpuinfo}\n" for core in cores)
    (root / "proc" / "cpuinfo").write_text(each + model)
    cpu = root / "sys" / "devices" / "system" / "cpu"
    files = dict.fromkeys(("online", "possible", "present"), "0-3") | {"kernel_max": "3", "offline": ""}
    for core in cores:
        files |= {
            f"cpu{core}/topology/core_id": str(core),
            f"cpu{core}/topology/physical_package_id": "0",
            f"cpu{core}/topology/thread_siblings_list": str(core),
            f"cpu{core}/topology/core_siblings_list": "0-3",
            f"cpu{core}/cpufreq/cpuinfo_max_freq": "1500000",
            f"cpu{core}/cpufreq/cpuinfo_min_freq": "600000",
        }
    for name, content in files.items():
        (cpu / name).parent.mkdir(parents=True, exist_ok=True)
        (cpu / name).write_text(f"{content}\n")


def _mirror() -> str:
    """Where this machine gets Debian's packages; empty where it is none of Debian's."""
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Origin: Debian"]
    found = subprocess.run([*command, "Component: main", "Label: Debian"], capture_output=True, text=True).stdout
    return found.split()[0] if found else ""


def _run(*command: str) -> None:
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr[-4000:]}")


def _kept(folder: Path, name: str, of: str, make: Callable[[Path], None]) -> Path:
    """The folder that was made of this before, or one that is made now: whole or not at all, by one process."""
    kept = folder / f"{name}-{hashlib.sha256(of.encode()).hexdigest()[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / f"{kept.name}.lock"):
        if not kept.exists():
            temporary = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=folder))
            try:
                make(temporary)
                temporary.chmod(0o755)
                temporary.rename(kept)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
    return kept


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Wait until no other process holds the lock of this file, and hold it."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
