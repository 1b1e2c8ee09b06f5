"""Where a broker is, and how to log in there."""

from __future__ import annotations

import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..errors import InputError

if TYPE_CHECKING:
    import ssl

_PORTS = {"mqtt": 1883, "mqtts": 8883}


@dataclass(frozen=True)
class Broker:
    """Where a broker is, and how to log in there.

    Attributes:
        host: name or address.
        port: TCP port.
        tls: whether the connection is encrypted, and the broker's certificate checked.
        ca_file: certificates that may have signed the broker's; None takes the system's.
        certificate: the client's own, for brokers that ask for one.
        key: of that certificate; None where it is in the same file.
        user: name, or None.
        password: or None.
    """

    host: str
    port: int
    tls: bool
    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    user: str | None = None
    password: str | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'mqtts' if self.tls else 'mqtt'}://{host}:{self.port}"

    def tls_context(self) -> ssl.SSLContext:
        """How to encrypt.

        Raises:
            InputError: a certificate is unusable.
        """
        import ssl

        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError.
            raise InputError(f"the certificates for {self} cannot be used ({error})") from error
        return context


def broker(
    url: str, ca_file: Path | None, certificate: Path | None, key: Path | None, credentials: Path | None
) -> Broker:
    """A broker from what the command line says.

    Args:
        url: `mqtt://HOST[:PORT]` or `mqtts://HOST[:PORT]`.
        ca_file: see `Broker`.
        certificate: see `Broker`.
        key: see `Broker`.
        credentials: a file of two lines: the user, the password.

    Raises:
        InputError: something is wrong with them.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InputError(f"--mqtt {url}: not a broker's address ({error})") from error
    if parts.username is not None or parts.password is not None:
        raise InputError("--mqtt: a password on the command line can be read by everyone here; use --credentials FILE")
    if parts.scheme not in _PORTS or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise InputError(f"--mqtt {url}: a broker's address is mqtt://HOST[:PORT], or mqtts:// with TLS")
    tls = parts.scheme == "mqtts"
    if not tls and (ca_file or certificate or key):
        raise InputError(f"--mqtt {url}: certificates are for mqtts://; mqtt:// is not encrypted")
    if key and not certificate:
        raise InputError("--client-key goes with --client-cert")
    for path in (ca_file, certificate, key):
        if path is not None and not path.is_file():
            raise InputError(f"{path}: no such file")
    user, password = (None, None) if credentials is None else _read(credentials)
    return Broker(parts.hostname, port or _PORTS[parts.scheme], tls, ca_file, certificate, key, user, password)


def _read(path: Path) -> tuple[str, str | None]:
    try:
        open_to_all = path.stat().st_mode & stat.S_IROTH
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the credentials cannot be read ({error})") from error
    if open_to_all:
        raise InputError(f"{path}: everyone here can read the credentials; chmod o= {path}")
    if not lines or not lines[0] or len(lines) > 2:
        raise InputError(f"{path}: credentials are two lines, the user and the password")
    return lines[0], lines[1] if len(lines) > 1 else None
