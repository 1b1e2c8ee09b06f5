"""Exports a network as a folder of C sources."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ...runtime import elm
from ...runtime.backends import open_artifact
from ...runtime.errors import BackendUnavailableError, BundleError, InputError, ParityError, UnsupportedModelError
from ...runtime.folder import write_folder
from ...runtime.golden import Golden
from ...runtime.memory import c_tile, stream_bytes
from ...runtime.model import replay as replay_stream
from ...runtime.network import Network
from ...runtime.parity import Parity, compare
from ...runtime.stream import Stream
from ...runtime.streaming import Window
from ..calibration import as_sequences, record
from ..conditioning import ALLOWANCE
from ..from_keras.call import NotCarriedError
from ..to_native import native_step_file
from ..windows import proof_for, streaming_of
from .compiler import Size, measure, replay
from .readme import readme
from .source import model_source
from .texts import build_description, header, self_test

if TYPE_CHECKING:
    from keras import Model as KerasModel

# Every folder that this wrote has it, and only such a folder is replaced.
_MARKER = ("engine/edgelstm.h", "a folder of C that edgelstm wrote")
_SELF_TEST_STEPS = 200
# Words that C or C++ keep to themselves, and names that the generated files use.
_RESERVED = frozenset(
    """
    auto bool break case catch char class const continue default delete do double else enum export extern false float
    for friend goto if inline int long main namespace new operator private protected public register restrict return
    short signed sizeof static struct switch template this throw true try typedef typename union unsigned using virtual
    void volatile while
    edgelstm file memory model self state
    """.split()  # noqa: SIM905
)


@dataclass(frozen=True)
class CProject:
    """A folder of C sources as it was written.

    Attributes:
        path: the folder.
        name: what its files and functions are called.
        precision: of the weights.
        parity: of the engine's answers with Keras's over all golden vectors.
        min_snr_db: the least ratio allowed.
        weights: bytes of the model in read-only memory.
        state: bytes of a stream's memory.
        window: of its streams, or None where their state is carried on.
        sizes: what each compiler of this machine makes of it.
        definitions: for the compiler, which leave out of the engine what the model does not use.
        ran: whether the self-test was compiled and run here; not without a compiler.
    """

    path: Path
    name: str
    precision: str
    parity: Parity
    min_snr_db: float
    weights: int
    state: int
    window: Window | None
    sizes: tuple[Size, ...]
    definitions: tuple[str, ...]
    ran: bool

    @property
    def tile(self) -> int:
        """Streams, or windows in flight, that go through a layer together."""
        return c_tile(self.window)


def is_c_folder(path: Path) -> bool:
    """Whether `export_c` wrote a folder, and would replace it."""
    return (path / _MARKER[0]).is_file()


def read_for_c(source: KerasModel | str | Path, name: str | None = None) -> Network:
    """What `read_keras` gives; of a model that has no state to carry it says what else can be done.

    Raises:
        InputError: there is no such file, or it is damaged or not a Keras file.
        UnsupportedModelError: no state of the model can be carried.
    """
    from ..from_keras import read_keras

    try:
        return read_keras(source, name)
    except NotCarriedError as error:
        raise UnsupportedModelError(
            f"{error.because}; C steps models whose state can be carried: export this one as tflite or onnx (--format "
            "tflite,onnx), which stream it by window"
        ) from error


def export_c(
    source: Network | KerasModel | str | Path,
    path: str | Path,
    precision: str = "float32",
    calibration: npt.ArrayLike | None = None,
    features: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    window: int | None = None,
    hop: int | None = None,
    carry: bool = False,
    min_snr: float | None = None,
) -> CProject:
    """Export a model as C sources, prove them against Keras, and write the folder.

    The folder's name names its files and functions: `pump/` has `pump.h`, `pump.c` and `pump_step`.

    Args:
        source: a network from `read_keras`, a Keras model, or the path of one.
        path: the folder; one that this function wrote is replaced.
        precision: `float32`, `float16` or `int8`.
        calibration: (N, T, features) or (T, features) inputs, from which the self-test's are drawn, and with which the
            weights of `int8` are rounded better.
        features: names of the inputs.
        outputs: names of the outputs.
        window: timesteps that the model was trained on at a time; the folder answers by this window then. So it does by
            default, where the model's input has a fixed length and it gives one answer for that.
        hop: by window, timesteps between two answers; 1 by default.
        carry: carry the state on all the same.
        min_snr: least signal-to-noise ratio in dB, in place of the precision's own.

    Returns:
        What was written.

    Raises:
        UnsupportedModelError: no state of the model can be carried.
        InputError: the arguments do not fit the model.
        ParityError: the engine's answers, here or in the compiled self-test, differ too much; nothing is written.
        BundleError: `path` cannot be written, or something else is there.
    """
    where = Path(path)
    name = _identifier(where)
    if precision not in elm.PRECISIONS:
        raise InputError(f"c has no precision {precision!r}; there are {', '.join(elm.PRECISIONS)}")
    if not isinstance(source, Network):
        source = read_for_c(source)
    data = None if calibration is None else as_sequences(calibration, source.features)
    xs, ys = _names("x", features, source.features), _names("y", outputs, source.outputs)
    proof, streaming = proof_for(source, data, streaming_of(source, carry, window, hop))
    golden, tolerance = proof.golden, proof.conditioning.tolerance(precision, min_snr)
    how = streaming.default
    recorded = record(source, data, proof.longest) if precision == "int8" and data is not None else None
    described = native_step_file(source, precision, {"name": name}, recorded)
    parity = tolerance.compare(_replayed(described, golden), golden.outputs)
    if not tolerance.met_by(parity):
        shortfall = tolerance.shortfall(parity, ys)
        raise ParityError(
            f"{source.name}: c {precision} is not within tolerance of Keras, so nothing is written: {shortfall}"
        )
    content = native_step_file(source, precision, None, recorded)
    short = _shortened(golden)
    plain = compare(_replayed(described, short), short.outputs).snr_db
    checked = short
    if plain < tolerance.snr_db:
        checked, plain = golden, compare(_replayed(described, golden), golden.outputs).snr_db
    # The self-test knows nothing of probabilities, whose unit is 1 however small they are.
    least = min(tolerance.snr_db, plain - ALLOWANCE) if tolerance.probabilities else tolerance.snr_db
    engine = _engine(how)
    sources = [file for file in engine if file.endswith(".c")]
    tile = c_tile(how)
    definitions = [f"EDGELSTM_TILE={tile}", *_not_needed(content)]
    state = stream_bytes(content, how, tile=tile)
    written = {
        f"{name}.h": header(
            name,
            f"{name}: {source.name}, {precision}\n" + "\n".join(source.summaries),
            xs,
            ys,
            state,
            how,
        ),
        f"{name}.c": model_source(content, name, how),
        "main.c": self_test(name, checked, least),
        "CMakeLists.txt": build_description(name, sources, definitions),
    }
    everything = {file: text.encode() for file, text in written.items()} | engine
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "c"
        write_folder(folder, everything, *_MARKER)
        problem, here = replay(folder, name, sources, definitions)
        if problem:
            raise ParityError(f"{source.name}: the C sources are not written: {problem}")
        sizes = (*here, *measure(folder, name, sources, definitions))
    ran, asked = problem is not None, tolerance.snr_db
    project = CProject(where, name, precision, parity, asked, len(content), state, how, sizes, tuple(definitions), ran)
    everything["README.md"] = readme(project, source, content).encode()
    try:
        write_folder(where, everything, *_MARKER)
    except OSError as error:
        raise BundleError(f"{where}: cannot be written ({error.strerror or error}); nothing was left there") from error
    return project


def _identifier(folder: Path) -> str:
    name = re.sub(r"\W+", "_", folder.resolve().name, flags=re.ASCII).strip("_").lower()
    if not re.fullmatch(r"[a-z]\w*", name, re.ASCII) or name in _RESERVED:
        raise InputError(
            f"{folder}: the folder's name becomes that of C functions, which {folder.resolve().name!r} cannot be; "
            "choose a name that begins with a letter, such as pump"
        )
    return name


def _names(stem: str, given: Sequence[str] | None, count: int) -> list[str]:
    names = [f"{stem}{i}" for i in range(count)] if given is None else list(given)
    if len(names) != count:
        raise InputError(f"{count} names are needed, got {len(names)}: {', '.join(names)}")
    return names


def _replayed(content: bytes, golden: Golden) -> npt.NDArray[np.float32]:
    """Replay on the engine, or, where it was not built, on NumPy, which reads the same file."""
    try:
        opened = open_artifact("native", content, "c")
    except BackendUnavailableError:
        opened = open_artifact("numpy", content, "c")
    return replay_stream(Stream(opened, b"", "c", golden.window), golden)


def _shortened(golden: Golden) -> Golden:
    """The last sequences, the shorter ones: enough for a device to show that it computes, in little flash."""
    total = len(golden.inputs)
    first = max(start for start in golden.starts if start == 0 or total - start >= _SELF_TEST_STEPS)
    starts = tuple(start - first for start in golden.starts if start >= first)
    inputs, answers = golden.inputs[first:], total - first
    if golden.window is not None:
        lengths = np.diff((*starts, len(inputs)))
        answers = sum(len(golden.window.due(0, int(length))) for length in lengths)
    return Golden(inputs, golden.outputs[-answers:], starts, golden.window)


def _engine(window: Window | None) -> dict[str, bytes]:
    folder = files("edgelstm.runtime") / "engine"
    left_out = ("bench.c", "example.c", *(() if window is not None else ("window.c",)))
    names = sorted(f.name for f in folder.iterdir() if f.name.endswith((".c", ".h")) and f.name not in left_out)
    return {f"engine/{name}": (folder / name).read_bytes() for name in [*names, "FORMAT.md"]}


def _not_needed(content: bytes) -> list[str]:
    """Definitions that leave out of the engine what the model does not use."""
    layers = elm.HEADER.unpack_from(content)[4]
    records = [elm.RECORD.unpack_from(content, elm.HEADER.size + i * elm.RECORD.size) for i in range(layers)]
    used = {elm.PRECISIONS[record[3]] for record in records if record[0] <= elm.DENSE}
    functions = {elm.FUNCTIONS[record[i]] for record in records for i in (4, 8)}
    definitions = [f"EDGELSTM_NO_{precision.upper()}" for precision in elm.PRECISIONS if precision not in used]
    return definitions + ([] if functions - {"linear", "sigmoid", "tanh"} else ["EDGELSTM_NO_FUNCTIONS"])
