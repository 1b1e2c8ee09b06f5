"""Loading a model: from a bundle, or from a single file that EdgeLSTM wrote."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from .backends import BACKENDS, Float32Array, Opened, open_artifact
from .bundle import Bundle
from .durable import read_regular
from .errors import BackendUnavailableError, BundleError, InputError, ParityError
from .fleet import Fleet
from .golden import Golden
from .manifest import Artifact
from .parity import TOLERANCES, Parity, Tolerance, least_of_an_output
from .signature import refuse_single_file
from .stream import Stream
from .streaming import Streaming, whole
from .tflite_metadata import METADATA_NAME
from .typed_json import from_json

# Endings of single files, and their formats.
SUFFIXES = {".tflite": "tflite", ".onnx": "onnx", ".elm": "native"}


@dataclass(frozen=True, eq=False, repr=False)
class Model:
    """A loaded artifact: immutable, shared by any number of streams and threads.

    It pickles, for other processes, with the artifact's bytes; a process opens these once, however often they come.

    Attributes:
        name: what the model is called.
        features: names of the inputs, in order.
        outputs: names of the outputs, in order.
        backend: which backend runs it.
        format: of the artifact: `native`, `tflite` or `onnx`.
        precision: of the artifact.
        streaming: how it streams if not asked to do otherwise: with its state carried, or by window.
        size: of the artifact, in bytes.
        state_names: names of the states, in order.
    """

    name: str
    features: tuple[str, ...]
    outputs: tuple[str, ...]
    backend: str
    format: str
    precision: str
    streaming: Streaming
    size: int
    state_names: tuple[str, ...]
    _opened: Opened
    _content: bytes
    _fingerprint: bytes
    _source: str
    _golden: Golden | None
    _tolerance: Tolerance

    def __repr__(self) -> str:
        widths = f"{len(self.features)} features → {len(self.outputs)} outputs"
        window = self.streaming.default
        if self.rows is not None:
            widths = f"{len(self.features)} features → {self.rows} × {len(self.outputs)} outputs"
        how = "carries its state" if window is None else f"window {window.timesteps}, hop {window.hop}"
        return f"<Model {self.name}: {self.format} {self.precision} on {self.backend}, {widths}, {how}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, tuple(value for field, value in vars(self).items() if field != "_opened")

    def stream(
        self, window: int | None = None, hop: int | None = None, *, carry: bool = False, partial: bool = False
    ) -> Stream:
        """A new stream from zero state.

        Without arguments it streams as `streaming` says, which is how the model was trained.

        Args:
            window: answer as the model does on the last `window` inputs from zero state.
            hop: with a window, have an answer every so many timesteps; 1 by default, or what `streaming` says.
            carry: carry the state on for ever, whatever the model was trained for.
            partial: with a window, have answers before it is full, on the inputs that are there.

        Raises:
            InputError: the arguments contradict each other.
        """
        window_ = self.streaming.choose(carry, window, hop, partial)
        return Stream(self._opened, self._fingerprint, self.name, window_, self.features)

    def fleet(
        self,
        streams: int,
        window: int | None = None,
        hop: int | None = None,
        *,
        carry: bool = False,
        partial: bool = False,
    ) -> Fleet:
        """So many streams from zero state, to be stepped together; for the other arguments see `stream`.

        On the native backend one reading of the weights serves many of them.

        Raises:
            InputError: the arguments contradict each other, or there is not so much memory.
        """
        window_ = self.streaming.choose(carry, window, hop, partial)
        return Fleet(
            self._opened, whole("number of streams", streams), self._fingerprint, self.name, window_, self.features
        )

    def verify(self) -> Parity:
        """Replay the golden vectors here, on this device, and compare with what Keras gave.

        Returns:
            The differences.

        Raises:
            ParityError: they are beyond the tolerance that the artifact was exported with.
            BundleError: the golden vectors are another model's.
            InputError: the model was loaded from a single file, which carries no golden vectors.
        """
        if self._golden is None:
            raise InputError(f"{self._source}: a single file carries no golden vectors; verify the bundle")
        answers = self.replay(self._golden)
        if answers.shape != self._golden.outputs.shape:
            raise BundleError(f"{self._source}: its answers are not as wide as the golden vectors; export it again")
        parity = self._tolerance.compare(answers, self._golden.outputs)
        if not self._tolerance.met_by(parity):
            raise ParityError(
                f"{self._source}: {self.format} {self.precision} does not compute here what Keras computed: "
                f"{self._tolerance.shortfall(parity, self.outputs)} (max |error| {parity.max_abs_error:.3g}); "
                "do not use it on this device"
            )
        return parity

    def replay(self, golden: Golden) -> Float32Array:
        """Stream golden inputs, reset where they say so: the answers that come due, (answers, outputs)."""
        return replay(Stream(self._opened, self._fingerprint, self.name, golden.window), golden)

    @property
    def rows(self) -> int | None:
        """Rows of an answer, where it is a sequence, (rows, outputs); None where it is (outputs,)."""
        return None if self.streaming.whole is None else self.streaming.whole.rows

    @property
    def ids(self) -> int | None:
        """How many ids there are, where the inputs are 0, 1, …, ids - 1; None where they are any numbers."""
        return None if self.streaming.whole is None else self.streaming.whole.ids

    @property
    def window(self) -> int | None:
        """Timesteps that the model was trained on at a time, if known."""
        return self.streaming.window

    @property
    def description(self) -> dict[str, str]:
        """The texts that the artifact itself carries."""
        return self._opened.metadata

    @property
    def state_bytes(self) -> int:
        """Size of one stream's states, in bytes."""
        return self._opened.state_bytes


