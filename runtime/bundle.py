"""The bundle: one `.edge` file (an uncompressed, reproducible zip) or a folder of the same content.

It holds `manifest.json`, the artifacts, the network itself and the golden vectors. Every file is listed in the
manifest with its size and SHA-256, and nothing is used before both are checked. `archive.py` reads and writes them.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .archive import members, read_member, replacing, write_folder, zipped
from .errors import BundleError
from .parity import Parity
from .signature import MAX_SIGNATURE_BYTES, SIGNATURE, check_signature, required_signers

VERSION = 1
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 16 * 2**20


@dataclass(frozen=True)
class File:
    """A file of the bundle: its name inside, its size in bytes and its SHA-256 in hexadecimal."""

    file: str
    size: int
    sha256: str

    @classmethod
    def of(cls, name: str, content: bytes) -> File:
        """Describe `content`."""
        import hashlib

        return cls(name, len(content), hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class Artifact(File):
    """An exported file: a format × a graph × a precision, its parity with Keras at export, and the least allowed."""

    format: str
    graph: str
    precision: str
    parity: Parity
    min_snr_db: float

    @property
    def label(self) -> str:
        """Such as `tflite float32`, or `tflite float32 (sequence)`."""
        return f"{self.format} {self.precision}" + ("" if self.graph == "step" else f" ({self.graph})")


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself.

    Attributes:
        name: what the model is called.
        features: names of the inputs, in order.
        outputs: names of the outputs, in order.
        streamable: whether it can be stepped; if not, it holds sequence graphs only.
        window: number of timesteps that the model was trained on at a time, if known.
        layers: one line of description per layer, for people.
        parameters: number of weights.
        artifacts: the exported files.
        network: the network itself as a native float32 file, which needs no interpreter; None if not streamable.
        golden: an input sequence and Keras's outputs for it.
        training: what training recorded (task, target, horizon, sampling, labels), if anything.
        versions: the packages that made the bundle.
        carries_state: whether the state can be carried past the window; not where outputs grow without bound then.
    """

    name: str
    features: tuple[str, ...]
    outputs: tuple[str, ...]
    streamable: bool
    window: int | None
    layers: tuple[str, ...]
    parameters: int
    artifacts: tuple[Artifact, ...]
    network: File | None
    golden: File
    training: dict[str, Any] = field(default_factory=dict[str, Any])
    versions: dict[str, str] = field(default_factory=dict[str, str])
    carries_state: bool = True

    def to_bytes(self) -> bytes:
        """JSON, the same for the same manifest."""
        return (json.dumps({"version": VERSION, **asdict(self)}, indent=1) + "\n").encode()

    @classmethod
    def from_bytes(cls, content: bytes, source: str) -> Manifest:
        """Read a manifest.

        Raises:
            BundleError: it is damaged, incomplete or of a later version.
        """
        try:
            raw: dict[str, Any] = json.loads(content)
            version = raw.pop("version")
            if version > VERSION:
                raise BundleError(
                    f"{source}: bundle format {version} is newer than this EdgeLSTM reads ({VERSION}); update EdgeLSTM"
                )
            raw["artifacts"] = tuple(
                Artifact(parity=Parity(**artifact.pop("parity")), **artifact) for artifact in raw["artifacts"]
            )
            for key in ("features", "outputs", "layers"):
                raw[key] = tuple(str(text) for text in raw[key])
            raw["network"] = File(**raw["network"]) if raw["network"] else None
            raw["golden"] = File(**raw["golden"])
            manifest = cls(**raw)
            for entry in manifest.files:
                _check_entry(entry, source)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BundleError(f"{source}: {MANIFEST} is not a bundle's manifest ({error})") from error
        return manifest

    @property
    def files(self) -> tuple[File, ...]:
        """Every file of the bundle but the manifest."""
        written = {entry.file for entry in self.artifacts}
        network = [self.network] if self.network and self.network.file not in written else []
        return (*self.artifacts, *network, self.golden)


@dataclass(frozen=True)
class Golden:
    """Golden vectors: sequences of inputs, each from a reset, and Keras's outputs for them.

    Attributes:
        inputs: (T, features).
        outputs: (T, outputs); for a sequence graph that answers once per sequence, (sequences, outputs).
        starts: indices of the timesteps before which the state is reset; the first is 0.
    """

    inputs: npt.NDArray[np.float32]
    outputs: npt.NDArray[np.float32]
    starts: tuple[int, ...]

    def sequences(self) -> Iterator[npt.NDArray[np.float32]]:
        """The inputs of each sequence."""
        for start, stop in zip(self.starts, (*self.starts[1:], len(self.inputs)), strict=True):
            yield self.inputs[start:stop]

    def to_bytes(self) -> bytes:
        """A `.npz` file; the same vectors give the same bytes."""
        buffer = io.BytesIO()
        np.savez(buffer, inputs=self.inputs, outputs=self.outputs, starts=np.array(self.starts, np.int64))
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, source: str) -> Golden:
        """Read golden vectors.

        Raises:
            BundleError: the file is damaged.
        """
        from zipfile import BadZipFile

        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
                inputs = np.asarray(arrays["inputs"], np.float32)
                outputs = np.asarray(arrays["outputs"], np.float32)
                starts = tuple(int(s) for s in arrays["starts"])
            if inputs.ndim != 2 or outputs.ndim != 2 or starts[0] != 0:
                raise ValueError(f"unexpected shapes {inputs.shape}, {outputs.shape}")
            if list(starts) != sorted(set(starts)) or starts[-1] >= len(inputs):
                raise ValueError("unordered resets")
        except (KeyError, ValueError, TypeError, IndexError, OSError, EOFError, BadZipFile) as error:
            raise BundleError(f"{source}: not readable golden vectors ({error})") from error
        return cls(inputs, outputs, starts)


