/* EdgeLSTM: steps a stacked LSTM, one timestep per call, with its state kept.
 *
 *     static edgelstm_model model;
 *     static EDGELSTM_ALIGNED unsigned char memory[4096];   // edgelstm_state_size(&model, 1) bytes or more
 *     edgelstm_state *state;
 *
 *     if (edgelstm_open(&model, file, file_size)) ...       // `file` is an .elm file in memory
 *     if (edgelstm_init(&model, memory, sizeof memory, 1, &state)) ...
 *     for (;;) edgelstm_step(&model, state, x, y);          // features floats in, outputs floats out
 *
 * The library allocates nothing, keeps nothing global, does no I/O, and takes no lock; a call takes the same time whatever
 * came before, but for edgelstm_open and for windows, which are few at first, and in silence as in noise: numbers below
 * 1.2e-38, over which processors take a hundred times as long, count as zero. For that every step and run sets the
 * processor's floating-point mode, masks its exceptions and rounds to nearest, and gives the caller's mode and exception
 * flags back as they were. Where there is no such mode the library looks at exponents itself, and leaves out what is below
 * 8e-34; weights below 1e-19 may still take longer there. The caller owns all memory:
 *
 *   edgelstm_model   is read-only once opened, shared by any number of threads. It points into the file's bytes,
 *                    which must stay where they are, unchanged, as long as the model is used.
 *   edgelstm_state   holds one stream, or a fleet of many, and room to work in. One thread at a time may use it.
 *   edgelstm_windows likewise, where answers are for the last T timesteps instead of for all that came before.
 *
 * All functions that can fail return EDGELSTM_OK or an error; a step that fails leaves the state as it was.
 */
#ifndef EDGELSTM_H
#define EDGELSTM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EDGELSTM_VERSION "0.1.0"

/* Models and states lie best on a cache line's border; the model's bytes and the state's memory must lie on one of
 * EDGELSTM_ALIGNMENT bytes. */
#define EDGELSTM_ALIGNMENT 64
#if defined(__GNUC__) || defined(__clang__)
#define EDGELSTM_ALIGNED __attribute__((aligned(64)))
#elif defined(_MSC_VER)
#define EDGELSTM_ALIGNED __declspec(align(64))
#else
#define EDGELSTM_ALIGNED
#endif

typedef enum edgelstm_error {
    EDGELSTM_OK = 0,
    EDGELSTM_NULL,        /* an argument is a null pointer */
    EDGELSTM_MISALIGNED,  /* the model's bytes or the state's memory do not lie on a border of 64 bytes */
    EDGELSTM_TOO_SMALL,   /* the memory given is less than what the matching size function says */
    EDGELSTM_RANGE,       /* no such stream, a stream named twice, or a number of streams or timesteps out of range */
    EDGELSTM_NOT_A_MODEL, /* the bytes are not an .elm file */
    EDGELSTM_TOO_NEW,     /* an .elm file of a later version */
    EDGELSTM_DAMAGED,     /* the file's checksum differs, or it contradicts itself */
    EDGELSTM_NOT_FINITE,  /* an input is NaN or infinite */
    EDGELSTM_FOREIGN,     /* a state or a snapshot of another model, or none at all */
    EDGELSTM_NO_KERNEL    /* this processor has no kernel of that name, or this build none for the model */
} edgelstm_error;

/* What an error means, in English; never NULL. */
const char *edgelstm_error_text(int error);

/* An opened model. Its fields are the library's own. */
typedef struct edgelstm_model {
    const unsigned char *file;
    const void *kernel;
    uint64_t state_floats;
    uint32_t features, outputs, layers, masked, checksum;
    uint32_t row, gates, digits; /* room that a stream needs to work in, in floats and bytes */
    float mask_value;
} edgelstm_model;

typedef struct edgelstm_state edgelstm_state;

/* Open the `size` bytes at `file`, and choose the fastest kernel that this processor has. Everything is checked here,
 * the checksum too: no bytes whatever make a later call read or write outside of what it was given. */
int edgelstm_open(edgelstm_model *model, const void *file, size_t size);

/* Numbers that a timestep takes and gives; 0 for NULL. */
size_t edgelstm_features(const edgelstm_model *model);
size_t edgelstm_outputs(const edgelstm_model *model);

/* Use the kernel of this name instead: "avx512", "avx2", "neondot", "neon", "portable". NULL asks for the fastest.
 * For tests and comparisons; kernels differ in the last bits of their answers. */
int edgelstm_use_kernel(edgelstm_model *model, const char *name);
const char *edgelstm_kernel(const edgelstm_model *model);

/* Bytes of memory that the states of so many streams need; 0 where that is more than there can be. */
size_t edgelstm_state_size(const edgelstm_model *model, size_t streams);

/* Make a state of `streams` streams in `memory`, all of them from zero. The state needs no other end than the
 * memory's. */
int edgelstm_init(const edgelstm_model *model, void *memory, size_t size, size_t streams, edgelstm_state **state);

/* Back to zero, as at the start of a sequence. */
int edgelstm_reset(const edgelstm_model *model, edgelstm_state *state, size_t stream);

/* One timestep of stream 0: x has `features` floats, y gets `outputs`. */
int edgelstm_step(const edgelstm_model *model, edgelstm_state *state, const float *x, float *y);

/* So many timesteps of stream 0, one row after another: the same numbers, to the last bit, as from as many steps.
 * If any input is not finite, no timestep is taken. */
