"""The files beside a model's C source: header, self-test, build description, README."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...runtime.golden import Golden
from ...runtime.streaming import Window
from .source import array


def header(
    name: str,
    description: str,
    features: Sequence[str],
    outputs: Sequence[str],
    memory: int,
    window: Window | None = None,
) -> str:
    """`NAME.h`.

    Args:
        name: an identifier.
        description: of the model, in a line or several.
        features: names of the inputs.
        outputs: names of the outputs.
        memory: bytes of a stream's state, or of the states of its windows in flight.
        window: of its streams, or None where their state is carried.
    """
    upper = name.upper()
    if window is None:
        use, constants, held, due = "x, y", "", "edgelstm_state *state", ""
        step = f"""/* One timestep: x has {upper}_FEATURES numbers, y gets {upper}_OUTPUTS. */"""
    else:
        use, held, due = "x, y, &due", "edgelstm_windows *windows", ", int *due"
        constants = f"""/* An answer is the model's on the last so many timesteps, and one is due every so many. */
#define {upper}_WINDOW {window.timesteps}
#define {upper}_HOP {window.hop}
"""
        step = f"""/* One timestep: x has {upper}_FEATURES numbers. Where an answer is due, *due becomes 1 and y gets
 * {upper}_OUTPUTS numbers; where not, *due becomes 0 and y stays as it was. */"""
    return f"""/* {description.replace(chr(10), chr(10) + " * ")}
 *
 *     static {name} stream;
 *
 *     if ({name}_init(&stream)) ...
 *     for (;;) {name}_step(&stream, {use});
 *
 * One `{name}` is one sequence in progress; have as many as there are sequences. All memory is in it: nothing is
 * allocated. Functions return 0, or an error that edgelstm_error_text() puts into words; a step that is refused, for a
 * NaN in x, leaves the state as it was. engine/edgelstm.h has more: runs of timesteps, snapshots, fleets.
 */
#ifndef {upper}_H
#define {upper}_H

#include "engine/edgelstm.h"

#ifdef __cplusplus
extern "C" {{
#endif

#define {upper}_FEATURES {len(features)} /* {_listed(features)} */
#define {upper}_OUTPUTS {len(outputs)} /* {_listed(outputs)} */
{constants}#define {upper}_MEMORY {memory}

typedef struct {name} {{
    EDGELSTM_ALIGNED unsigned char memory[{upper}_MEMORY];
    edgelstm_model model;
    {held};
}} {name};

/* The model itself, an .elm file in read-only memory. */
extern const void *const {name}_file;
extern const size_t {name}_file_size;

/* From zero state. Checks the whole model, once. */
int {name}_init({name} *self);

{step}
int {name}_step({name} *self, const float *x, float *y{due});

/* Back to zero state, as at the start of a sequence. */
int {name}_reset({name} *self);

#ifdef __cplusplus
}}
#endif
#endif
"""


def self_test(name: str, golden: Golden, least: float) -> str:
    """`main.c`: replays golden vectors; returns 0 if the answers are within tolerance of Keras's."""
    starts: npt.NDArray[np.int64] = np.array(golden.starts, np.int64)
    upper = name.upper()
    due, times, given, look, late = "", "", "", "", ""
    if golden.window is not None:
        ends = (*golden.starts[1:], len(golden.inputs))
        at = [
            start + t for start, end in zip(golden.starts, ends, strict=True) for t in golden.window.due(0, end - start)
        ]
        due, given = ", due = 0, punctual = 1", ", &due"
        times = f"""/* Timesteps with an answer. */
static const int due_at[ANSWERS] = {array(np.array(at, np.int64))};

"""
        late = f"""    else if (!punctual) printf("{name}: answer %d came too early or too late\\n", answers);
"""
        look = """        punctual = due == (answers < ANSWERS && t == due_at[answers]);
        if (!punctual) break;
        if (!due) continue;
"""
    return f"""/* Replays what Keras computed for this model: prints the signal-to-noise ratio and returns 0, or 1 where
 * it is too low. NO_PRINTF leaves out the printing, for targets without a console. */
#include <math.h>
#ifndef NO_PRINTF
#include <stdio.h>
#endif

#include "{name}.h"

#define TIMESTEPS {len(golden.inputs)}
#define ANSWERS {len(golden.outputs)}
#define LEAST_DB {least:g}

static const float inputs[TIMESTEPS * {upper}_FEATURES] = {array(golden.inputs)};

static const float expected[ANSWERS * {upper}_OUTPUTS] = {array(golden.outputs)};

/* Timesteps before which the state is reset. */
static const int starts[] = {array(starts)};

{times}static {name} stream;

int main(void) {{
    float y[{upper}_OUTPUTS];
    double signal = 0, noise = 0, ratio;
    unsigned next = 0;
    int answers = 0, passed{due};
    int error = {name}_init(&stream);
    for (int t = 0; !error && t < TIMESTEPS; t++) {{
        if (next < sizeof starts / sizeof *starts && t == starts[next]) {{
            error = {name}_reset(&stream);
            next++;
        }}
        if (!error) error = {name}_step(&stream, inputs + t * {upper}_FEATURES, y{given});
        if (error) break;
{look}        for (int i = 0; i < {upper}_OUTPUTS; i++) {{
            const double want = (double)expected[answers * {upper}_OUTPUTS + i], difference = want - (double)y[i];
            signal += want * want;
            noise += difference * difference;
        }}
        answers++;
    }}
    ratio = noise > 0 ? 10 * log10(signal / noise) : 200;
    passed = !error && answers == ANSWERS{" && punctual" if due else ""} && ratio >= LEAST_DB;
#ifndef NO_PRINTF
    if (error) printf("{name}: %s\\n", edgelstm_error_text(error));
{late}    else
        printf("{name}: %.1f dB against Keras, %s %g\\n", ratio, passed ? "at least" : "LESS THAN", (double)LEAST_DB);
#endif
    return passed ? 0 : 1;
}}
"""


def build_description(name: str, sources: Sequence[str], definitions: Sequence[str]) -> str:
    """`CMakeLists.txt`."""
    listed = "\n            ".join(sources)
    return f"""cmake_minimum_required(VERSION 3.16)
project({name} LANGUAGES C)

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release)
endif()

add_library({name} STATIC {name}.c
            {listed})
set_target_properties({name} PROPERTIES C_STANDARD 99 C_EXTENSIONS OFF POSITION_INDEPENDENT_CODE ON)
target_include_directories({name} PUBLIC ${{CMAKE_CURRENT_SOURCE_DIR}})
if(CMAKE_C_COMPILER_ID MATCHES "GNU|Clang")
  target_compile_options({name} PRIVATE -ffp-contract=off -ffunction-sections)
endif()
# One stream at a time, and without what this model does not need. EDGELSTM_PORTABLE besides leaves out the kernels for
# processors with vector units.
target_compile_definitions({name} PRIVATE {" ".join(definitions)})
find_library({name.upper()}_MATH m)
if({name.upper()}_MATH)
  target_link_libraries({name} PUBLIC ${{{name.upper()}_MATH}})
endif()

# The self-test: what Keras computed, replayed here.
add_executable({name}_check main.c)
target_link_libraries({name}_check {name})
enable_testing()
add_test(NAME golden COMMAND {name}_check)
"""


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names).replace("*/", "* /")