@dataclass(frozen=True)
class Bundle:
    """An opened bundle. Its files are read when asked for, and checked then.

    Attributes:
        path: the `.edge` file or the folder.
        manifest: what it says of itself.
        signer: who signed it, where signatures are required; else None.
    """

    path: Path
    manifest: Manifest
    signer: str | None = None

    @classmethod
    def open(cls, path: str | os.PathLike[str], allowed_signers: str | os.PathLike[str] | None = None) -> Bundle:
        """Open a `.edge` file or a folder.

        Args:
            path: where it is.
            allowed_signers: whose signature it must have, as a file in ssh-keygen's format; by default as the
                environment variable `EDGELSTM_ALLOWED_SIGNERS` or `/etc/edgelstm/allowed_signers` has it.

        Raises:
            BundleError: there is no bundle at `path`, or it is damaged, forged, unsigned where it must be signed, or
                of a later version.
        """
        where = Path(path)
        if not where.exists():
            raise BundleError(f"{where}: no such file or folder")
        signers = required_signers(allowed_signers)
        content = read_member(where, MANIFEST, MAX_MANIFEST_BYTES)
        signer = None
        if signers is not None:
            signer = check_signature(content, _read_signature(where), signers, str(where))
        return cls(where, Manifest.from_bytes(content, str(where)), signer)

    def read(self, entry: File) -> bytes:
        """The content of one of the manifest's files.

        Raises:
            BundleError: its size or SHA-256 is not what the manifest says.
        """
        import hashlib

        content = read_member(self.path, entry.file, entry.size, exact=True)
        if hashlib.sha256(content).hexdigest() != entry.sha256:
            raise BundleError(
                f"{self.path}: {entry.file} is not the file that was exported (its SHA-256 differs); "
                "copy the bundle again or export it again"
            )
        return content

    def golden(self) -> Golden:
        """The golden vectors."""
        return Golden.from_bytes(self.read(self.manifest.golden), f"{self.path}: {self.manifest.golden.file}")


def read_manifest(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a bundle's manifest, which are what is signed."""
    return read_member(Path(path), MANIFEST, MAX_MANIFEST_BYTES)


def add_signature(path: str | os.PathLike[str], signature: bytes) -> None:
    """Put a signature of its manifest into a bundle, in place of one that it had; nothing else changes.

    Raises:
        BundleError: `path` is no bundle, or cannot be written.
    """
    where = Path(path)
    try:
        if where.is_dir():
            with replacing(where / SIGNATURE) as temporary:
                temporary.write_bytes(signature)
            return
        content = {name: read_member(where, name, size) for name, size in members(where)}
        content.pop(SIGNATURE, None)
        first = {MANIFEST: content.pop(MANIFEST), SIGNATURE: signature}
        with replacing(where) as temporary:
            temporary.write_bytes(zipped({**first, **content}))
    except OSError as error:
        raise BundleError(f"{where}: cannot be written ({error.strerror or error}); it is as it was") from error


def write_bundle(path: str | os.PathLike[str], manifest: Manifest, files: Mapping[str, bytes]) -> Bundle:
    """Write a bundle whole or not at all: a `.edge` file, or a folder if `path` has no such ending.

    An existing bundle at `path` is replaced; anything else there is left alone.

    Args:
        path: where to.
        manifest: what the bundle says of itself.
        files: the content of every file that the manifest lists.

    Raises:
        BundleError: `path` cannot be written, or something that is not a bundle is there.
    """
    where = Path(path)
    content = {MANIFEST: manifest.to_bytes(), **{entry.file: files[entry.file] for entry in manifest.files}}
    try:
        if where.suffix == ".edge":
            with replacing(where) as temporary:
                temporary.write_bytes(zipped(content))
        else:
            write_folder(where, content, MANIFEST, "a bundle")
    except OSError as error:
        raise BundleError(f"{where}: cannot be written ({error.strerror or error}); nothing was left there") from error
    return Bundle(where, manifest)


def _check_entry(entry: File, source: str) -> None:
    parts = PurePosixPath(entry.file).parts
    if not parts or entry.file.startswith("/") or ".." in parts or "\\" in entry.file or ":" in entry.file:
        raise BundleError(f"{source}: the manifest names a file outside the bundle: {entry.file!r}")
    if not isinstance(cast(Any, entry.size), int) or entry.size < 0:
        raise BundleError(f"{source}: the manifest gives {entry.file!r} an impossible size")


def _read_signature(where: Path) -> bytes | None:
    names = {SIGNATURE} if where.is_dir() and (where / SIGNATURE).exists() else set[str]()
    if not where.is_dir():
        names = {name for name, _ in members(where)}
    return read_member(where, SIGNATURE, MAX_SIGNATURE_BYTES) if SIGNATURE in names else None
