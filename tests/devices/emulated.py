"""A stand-in board of another processor: a Debian userland with an sshd of its own, all of it emulated.

Nothing here takes rights or changes the build machine: the userland lies below an overlay, in a user namespace with a
binfmt_misc of its own (Linux 6.7 and later), in which QEMU runs whatever is started.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgelstm.devices.userland import ARCHITECTURES, userland

from tests.devices.stand_in import StandIn, free_port, make_keys, on_port
from tests.engine.toolchain import find, require

PACKAGES = (
    "coreutils",
    "dash",
    "libgomp1",
    "libstdc++6",
    "openssh-client",
    "openssh-server",
    "python3",
    "python3-numpy",
)
# How the kernel knows a program of the processor: the first 20 bytes of its file.
_MAGIC = {
    "arm64": r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00",
    "armhf": r"\x7fELF\x01\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x28\x00",
}
_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
_START = """set -e
echo ready
read -r go # Until the parent has mapped the users, which takes its rights.
exec </dev/null >&2
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
printf '%s' ':emulated:M::{magic}:{mask}:{emulator}:F' > /proc/sys/fs/binfmt_misc/register
mount -t overlay overlay -o 'lowerdir={root},upperdir={folder}/upper,workdir={folder}/work' '{folder}/merged'
cd '{folder}/merged'
mount {home} root
mount --rbind /dev dev
mount -t proc proc proc
mount --bind '{root}/proc/cpuinfo' proc/cpuinfo
exec chroot . /usr/sbin/sshd -D -e -f /etc/ssh/sshd_config
"""


@contextmanager
def emulated_board(
    folder: Path, architecture: str, cpu: str, suite: str = "bookworm", name: str = "board", disk_mb: int | None = None
) -> Generator[StandIn]:
    """A board behind an sshd, with an empty home and a stand-in for systemd.

    Args:
        folder: for what it writes.
        architecture: by Debian's name.
        cpu: the processor, as QEMU calls it.
        suite: Debian's release.
        name: of the host.
        disk_mb: size of its home, which is not to be seen from here then.
    """
    emulator = ARCHITECTURES[architecture].emulator
    require("mmdebstrap", "unshare", "ssh", "ssh-keygen", emulator)
    there = userland(architecture, PACKAGES, suite)
    for part in ("home", "upper", "work", "merged"):
        (folder / part).mkdir(parents=True)
    make_keys(folder)
    port = free_port()
    _configure(folder, port, cpu)
    home = f"--bind '{folder}/home'" if disk_mb is None else f"-t tmpfs -o size={disk_mb}m tmpfs"
    places = {
        "magic": _MAGIC[architecture],
        "mask": _MASK,
        "emulator": find(emulator),
        "root": there.root,
        "home": home,
    }
    process = _started({**places, "folder": folder}, folder / "log")
    try:
        with on_port(folder, port, folder / "home", name, lingers=True) as board:
            yield board
    finally:
        # The first process of the namespace, and with it all others there; unshare ends when that does.
        for first in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            os.kill(int(first), signal.SIGKILL)
        process.wait()


def _configure(folder: Path, port: int, cpu: str) -> None:
    """What the packages' scripts would have made, and the configuration of sshd."""
    upper = folder / "upper"
    for made in ("bin", "dev", "etc/ssh", "proc", "root", "run/sshd", "tmp", "usr/local/bin"):
        (upper / made).mkdir(parents=True)
    (upper / "bin/sh").symlink_to("dash")
    (upper / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nsshd:x:100:65534::/run/sshd:/bin/false\nnobody:x:65534:65534::/:/bin/false\n"
    )
    (upper / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    for key in ("host_key", "authorized_keys"):
        shutil.copy(folder / key, upper / "etc/ssh" / key)
    (upper / "etc/ssh/sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey /etc/ssh/host_key\nPidFile none\nUsePAM no\nStrictModes no\n"
        "AuthorizedKeysFile /etc/ssh/authorized_keys\nPasswordAuthentication no\nPermitRootLogin yes\n"
        f"SetEnv QEMU_CPU={cpu} PATH=/usr/local/bin:/usr/bin:/bin\n"
    )
    loginctl = upper / "usr/local/bin/loginctl"
    loginctl.write_text("#!/bin/sh\nmkdir -p /var/lib/systemd/linger\n: > /var/lib/systemd/linger/root\n")
    loginctl.chmod(0o755)
    systemctl = upper / "usr/local/bin/systemctl"
    shutil.copy(Path(__file__).with_name("systemctl.py"), systemctl)
    systemctl.chmod(0o755)


def _started(places: Mapping[str, Any], log: Path) -> subprocess.Popen[bytes]:
    """The script, with its places filled in, as root of namespaces of its own, with all users mapped."""
    command = ["unshare", "--user", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    command += ["sh", "-c", _START.format(**places)]
    with log.open("wb") as said:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n", log.read_text()
    for users in ("uid_map", "gid_map"):
        Path(f"/proc/{process.pid}/{users}").write_text("0 0 65536")
    process.stdin.write(b"go\n")
    process.stdin.close()
    process.stdout.close()
    return process
