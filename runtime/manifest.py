"""The manifest: what a bundle says of itself, and of every file in it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

from .errors import BundleError
from .parity import TOLERANCES, Parity, Tolerance
from .streaming import Streaming
from .typed_json import from_json

VERSION = 2
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 16 * 2**20

FORMATS = ("tflite", "onnx", "native")
# What a graph takes: a timestep and the states; a sequence of any length; or a window at once, of a model that has no
# state to carry.
GRAPHS = ("step", "sequence", "window")
# No model has more inputs or outputs: the engine's rows end here.
MAX_WIDTH = 65_536


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

    def __post_init__(self) -> None:
        parts = PurePosixPath(self.file).parts
        outside = not parts or self.file.startswith("/") or ".." in parts or any(c in self.file for c in "\\:\0")
        if outside or len(self.file) > 255:
            raise ValueError(f"names a file outside the bundle: {self.file[:100]!r}")
        if not 0 <= self.size < 2**63:
            raise ValueError(f"gives {self.file!r} an impossible size")
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise ValueError(f"gives {self.file!r} a SHA-256 that is none")


@dataclass(frozen=True)
class Artifact(File):
    """An exported file: a format × a graph × a precision, its parity with Keras at export, and the least allowed.

    Attributes:
        format: `tflite`, `onnx` or `native`.
        graph: `step`, `sequence` or `window`.
        precision: of the weights or of all.
        parity: of its answers with Keras's over all golden vectors, of which the bundle may hold a part.
        min_snr_db: the least ratio.
        min_output_snr_db: the least ratio of the worst output's variation.
    """

    format: str
    graph: str
    precision: str
    parity: Parity
    min_snr_db: float
    min_output_snr_db: float

    def __post_init__(self) -> None:
        super().__post_init__()
        for what, value, known in (
            ("format", self.format, FORMATS),
            ("graph", self.graph, GRAPHS),
            ("precision", self.precision, TOLERANCES),
        ):
            if value not in known:
                raise ValueError(f"{self.file!r} has the {what} {value[:100]!r}; there are {', '.join(known)}")

    @property
    def label(self) -> str:
        """Such as `tflite float32`, `tflite float32 (sequence)` or `tflite float32 (window)`."""
        return f"{self.format} {self.precision}" + ("" if self.graph == "step" else f" ({self.graph})")


@dataclass(frozen=True)
class Manifest:
    """What a bundle says of itself.

    Attributes:
        name: what the model is called.
        features: names of the inputs, in order.
        outputs: names of the outputs, in order.
        streaming: how the model streams; None if the bundle holds sequence graphs only.
        layers: one line of description per layer, for people.
        parameters: number of weights.
        artifacts: the exported files. Of a model that can carry its state, one is the network itself, native in
            float32, which needs no interpreter.
        golden: golden vectors: inputs, and Keras's outputs for them.
        training: what training recorded (task, target, horizon, sampling, labels), if anything.
        versions: the packages that made the bundle.
        counter: grows from one signed bundle of this name to the next, so that a board can tell an older one; 0 of one
            that was never signed.
        keras_float32: how far Keras's own float32 is from the same network in float64, over the golden vectors.
        chaotic_beyond: timesteps from a reset after which no float32, Keras's own neither, holds the model's outputs,
            since every rounding error becomes larger with each timestep; None where it does.
        probabilities: whether the outputs come from a sigmoid or softmax, so that their unit is 1.
    """

    name: str
    features: tuple[str, ...]
    outputs: tuple[str, ...]
    streaming: Streaming | None
    layers: tuple[str, ...]
    parameters: int
    artifacts: tuple[Artifact, ...]
    golden: File
    training: dict[str, Any] = field(default_factory=dict[str, Any])
    versions: dict[str, str] = field(default_factory=dict[str, str])
    counter: int = 0
    keras_float32: Parity | None = None
    chaotic_beyond: int | None = None
    probabilities: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.counter < 2**63:
            raise ValueError(f"has the counter {self.counter}")
        for what, names in (("features", self.features), ("outputs", self.outputs)):
            if not 0 < len(names) <= MAX_WIDTH:
                raise ValueError(f"has {len(names)} {what}")
        files = [entry.file for entry in self.files]
        if len(set(files)) != len(files):
            raise ValueError("names a file twice")
        if self.parameters < 0:
            raise ValueError(f"has {self.parameters} weights")

    def to_bytes(self) -> bytes:
        """JSON, the same for the same manifest."""
        return (json.dumps({"version": VERSION, **asdict(self)}, indent=1) + "\n").encode()

    @classmethod
    def from_bytes(cls, content: bytes, source: str) -> Manifest:
        """Read a manifest.

        Raises:
            BundleError: it is damaged, incomplete or of another version.
        """
        try:
            raw: Any = json.loads(content)
            version = raw.pop("version")
            if type(version) is not int:
                raise ValueError(f"its version is {version!r}")
            if version > VERSION:
                raise BundleError(
                    f"{source}: bundle format {version} is newer than this EdgeLSTM reads ({VERSION}); update EdgeLSTM"
                )
            if version < VERSION:
                raise BundleError(
                    f"{source}: bundle format {version} is older than this EdgeLSTM reads ({VERSION}); export it again"
                )
            return from_json(cls, raw, "the manifest")
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise BundleError(f"{source}: {MANIFEST} is not a bundle's manifest ({error})") from error

    def tolerance(self, artifact: Artifact) -> Tolerance:
        """How far an artifact's answers may be from Keras's."""
        return Tolerance(artifact.min_snr_db, artifact.min_output_snr_db, self.probabilities)

    @property
    def files(self) -> tuple[File, ...]:
        """Every file of the bundle but the manifest."""
        return (*self.artifacts, self.golden)

    @property
    def window(self) -> int | None:
        """Timesteps that the model was trained on at a time, if known."""
        return None if self.streaming is None else self.streaming.window

    @property
    def network(self) -> Artifact | None:
        """The network itself, native in float32, which the engine and NumPy run; None where it was left out."""
        found = (a for a in self.artifacts if (a.format, a.precision) == ("native", "float32"))
        return next(found, None)
