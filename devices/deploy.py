"""Puts a verified model on a board: send, verify there, and only then switch over, by one symbolic link."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime import __version__
from ..runtime.bundle import Bundle
from ..runtime.errors import BundleError, InputError
from ..runtime.manifest import Manifest
from .agent.messages import (
    Activate,
    Activated,
    Deployed,
    Discard,
    Facts,
    Hold,
    Place,
    Prune,
    Receive,
    Verified,
    Verify,
    plain,
)
from .board import Board, BoardError, pack
from .unit import devices_in, start_script, unfit, unit, with_credentials

# Which package each backend needs on the board besides NumPy, and which one an option of the service.
BACKENDS = {"tflite": ("ai-edge-litert", "tflite-runtime"), "onnx": ("onnxruntime",)}
OPTIONS = {"--mqtt": ("paho-mqtt",), "--baud": ("pyserial",)}
_OLDEST = {"paho-mqtt": "2"}  # Debian 12 has 1.6.
_MARGIN = 16 * 2**20  # Free space that a board keeps.
_SETTLE = 3  # Seconds for which a restarted service must stay up.


@dataclass(frozen=True)
class Deployment:
    """What to put on boards.

    Attributes:
        bundle: the bundle's file.
        wheels: a folder of wheels for the boards.
        arguments: of `edgelstm-run` for the service, such as `--mqtt …`; none for no service. `{state}` in them is
            the board's folder for what is kept.
        name: what the board calls it; by default the model's name.
        backend: of the runtime there.
        precision: of the artifact, or None for the most precise there is.
        system: whether it is the whole system's, in `/opt` and with a user of its own; root only.
        keep: versions that stay on the board.
        steps: that are measured there.
        allow_older: whether a signed bundle may be older than one that the board accepted.
    """

    bundle: Path
    wheels: Path
    arguments: tuple[str, ...] = ()
    name: str | None = None
    backend: str = "auto"
    precision: str | None = None
    system: bool = False
    keep: int = 3
    steps: int = 2000
    allow_older: bool = False

    @property
    def title(self) -> str:
        """What the board calls it."""
        return self.name or Bundle.open(self.bundle).manifest.name


def unit_name(name: str) -> str:
    """A model's unit."""
    return f"edgelstm-{name}.service"


