"""Signed bundles: `ssh-keygen -Y` (SSHSIG) over the manifest, which lists every other file with its SHA-256.

A board that requires signatures has a file of allowed signers, in the format of ssh-keygen's: named by the caller, by
the environment variable `EDGELSTM_ALLOWED_SIGNERS`, or at `/etc/edgelstm/allowed_signers`. Where there is one, nothing
else is opened: no bundle without a good signature by one of them, and no single file, which carries none. A file called
`revoked_keys` beside it, a key revocation list of ssh-keygen's or public keys one a line, takes back what it allows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import BundleError, InputError

if TYPE_CHECKING:
    import argparse
    from subprocess import CompletedProcess

NAMESPACE = "edgelstm-bundle"
SIGNATURE = "manifest.json.sig"
MAX_SIGNATURE_BYTES = 64 * 2**10
REVOKED = "revoked_keys"
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
    """Who signed a manifest, if that is an allowed signer: the first whose line fits in every respect.

    Raises:
        BundleError: it is not signed, by nobody who is allowed, with a key that was revoked, or was changed since.
    """
    import tempfile

    if signature is None:
        raise BundleError(f"{source}: is not signed, and {signers} requires it; sign it with `edgelstm sign`")
    revoked = _revoked(signers)
    with tempfile.TemporaryDirectory(prefix="edgelstm-") as folder:
        signed, line_file = Path(folder, "sig"), Path(folder, "signers")
        signed.write_bytes(signature)

        def verified(who: str, *more: str) -> CompletedProcess[bytes]:
            arguments = ["-Y", "verify", "-f", str(line_file), "-I", who, "-n", NAMESPACE, "-s", str(signed), *more]
            return _ssh_keygen(arguments, manifest, source)

        problem = f"is signed by nobody whom {signers} allows"
        # One line at a time: ssh-keygen looks for principals in the first line alone that has the key, whatever that
        # line allows the key for.
        for line in _lines(signers, signature):
            line_file.write_bytes(line + b"\n")
            found = _ssh_keygen(["-Y", "find-principals", "-s", str(signed), "-f", str(line_file)], b"", source)
            names = found.stdout.decode(errors="replace").splitlines() if found.returncode == 0 else []
            if not names:
                problem += _reason(found.stderr)
            for who in names:
                if who.startswith("!"):
                    continue  # A pattern of those whom the line does not mean.
                done = verified(who, *revoked)
                if done.returncode == 0:
                    return who
                if revoked and verified(who).returncode == 0:
                    problem = f"is signed by {who} with a key that {revoked[-1]} revokes{_reason(done.stderr)}"
                else:
                    problem = (
                        f"its signature does not fit: the bundle was changed after {who} signed it, or what was signed "
                        f"is something else, or {signers} allows that key for something else{_reason(done.stderr)}"
                    )
    raise BundleError(f"{source}: {problem}")


def _revoked(signers: Path) -> list[str]:
    """What has ssh-keygen heed the revoked keys, where there are some."""
    path = signers.with_name(REVOKED)
    if not os.path.lexists(path):
        return []
    if not path.is_file():
        raise InputError(f"{path}: no file of revoked keys is there")
    return ["-r", str(path)]


def _lines(signers: Path, signature: bytes) -> Iterator[bytes]:
    """The lines of the signers' file that can be about the key of a signature: those with it, and authorities'."""
    try:
        lines = signers.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"{signers}: cannot be read ({error.strerror})") from error
    key = _key(signature)
    for line in lines:
        stripped = line.strip()
        if stripped and not stripped.startswith(b"#") and (key in stripped or b"cert-authority" in stripped.lower()):
            yield stripped


def _key(signature: bytes) -> bytes:
    """The public key in a signature as files of signers have it; SSHSIG: the magic, a version, the key, …."""
    import base64
    import binascii

    lines = signature.split(b"\n")
    try:
        blob = base64.b64decode(b"".join(line.strip() for line in lines if line and not line.startswith(b"-----")))
    except (binascii.Error, ValueError):
        return b"no key"
    size = int.from_bytes(blob[10:14], "big")
    return base64.b64encode(blob[14 : 14 + size]) or b"no key"


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