def replay(stream: Stream, golden: Golden) -> Float32Array:
    """Stream golden inputs, reset where they say so: the answers that come due, (answers, outputs), or with rows."""
    answers: list[Float32Array] = []
    for sequence in golden.sequences():
        stream.reset()
        answers.append(stream.run(sequence))
    return np.concatenate(answers)


def load(
    path: str | os.PathLike[str],
    backend: str = "auto",
    precision: str | None = None,
    allowed_signers: str | os.PathLike[str] | None = None,
) -> Model:
    """Load a model.

    Args:
        path: a bundle (a `.edge` file or a folder), or a `.elm`, `.tflite` or `.onnx` step or window graph that
            EdgeLSTM wrote.
        backend: `native`, `tflite`, `onnx`, `numpy`, or `auto`: the first of these that is installed and has an
            artifact.
        precision: which artifact of a bundle; None takes the most precise there is.
        allowed_signers: whose signature the bundle must have, as `Bundle.open` takes it.

    Returns:
        The model.

    Raises:
        BundleError: the file is missing, damaged, forged, unsigned where it must be signed or too new, or holds
            nothing that can be streamed.
        BackendUnavailableError: no backend that could run it is installed.
        InputError: there is no such backend, or no such artifact in the bundle.
    """
    if backend not in ("auto", *BACKENDS):
        raise InputError(f"no backend {backend!r}; there are auto, {', '.join(BACKENDS)}")
    where = Path(path)
    if where.suffix in SUFFIXES and not where.is_dir():
        refuse_single_file(where, allowed_signers)
        return _load_file(where, backend, precision)
    bundle = Bundle.open(where, allowed_signers)
    unavailable: list[str] = []
    for name, entry in _candidates(bundle, backend, precision):
        try:
            return load_artifact(bundle, entry, name)
        except BackendUnavailableError as error:
            unavailable.append(str(error))
    raise BackendUnavailableError(f"{where}: " + "; ".join(unavailable))


def load_artifact(bundle: Bundle, artifact: Artifact, backend: str) -> Model:
    """Load one artifact of a bundle.

    Raises:
        BundleError: the file is damaged.
        BackendUnavailableError: the backend is not installed.
    """
    content = bundle.read(artifact)
    source = f"{bundle.path}: {artifact.file}"
    manifest = bundle.manifest
    opened = open_artifact(backend, content, source)
    check_widths(opened, len(manifest.features), len(manifest.outputs), source)
    check_fixed(opened, manifest.streaming, artifact.graph, source)
    return Model(
        manifest.name,
        manifest.features,
        manifest.outputs,
        backend,
        artifact.format,
        artifact.precision,
        manifest.streaming or Streaming(),
        len(content),
        opened.state_names,
        opened,
        content,
        _fingerprint(content),
        source,
        bundle.golden(),
        manifest.tolerance(artifact),
    )


def check_widths(opened: Opened, features: int, outputs: int, source: str) -> None:
    """Raise `BundleError` unless an artifact is as wide as its bundle says."""
    if (opened.features, opened.outputs) != (features, outputs):
        raise BundleError(f"{source}: its widths are not those that the manifest gives")