def place(name: str, system: bool) -> str:
    """A model's folder on a board.

    Raises:
        InputError: the name cannot be one.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}", name):
        raise InputError(f"{name!r} cannot be a folder's and a service's name; pass --name")
    return f"/opt/edgelstm/{name}" if system else f"~/.local/share/edgelstm/{name}"


def located(name: str, base: str, system: bool) -> Place:
    """Where a model is on a board, as every request says."""
    state = f"/var/lib/edgelstm/{name}" if system else f"{base}/state"
    return Place(base=base, system=system, unit=unit_name(name), state=state, settle=_SETTLE)


@dataclass(frozen=True)
class Outcome:
    """What came of a deployment.

    Attributes:
        base: the model's folder on the board.
        activated: the version.
        verified: its parity and step time there.
        removed: versions that were too many.
    """

    base: str
    activated: Activated
    verified: Verified
    removed: tuple[str, ...]


def deploy(deployment: Deployment, board: Board, progress: Callable[[str], None]) -> Outcome:
    """Deploy to one board.

    Args:
        deployment: what.
        board: where.
        progress: called with what is being done.

    Raises:
        EdgeLSTMError: something failed; whatever ran on the board still does.
    """
    name = deployment.title
    progress("looks what the board is")
    facts = board.probe(place(name, deployment.system))
    if deployment.system and facts.uid != 0:
        raise BoardError(
            f"{board.host}: a service of the whole system takes root: deploy to root@…, or without --system"
        )
    wheels = choose_wheels(deployment, facts, board.host)
    version = _version(deployment.bundle)
    told = plain(located(name, facts.base, deployment.system))
    service = bool(deployment.arguments)
    if service and not facts.systemctl:
        raise BoardError(f"{board.host}: has no systemd to run a service; deploy without arguments behind --")
    with tempfile.TemporaryDirectory(prefix="edgelstm-") as folder:
        archive = Path(folder) / "version.tar"
        content = _content(deployment, wheels)
        pack(content, archive)
        size = archive.stat().st_size
        if size + _MARGIN > facts.free:
            raise BoardError(
                f"{board.host}: {size + _MARGIN:,} bytes are needed at {facts.base}, {facts.free:,} are free"
            )
        texts = _texts(deployment, facts, wheels, version)
        sums = {n: hashlib.sha256(_bytes(c)).hexdigest() for n, c in content.items()}
        # From here on nobody else deploys to this board, until the connection ends.
        board.call(Hold(**told))
        progress(f"sends {size / 1e6:.1f} MB")
        board.call(Receive(**told, id=version, files=sums, texts=texts), archive)
    try:
        progress("verifies on the board")
        chosen = {"backend": deployment.backend, "precision": deployment.precision, "steps": deployment.steps}
        verified = board.call(Verify(**told, id=version, allow_older=deployment.allow_older, **chosen))
        progress("switches over")
        activated = board.call(Activate(**told, id=version, allow_older=deployment.allow_older))
    except BoardError:
        _discard(board, Discard(**told, id=version))
        raise
    removed = board.call(Prune(**told, keep=deployment.keep)).removed
    return Outcome(facts.base, activated, verified, removed)


def choose_wheels(deployment: Deployment, facts: Facts, host: str) -> list[Path]:
    """The wheels that a board needs: EdgeLSTM's, and those of the packages that it lacks.

    Raises:
        BoardError: there is none that fits.
    """
    given = {argument.partition("=")[0] for argument in deployment.arguments}
    library = BACKENDS.get(deployment.backend, ())
    if deployment.backend == "auto" and deployment.bundle.is_file():
        library = _libraries(Bundle.open(deployment.bundle).manifest)
    needed = [("numpy",), library]
    needed += [names for option, names in OPTIONS.items() if option in given]
    missing = [names for names in needed if names and not any(_is_there(name, facts) for name in names)]
    return [_fitting(deployment.wheels, names, facts, host) for names in (("edgelstm",), *missing)]


def _libraries(manifest: Manifest) -> tuple[str, ...]:
    """The packages of which one must be there to run a bundle: none where it has what the engine and NumPy run."""
    formats = {artifact.format for artifact in manifest.artifacts if artifact.graph != "sequence"}
    # The last one is that of 32-bit boards.
    names = ("ai-edge-litert", "onnxruntime", "tflite-runtime")
    return () if "native" in formats else tuple(n for n in names if any(n in BACKENDS[f] for f in formats))


def _is_there(name: str, facts: Facts) -> bool:
    from packaging.version import InvalidVersion, Version

    there = facts.packages[name]
    try:
        return there is not None and Version(there) >= Version(_OLDEST.get(name, "0"))
    except InvalidVersion:
        return True  # Of a package that does not say; `verify` on the board will.


def _fitting(folder: Path, names: Sequence[str], facts: Facts, host: str) -> Path:
    from packaging.tags import compatible_tags, cpython_tags
    from packaging.utils import InvalidWheelFilename, parse_wheel_filename

    minor = int(facts.libc[1].split(".")[1]) if facts.libc[0] == "glibc" else 0
    platforms = [f"manylinux_2_{n}_{facts.platform}" for n in range(minor, 16, -1)]
    platforms += [f"manylinux2014_{facts.platform}", f"linux_{facts.platform}"]
    if facts.platform == "armv7l":
        platforms.append("linux_armv6l")  # Which runs there too.
    python = (facts.python[0], facts.python[1])
    ranked = [
        *cpython_tags(python, platforms=platforms),
        *compatible_tags(python, f"cp{python[0]}{python[1]}", platforms),
    ]
    ranks = {tag: rank for rank, tag in reversed(list(enumerate(ranked)))}
    found: list[tuple[int, Any, Path]] = []
    seen: list[str] = []
    for path in sorted(folder.glob("*.whl")):
        try:
            name, version, _, tags = parse_wheel_filename(path.name)
        except InvalidWheelFilename:
            continue  # A browser's second download, say.
        if name not in names:
            continue
        seen.append(path.name)
        if fits := [ranks[tag] for tag in tags if tag in ranks]:
            found.append((-min(fits), version, path))
    if found:
        return max(found, key=lambda item: (item[1], item[0]))[2]
    want = f"Python {facts.python[0]}.{facts.python[1]} on {facts.platform} with {' '.join(facts.libc)}"
    have = f"it has {', '.join(seen)}" if seen else "it has none of that name"
    remedy = _remedy(names, facts, host, folder)
    raise BoardError(f"{host}: no wheel of {' or '.join(names)} in {folder} fits {want}; {have}. {remedy}")


def _remedy(names: Sequence[str], facts: Facts, host: str, folder: Path) -> str:
    if names[0] == "edgelstm":
        return "`make wheels` in EdgeLSTM's sources builds those for Linux boards; name their folder with --wheels"
    if names[0] == "numpy":
        return f"Install it on {host} (sudo apt install python3-numpy), or put its wheel into that folder"
    name = names[-1] if facts.bits == 32 else names[0]
    options = f"--no-deps --only-binary=:all: --python-version {facts.python[0]}.{facts.python[1]}"
    platforms = " ".join(f"--platform manylinux_2_{minor}_{facts.platform}" for minor in (17, 27, 28, 34))
    return f"Fetch it: pip download {name} {options} {platforms} -d {folder}"


def _version(bundle: Path) -> str:
    """Says when and what, for people; what it ends with makes it the only one of its name."""
    content = bundle.read_bytes() if bundle.is_file() else (bundle / "manifest.json").read_bytes()
    when = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return f"{when}-{hashlib.sha256(content).hexdigest()[:8]}-{os.urandom(4).hex()}"


def _content(deployment: Deployment, wheels: Sequence[Path]) -> dict[str, bytes | Path]:
    if not deployment.bundle.is_file():
        raise BundleError(f"{deployment.bundle}: deploy takes a .edge file; export the model to one")
    content: dict[str, bytes | Path] = {"bundle.edge": deployment.bundle}
    for wheel in wheels:
        try:
            with zipfile.ZipFile(wheel) as archive:
                files = {info.filename: archive.read(info) for info in archive.infolist() if not info.is_dir()}
        except zipfile.BadZipFile as error:
            raise InputError(f"{wheel}: not a whole wheel ({error})") from error
        content |= {f"site/{name}": data for name, data in files.items()}
    return content


def _texts(deployment: Deployment, facts: Facts, wheels: Sequence[Path], version: str) -> dict[str, str]:
    arguments, name = list(deployment.arguments), deployment.title
    secrets: dict[str, str] = {}
    if deployment.system:
        arguments, secrets = with_credentials(arguments)
        if relative := [path for path in secrets.values() if not path.startswith("/")]:
            raise InputError(f"{relative[0]}: a system's service takes secrets from absolute paths on the board")
    devices = devices_in(arguments)
    if bad := [path for path in (*devices, *secrets.values(), facts.base) if unfit(path)]:
        raise InputError(f"{bad[0]!r}: a service cannot be given a path with such characters; rename it on the board")
    known = Deployed(
        name=name,
        bundle=deployment.bundle.name,
        edgelstm=__version__,
        backend=deployment.backend,
        precision=deployment.precision,
        wheels=tuple(wheel.name for wheel in wheels),
        arguments=tuple(arguments),
        deployed=time.time(),
    )
    made = unit(name, facts.base, deployment.system, devices=devices, secrets=secrets, version=version)
    return {
        "deployment.json": json.dumps(plain(known), indent=1) + "\n",
        "start": start_script(deployment.backend, deployment.precision, arguments, bool(arguments)),
        unit_name(name): made,
    }


def _bytes(content: bytes | Path) -> bytes:
    return content.read_bytes() if isinstance(content, Path) else content


def _discard(board: Board, request: Discard) -> None:
    try:
        board.call(request)
    except BoardError:
        return  # What it was that failed is worth more than this; the next deployment's pruning removes it.