int edgelstm_run(const edgelstm_model *model, edgelstm_state *state, const float *xs, size_t timesteps, float *ys);

/* One timestep of each of `count` streams, which share the reading of the weights: row i of xs and ys is of stream
 * `streams[i]`, or of stream i where `streams` is NULL. No stream may be named twice. The numbers are those of
 * edgelstm_step, to the last bit. If any input is not finite, no stream is stepped. */
int edgelstm_fleet_step(const edgelstm_model *model, edgelstm_state *state, const size_t *streams, size_t count,
                        const float *xs, float *ys);

/* Save a stream into so many bytes, and continue from them, in the same model (by its checksum) on any machine. */
size_t edgelstm_snapshot_size(const edgelstm_model *model);
int edgelstm_snapshot(const edgelstm_model *model, edgelstm_state *state, size_t stream, void *snapshot, size_t size);
int edgelstm_restore(const edgelstm_model *model, edgelstm_state *state, size_t stream, const void *snapshot,
                     size_t size);

/* Windows: what a model that was trained on T timesteps at a time answers to the last T inputs, every `hop` timesteps.
 *
 *     edgelstm_windows *windows;                            // T = 30, an answer every 5 timesteps
 *
 *     if (edgelstm_windows_init(&model, memory, sizeof memory, 1, 30, 5, 0, &windows)) ...
 *     for (;;) {
 *         edgelstm_windows_step(&model, windows, x, y, &due);
 *         if (due) ...                                      // y holds an answer: first for the timesteps 0 to 29
 *     }
 *
 * Window k covers the T timesteps from k * hop on, from zero state. ceil(T / hop) windows are in flight at a time, each
 * a state of its own, and an input advances all of them by one timestep while the weights are read once. The answers
 * are, to the last bit, those of edgelstm_run on a window's inputs behind edgelstm_reset, but no step takes the time of
 * T. Where `hop` is larger than T, the inputs between two windows are passed over; they must be finite all the same.
 *
 * An answer is due at timestep t, counted from 0, when t + 1 - T is a multiple of `hop` and not below 0. With `partial`
 * it may be below 0: until the first window is full, the answers are those to all inputs so far. */
typedef struct edgelstm_windows edgelstm_windows;

/* Bytes of memory for so many streams; 0 where `window` or `hop` is 0 or more than 2^32 - 1, or where that is more than
 * there can be. */
size_t edgelstm_windows_size(const edgelstm_model *model, size_t streams, size_t window, size_t hop);

/* Make windows of `streams` streams in `memory`, all of them before their first timestep. */
int edgelstm_windows_init(const edgelstm_model *model, void *memory, size_t size, size_t streams, size_t window,
                          size_t hop, int partial, edgelstm_windows **windows);

/* Back before the first timestep. */
int edgelstm_windows_reset(const edgelstm_model *model, edgelstm_windows *windows, size_t stream);

/* Timesteps of a stream since it was reset. */
int edgelstm_windows_steps(const edgelstm_model *model, edgelstm_windows *windows, size_t stream, uint64_t *steps);

/* As edgelstm_windows_reset, but as if so many timesteps, at most 2^62, had passed, of whose inputs nothing is known:
 * a window that began before gives no answer. So to continue where a stream was after s timesteps, seek s - n and
 * repeat the last n = min(s, T) of its inputs: what follows is the same to the last bit. */
int edgelstm_windows_seek(const edgelstm_model *model, edgelstm_windows *windows, size_t stream, uint64_t steps);

/* Answers that the next so many timesteps of a stream will give. */
int edgelstm_windows_answers(const edgelstm_model *model, edgelstm_windows *windows, size_t stream, size_t timesteps,
                             size_t *answers);

/* One timestep of stream 0: *due becomes 1 and y gets `outputs` floats, or *due becomes 0 and y stays as it was. */
int edgelstm_windows_step(const edgelstm_model *model, edgelstm_windows *windows, const float *x, float *y, int *due);

/* So many timesteps of stream 0. The answers that come due are written to ys, one row after another, of which there are
 * `room`, and *answers says how many they were. With too little room (EDGELSTM_TOO_SMALL; edgelstm_windows_answers
 * tells before), or if any input is not finite, no timestep is taken. */
int edgelstm_windows_run(const edgelstm_model *model, edgelstm_windows *windows, const float *xs, size_t timesteps,
                         float *ys, size_t room, size_t *answers);

/* One timestep of each of `count` streams, as edgelstm_fleet_step takes them; each is where it is in its own windows.
 * Where an answer is due, due[i] becomes 1 and row i of ys is written; where not, due[i] becomes 0 and the row stays as
 * it was. */
int edgelstm_windows_fleet_step(const edgelstm_model *model, edgelstm_windows *windows, const size_t *streams,
                                size_t count, const float *xs, float *ys, unsigned char *due);

/* Save a stream with all its windows in flight, and continue in windows of the same model, T and hop. */
size_t edgelstm_windows_snapshot_size(const edgelstm_model *model, edgelstm_windows *windows);
int edgelstm_windows_snapshot(const edgelstm_model *model, edgelstm_windows *windows, size_t stream, void *snapshot,
                              size_t size);
int edgelstm_windows_restore(const edgelstm_model *model, edgelstm_windows *windows, size_t stream,
                             const void *snapshot, size_t size);

#ifdef __cplusplus
}
#endif
#endif
