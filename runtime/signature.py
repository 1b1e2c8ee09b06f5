"""Signed bundles: `ssh-keygen -Y` (SSHSIG) over the manifest, which lists every other file with its SHA-256.

A board that requires signatures has a file of allowed signers, in the format of ssh-keygen's: named by the caller, by
the environment variable `EDGELSTM_ALLOWED_SIGNERS`, or at `/etc/edgelstm/allowed_signers`. Where there is one, nothing
else is opened: no bundle without a good signature by one of them, and no single file, which carries none.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import BundleError, InputError

if TYPE_CHECKING:
    import argparse
    from subprocess import CompletedProcess

NAMESPACE = "edgelstm-bundle"
SIGNATURE = "manifest.json.sig"
MAX_SIGNATURE_BYTES = 64 * 2**10
SYSTEM_WIDE = Path("/etc/edgelstm/allowed_signers")
VARIABLE = "EDGELSTM_ALLOWED_SIGNERS"


def add_signers_argument(parser: argparse.ArgumentParser) -> None:
    """Declare whose bundles are trusted."""
    parser.add_argument(
        "--allowed-signers",
        type=Path,
        metavar="FILE",
        help=f"open only what one of these signed, in ssh-keygen's format (default: {SYSTEM_WIDE}, if it is there)",
    )


def required_signers(given: str | os.PathLike[str] | None = None) -> Path | None:
    """The file of allowed signers that holds here, or None where signatures are not required.

    Raises:
        InputError: it is not there, or cannot be seen.
    """
    named = given if given is not None else os.environ.get(VARIABLE) or None
    if named is None:
        try:
            os.lstat(SYSTEM_WIDE)  # Also a link that leads nowhere yet: who wanted signatures is not to go without.
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InputError(f"{SYSTEM_WIDE}: cannot be looked for ({error.strerror})") from error
        named = SYSTEM_WIDE
    if not Path(named).is_file():
        raise InputError(f"{named}: no file of allowed signers is there")
    return Path(named)


def refuse_single_file(path: Path, given: str | os.PathLike[str] | None = None) -> None:
    """Raise `BundleError` where signatures are required, which a single file cannot have."""
    if (signers := required_signers(given)) is not None:
        raise BundleError(f"{path}: a single file is never signed, and {signers} requires it; load the bundle")


def check_signature(manifest: bytes, signature: bytes | None, signers: Path, source: str) -> str:
    """Who signed a manifest, if that is an allowed signer.

    Raises:
        BundleError: it is not signed, by nobody who is allowed, or was changed since.
    """
    import tempfile

    if signature is None:
        raise BundleError(f"{source}: is not signed, and {signers} requires it; sign it with `edgelstm sign`")
    with tempfile.NamedTemporaryFile(suffix=".sig") as file:
        file.write(signature)
        file.flush()
        found = _ssh_keygen(["-Y", "find-principals", "-s", file.name, "-f", str(signers)], b"", source)
        who = found.stdout.decode(errors="replace").splitlines()
        if found.returncode != 0 or not who:
            raise BundleError(f"{source}: is signed by nobody whom {signers} allows{_reason(found.stderr)}")
        arguments = ["-Y", "verify", "-f", str(signers), "-I", who[0], "-n", NAMESPACE, "-s", file.name]
        verified = _ssh_keygen(arguments, manifest, source)
        if verified.returncode != 0:
            raise BundleError(
                f"{source}: its signature does not fit: the bundle was changed after {who[0]} signed it, or what was "
                f"signed is something else{_reason(verified.stderr)}"
            )
    return who[0]


def sign_manifest(manifest: bytes, key: Path) -> bytes:
    """A signature of a manifest. ssh-keygen asks for the key's passphrase, if it has one, or asks the agent.

    Args:
        manifest: the bytes of `manifest.json`.
        key: the private key's file, or a public one's whose private key is in the agent.

    Raises:
        InputError: the key cannot be used.
    """
    import subprocess
    import tempfile

    if not key.is_file():
        raise InputError(f"{key}: no key is there; make one with `ssh-keygen -t ed25519`")
    with tempfile.TemporaryDirectory() as folder:
        signed = Path(folder) / "manifest.json"
        signed.write_bytes(manifest)
        command = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(key), "-n", NAMESPACE, str(signed)]
        try:
            done = subprocess.run(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        except FileNotFoundError as error:
            raise InputError("ssh-keygen is not installed; it is part of OpenSSH's client (openssh-client)") from error
        if done.returncode != 0:
            raise InputError(f"{key}: cannot sign{_reason(done.stderr)}")
        return (Path(folder) / "manifest.json.sig").read_bytes()


def _ssh_keygen(arguments: list[str], stdin: bytes, source: str) -> CompletedProcess[bytes]:
    import subprocess

    try:
        return subprocess.run(["ssh-keygen", *arguments], input=stdin, capture_output=True, timeout=60)
    except FileNotFoundError as error:
        raise BundleError(
            f"{source}: its signature cannot be checked: ssh-keygen is not installed (openssh-client)"
        ) from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BundleError(f"{source}: its signature cannot be checked ({error})") from error


def _reason(stderr: bytes) -> str:
    text = " ".join(stderr.decode(errors="replace").split())
    return f" ({text})" if text else ""
