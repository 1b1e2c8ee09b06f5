"""A model's `.elm` file as C source: constant arrays of exact literals, in the layout that the engine reads."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ...runtime import elm
from ...runtime.streaming import Window

_PER_LINE = 8


def model_source(content: bytes, name: str, window: Window | None = None) -> str:
    """The file `NAME.c`: the model in read-only memory, and the functions of `NAME.h`.

    Args:
        content: an `.elm` file without a description.
        name: an identifier.
        window: of its streams, or None where their state is carried.
    """
    members, values = zip(*_members(content), strict=True)
    declared, initialised = "".join(f"    {member};\n" for member in members), ",\n".join(values)
    return f"""/* The model, laid out as the engine reads it: see engine/FORMAT.md. Generated; do not edit. */
#include "{name}.h"

EDGELSTM_ALIGNED static const struct {{
{declared}}} file = {{
{initialised}
}};

const void *const {name}_file = &file;
const size_t {name}_file_size = sizeof file;

{_functions(name, window)}"""


def _functions(name: str, window: Window | None) -> str:
    upper = name.upper()
    opened = f"""int {name}_init({name} *self) {{
    const int error = edgelstm_open(&self->model, &file, sizeof file);
    if (error) return error;
"""
    if window is None:
        return f"""{opened}    return edgelstm_init(&self->model, self->memory, sizeof self->memory, 1, &self->state);
}}

int {name}_step({name} *self, const float *x, float *y) {{ return edgelstm_step(&self->model, self->state, x, y); }}

int {name}_reset({name} *self) {{ return edgelstm_reset(&self->model, self->state, 0); }}
"""
    return f"""{opened}    return edgelstm_windows_init(&self->model, self->memory, sizeof self->memory, 1,
                                 {upper}_WINDOW, {upper}_HOP, 0, &self->windows);
}}

int {name}_step({name} *self, const float *x, float *y, int *due) {{
    return edgelstm_windows_step(&self->model, self->windows, x, y, due);
}}

int {name}_reset({name} *self) {{ return edgelstm_windows_reset(&self->model, self->windows, 0); }}
"""


def array(values: npt.NDArray[Any], indent: str = "        ") -> str:
    """Literals between braces, each of which a compiler reads back to the very same number."""
    if values.dtype == np.float32:
        texts = [_float(value) for value in np.char.mod("%.9g", values.astype(np.float64).ravel())]
    elif values.dtype == np.float16:
        texts = [f"0x{value:04x}u" for value in values.view(np.uint16).ravel().tolist()]
    else:
        texts = [str(value) for value in values.ravel().tolist()]
    lines = [", ".join(texts[i : i + _PER_LINE]) for i in range(0, len(texts), _PER_LINE)]
    return "{\n" + ",\n".join(indent + line for line in lines) + "}"


def _float(text: str) -> str:
    """Nine digits tell every float32 from its neighbours."""
    return (text if re.search(r"[.e]", text) else f"{text}.0") + "f"


def _members(content: bytes) -> Iterator[tuple[str, str]]:
    """Declarations and initialisers, one after another without a gap: every one is a multiple of four bytes long."""
    header = elm.HEADER.unpack_from(content)
    layers = header[4]
    magic = ", ".join(f"'{chr(byte)}'" for byte in header[0])
    yield "char magic[8]", f"    {{{magic}}}"
    yield "uint32_t header[9]", f"    {array(np.array(header[1:10], np.uint32))}"
    yield "float mask_value", f"    {_float(f'{header[10]:.9g}')}"
    yield "uint32_t reserved[4]", "    {0, 0, 0, 0}"
    records = [elm.RECORD.unpack_from(content, elm.HEADER.size + i * elm.RECORD.size) for i in range(layers)]
    if records:
        yield (
            f"struct {{\n        uint32_t kind, inputs, units, precision, activation;\n        float parameters[3];\n"
            f"        uint32_t recurrent_activation;\n        float recurrent_parameters[3], epsilon;\n"
            f"        uint32_t offset, size, reserved;\n    }} layers[{layers}]",
            "    {" + ",\n     ".join(map(_record, records)) + "}",
        )
    at = elm.HEADER.size + layers * elm.RECORD.size
    for i, record in enumerate(records):
        offset, size = record[13], record[14]
        assert offset == at  # Sections follow each other: records and sections are multiples of 64 bytes.
        for what, values in _section(record, content[offset : offset + size]):
            kind = {"f4": "float", "f2": "uint16_t", "i1": "int8_t", "u1": "uint8_t"}[values.dtype.str[1:]]
            yield f"{kind} layer{i}_{what}[{values.size}]", f"    {array(values)}"
            at += values.nbytes
    assert at == len(content)


def _record(record: tuple[Any, ...]) -> str:
    floats = {5, 6, 7, 9, 10, 11, 12}
    texts = [_float(f"{value:.9g}") if i in floats else f"{value}u" for i, value in enumerate(record)]
    groups = [", ".join(texts[:5]), f"{{{', '.join(texts[5:8])}}}", texts[8], f"{{{', '.join(texts[9:12])}}}"]
    return "{" + ", ".join([*groups, *texts[12:], "0u"]) + "}"


def _section(record: tuple[Any, ...], section: bytes) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Names and values of the parts of a section, in order and without a gap."""
    kind, inputs, units = record[:3]
    precision = elm.PRECISIONS[int(record[3])]
    if kind > elm.DENSE:
        yield "vectors", np.frombuffer(section, np.float32)
        return
    dtype = {"float32": np.float32, "float16": np.float16, "int8": np.int8}[precision]
    at = 0

    def take(what: str, dtype: npt.DTypeLike, count: int) -> Iterator[tuple[str, npt.NDArray[Any]]]:
        nonlocal at
        if count:
            values = np.frombuffer(section, dtype, count, at)
            at += values.nbytes
            yield what, values

    for m, shape in enumerate(elm.shapes_of(kind, inputs, units, precision)):
        for b, lanes in enumerate(shape.lanes):
            prefix, width = f"m{m}_block{b}", shape.gates * lanes
            yield from take(f"{prefix}_bias", np.float32, width)
            if precision == "int8":
                yield from take(f"{prefix}_scales", np.float32, 2 * width)
            yield from take(f"{prefix}_state", dtype, shape.rows(shape.a) * width)
            yield from take(f"{prefix}_input", dtype, shape.rows(shape.b) * width)
    yield from take("padding", np.uint8, len(section) - at)