def check_fixed(opened: Opened, streaming: Streaming | None, graph: str, source: str) -> None:
    """Raise `BundleError` unless an artifact is the graph that its bundle says, and takes the window that it says."""
    fixed, said = opened.fixed or Streaming(), streaming or Streaming()
    is_window = opened.fixed is not None
    if is_window != (graph == "window") or fixed.whole != said.whole or (is_window and fixed.window != said.window):
        raise BundleError(f"{source}: is not the graph, or not of the window, that the manifest gives; export it again")


def _candidates(bundle: Bundle, backend: str, precision: str | None) -> list[tuple[str, Artifact]]:
    """Backends and artifacts that fit what was asked for, the best first."""
    manifest = bundle.manifest
    if manifest.streaming is None:
        raise BundleError(
            f"{bundle.path}: holds sequence graphs only, which take a whole sequence of any length; run these with "
            "their own interpreters, or export the model to be streamed, without --graph sequence"
        )
    order = sorted(TOLERANCES, key=lambda p: -TOLERANCES[p])
    found: list[tuple[int, int, str, Artifact]] = []
    for rank, (name, (format_, _)) in enumerate(BACKENDS.items()):
        if backend not in ("auto", name):
            continue
        found.extend(
            # NumPy needs nothing, so it is always there, behind everything else.
            (len(order) if name == "numpy" else order.index(artifact.precision), rank, name, artifact)
            for artifact in manifest.artifacts
            if artifact.format == format_ and artifact.graph != "sequence" and precision in (None, artifact.precision)
        )
    if not found:
        have = ", ".join(a.label for a in manifest.artifacts)
        raise InputError(
            f"{bundle.path}: holds nothing for backend {backend!r} and precision {precision or 'any'}; it has {have}"
        )
    return [(name, artifact) for _, _, name, artifact in sorted(found, key=lambda item: item[:2])]


def _load_file(where: Path, backend: str, precision: str | None) -> Model:
    format_ = SUFFIXES[where.suffix]
    backends = [name for name, (runs, _) in BACKENDS.items() if runs == format_ and backend in ("auto", name)]
    if not backends:
        raise InputError(f"{where}: backend {backend!r} does not run {format_} files")
    try:
        content = read_regular(where)
    except OSError as error:
        raise BundleError(f"{where}: cannot be read ({error.strerror})") from error
    opened, backend = _open_with_any(backends, content, str(where))
    try:
        raw: dict[str, Any] = json.loads(opened.metadata[METADATA_NAME])
        found = str(raw["precision"])
        tolerance = Tolerance(TOLERANCES[found], least_of_an_output(TOLERANCES[found]))
        streaming = from_json(Streaming, raw["streaming"], "streaming")
        described = (str(raw["name"]), tuple(map(str, raw["features"])), tuple(map(str, raw["outputs"])))
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise BundleError(f"{where}: was not written by EdgeLSTM, or its description is damaged") from error
    if precision not in (None, found):
        raise InputError(f"{where}: is {found}, not {precision}")
    name, features, outputs = described
    if (opened.features, opened.outputs) != (len(features), len(outputs)):
        raise BundleError(f"{where}: its widths are not those that its description gives")
    return Model(
        name,
        features,
        outputs,
        backend,
        format_,
        found,
        streaming,
        len(content),
        opened.state_names,
        opened,
        content,
        _fingerprint(content),
        str(where),
        None,
        tolerance,
    )


def _open_with_any(backends: list[str], content: bytes, source: str) -> tuple[Opened, str]:
    for name in backends[:-1]:
        try:
            return open_artifact(name, content, source), name
        except BackendUnavailableError:
            continue
    return open_artifact(backends[-1], content, source), backends[-1]


def _unpickled(*values: Any) -> Model:
    """A model from all its fields but `_opened`, in order."""
    names = [field.name for field in fields(Model) if field.name != "_opened"]
    given = dict(zip(names, values, strict=True))
    return Model(**given, _opened=_opened_once(given["backend"], given["_content"], given["_source"]))


# A worker is sent the same model with each of its tasks, and lets go of it in between. What is open holds its content
# in any case, so that the few kept here cost memory only once nobody uses them any more.
@lru_cache(maxsize=4)
def _opened_once(backend: str, content: bytes, source: str) -> Opened:
    return open_artifact(backend, content, source)


def _fingerprint(content: bytes) -> bytes:
    import hashlib

    return hashlib.sha256(content).digest()[:16]
