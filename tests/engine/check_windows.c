/* check_windows MODEL.elm GOLDEN.bin [KERNEL …]: on these kernels, or on every one that this processor has, windows in
 * flight answer when they should, and what a replay of the window answers, to the last bit: step by step, in runs, in
 * fleets, after a snapshot, after a seek and after refused inputs. Prints a line for each kernel and returns 0, or says
 * what differs and returns 1. GOLDEN.bin is what check_model takes; only its inputs are read. */
#include <math.h>
#include <string.h>

#include "check.h"

#define STREAMS 7
#define SENTINEL 0x5a

static const char *const kernels[] = KERNELS;
static const size_t shapes[][2] = {{1, 1}, {1, 4}, {7, 1}, {7, 3}, {7, 7}, {5, 9}, {30, 1}, {30, 7}, {30, 45}};

/* What is the same for one window and hop. `want` has what a replay answers at each timestep, `due` whether it should. */
typedef struct job {
    const edgelstm_model *model;
    const char *where;
    const float *xs;
    float *want;
    unsigned char *due;
    size_t count, features, outputs, window, hop;
    int partial;
} job;

static edgelstm_windows *new_windows(const job *j, size_t streams) {
    const size_t size = edgelstm_windows_size(j->model, streams, j->window, j->hop);
    edgelstm_windows *windows = NULL;
    unsigned char *memory = aligned(size);
    memset(memory, SENTINEL, size);
    if (edgelstm_windows_init(j->model, memory, size, streams, j->window, j->hop, j->partial, &windows)) exit(2);
    return windows;
}

static int failed(const job *j, const char *what, size_t at) {
    printf("%s, window %zu, hop %zu, partial %d: %s differs, timestep %zu\n", j->where, j->window, j->hop, j->partial,
           what, at);
    return 1;
}

/* Whether y is what timestep t should have written: an answer, or nothing. */
static int is_right(const job *j, size_t t, const float *y, int due) {
    if (due != j->due[t]) return 0;
    if (due) return memcmp(y, j->want + t * j->outputs, 4 * j->outputs) == 0;
    for (size_t i = 0; i < 4 * j->outputs; i++) {
        if (((const unsigned char *)y)[i] != SENTINEL) return 0;
    }
    return 1;
}

/* What should be: the definition, word for word, and a stream that is reset before every window. */
static void replay(job *j) {
    const size_t size = edgelstm_state_size(j->model, 1);
    edgelstm_state *state;
    void *memory = aligned(size);
    float *ys = aligned(4 * j->window * j->outputs);
    if (edgelstm_init(j->model, memory, size, 1, &state)) exit(2);
    for (size_t t = 0; t < j->count; t++) {
        const long long begin = (long long)t + 1 - (long long)j->window;
        const size_t first = begin < 0 ? 0 : (size_t)begin, length = t + 1 - first;
        j->due[t] = (begin >= 0 || j->partial) && begin % (long long)j->hop == 0;
        edgelstm_reset(j->model, state, 0);
        if (edgelstm_run(j->model, state, j->xs + first * j->features, length, ys)) exit(2);
        memcpy(j->want + t * j->outputs, ys + (length - 1) * j->outputs, 4 * j->outputs);
    }
    free(ys);
    free(memory);
}

static int check_steps(const job *j) {
    edgelstm_windows *windows = new_windows(j, 1);
    float *y = aligned(4 * j->outputs), *bad = aligned(4 * j->features);
    uint64_t steps;
    int due = -1;
    for (size_t turn = 0; turn < 2; turn++) { /* And again behind a reset. */
        for (size_t t = 0; t < j->count; t++) {
            memset(y, SENTINEL, 4 * j->outputs);
            memcpy(bad, j->xs + t * j->features, 4 * j->features);
            bad[t % j->features] = t % 2 ? NAN : -INFINITY;
            due = 7;
            if (edgelstm_windows_step(j->model, windows, bad, y, &due) != EDGELSTM_NOT_FINITE || due != 7)
                return failed(j, "a NaN's error", t);
            if (edgelstm_windows_step(j->model, windows, j->xs + t * j->features, y, &due))
                return failed(j, "a step's error", t);
            if (!is_right(j, t, y, due)) return failed(j, "a step", t);
        }
        if (edgelstm_windows_steps(j->model, windows, 0, &steps) || steps != j->count) return failed(j, "steps", steps);
        if (edgelstm_windows_reset(j->model, windows, 0)) return failed(j, "a reset's error", 0);
    }
    free(windows);
    free(y);
    free(bad);
    return 0;
}

/* The answers of timesteps from `begin` to before `end`, in runs of all lengths, each into just enough room. */
static int check_run(const job *j, edgelstm_windows *windows, size_t begin, size_t end) {
    for (size_t t = begin, chunk = 1; t < end; t += chunk, chunk = chunk * 3 % 23 + 1) {
        size_t answers = 0, got = 99, coming;
        if (chunk > end - t) chunk = end - t;
        for (size_t i = t; i < t + chunk; i++) answers += j->due[i];
        if (edgelstm_windows_answers(j->model, windows, 0, chunk, &coming) || coming != answers)
            return failed(j, "the number of answers to come", t);
        float *ys = aligned(4 * (answers ? answers : 1) * j->outputs);
        const float *xs = j->xs + t * j->features, *y = ys;
        if (answers && edgelstm_windows_run(j->model, windows, xs, chunk, ys, answers - 1, &got) != EDGELSTM_TOO_SMALL)
            return failed(j, "the error of too little room", t);
        if (edgelstm_windows_run(j->model, windows, xs, chunk, ys, answers, &got) || got != answers)
            return failed(j, "a run's number of answers", t);
        for (size_t i = t; i < t + chunk; i++) {
            if (!j->due[i]) continue;
            if (!is_right(j, i, y, 1)) return failed(j, "a run", i);
            y += j->outputs;
        }
        free(ys);
    }
    return 0;
}

static int check_runs(const job *j) {
    edgelstm_windows *windows = new_windows(j, 1), *other = new_windows(j, 2);
    const size_t size = edgelstm_windows_snapshot_size(j->model, windows), end = j->count;
    unsigned char *snapshot = aligned(size);
    float *ys = aligned(4 * end * j->outputs);
    if (check_run(j, windows, 0, end)) return 1;
    for (size_t t = 0; t <= end; t += t < 7 ? 1 + t % 3 : 20) {
        const size_t held = t < j->window ? t : j->window;
        size_t answers;
        if (edgelstm_windows_seek(j->model, windows, 0, t - held)) return failed(j, "a seek's error", t);
        if (edgelstm_windows_run(j->model, windows, j->xs + (t - held) * j->features, held, ys, end, &answers))
            return failed(j, "the error of a replay behind a seek", t);
        /* Only the last of them may answer, whose window begins with the first; from 0 on all do as ever. */
        size_t expected = t && j->due[t - 1];
        for (size_t i = 0; t == held && i + 1 < t; i++) expected += j->due[i];
        if (answers != expected) return failed(j, "the number of answers behind a seek", t);
        if (t && j->due[t - 1] && !is_right(j, t - 1, ys + (answers - 1) * j->outputs, 1))
            return failed(j, "the last answer behind a seek", t);
        /* To a snapshot, into a stream that is elsewhere. */
        if (edgelstm_windows_snapshot(j->model, windows, 0, snapshot, size)) return failed(j, "a snapshot's error", t);
        if (check_run(j, windows, t, end)) return failed(j, "behind a seek", t);
        if (edgelstm_windows_restore(j->model, other, 0, snapshot, size)) return failed(j, "a restore's error", t);
        if (check_run(j, other, t, end)) return failed(j, "behind a snapshot", t);
    }
    free(windows);
    free(other);
    free(snapshot);
    free(ys);
    return 0;
}

/* Stream i starts 5 i timesteps late, and every fourth starts again half-way. */
static int check_fleet(const job *j) {
    edgelstm_windows *windows = new_windows(j, STREAMS);
    const size_t row = 4 * j->outputs, again = j->count / 2;
    float *x = aligned(4 * STREAMS * j->features), *y = aligned(STREAMS * row);
    unsigned char due[STREAMS];
    size_t streams[STREAMS], at[STREAMS];
    for (size_t t = 0; t < j->count; t++) {
        size_t count = 0;
        for (size_t n = 0; n < STREAMS; n++) {
            const size_t i = (n * 3 + t) % STREAMS; /* In another order each time. */
            const size_t start = i % 4 == 0 && t >= again ? again : 5 * i;
            if (i % 4 == 0 && t == again) edgelstm_windows_reset(j->model, windows, i);
            if (t < start) continue;
            memcpy(x + count * j->features, j->xs + (t - start) * j->features, 4 * j->features);
            at[count] = t - start;
            streams[count++] = i;
        }
        memset(y, SENTINEL, STREAMS * row);
        const float last = x[count * j->features - 1];
        x[count * j->features - 1] = NAN;
        if (edgelstm_windows_fleet_step(j->model, windows, streams, count, x, y, due) != EDGELSTM_NOT_FINITE)
            return failed(j, "a fleet's NaN", t);
        x[count * j->features - 1] = last;
        memset(due, 9, sizeof due);
        if (edgelstm_windows_fleet_step(j->model, windows, streams, count, x, y, due))
            return failed(j, "a fleet's error", t);
        for (size_t k = 0; k < count; k++) {
            if (!is_right(j, at[k], y + k * j->outputs, due[k])) return failed(j, "a fleet's row", t);
        }
    }
    /* All of them, in order. */
    for (size_t i = 0; i < STREAMS; i++) {
        memcpy(x + i * j->features, j->xs, 4 * j->features);
        if (edgelstm_windows_reset(j->model, windows, i)) return failed(j, "a reset's error", i);
    }
    memset(y, SENTINEL, STREAMS * row);
    if (edgelstm_windows_fleet_step(j->model, windows, NULL, STREAMS, x, y, due)) return failed(j, "all streams", 0);
    for (size_t i = 0; i < STREAMS; i++) {
        if (!is_right(j, 0, y + i * j->outputs, due[i])) return failed(j, "all streams", i);
    }
    free(windows);
    free(x);
    free(y);
    return 0;
}

static int check(const edgelstm_model *model, const float *xs, size_t count) {
    job j = {model, edgelstm_kernel(model), xs, NULL, NULL, count, edgelstm_features(model), edgelstm_outputs(model),
             0, 0, 0};
    j.want = aligned(4 * count * j.outputs);
    j.due = aligned(count);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        j.window = shapes[i][0];
        j.hop = shapes[i][1];
        for (j.partial = 0; j.partial < 2; j.partial++) {
            replay(&j);
            if (check_steps(&j) || check_runs(&j) || check_fleet(&j)) return 1;
        }
    }
    printf("%s\n", j.where);
    return 0;
}

int main(int count, char **arguments) {
    size_t size, golden_size, ran = 0;
    uint32_t shape[3];
    edgelstm_model model;
    int status = 0;
    if (count < 3) return 2;
    const unsigned char *file = read_file(arguments[1], &size, 0), *golden = read_file(arguments[2], &golden_size, 0);
    memcpy(shape, golden, sizeof shape);
    float *xs = aligned(4 * (size_t)shape[0] * shape[1]);
    memcpy(xs, golden + 12, 4 * (size_t)shape[0] * shape[1]);
    if (edgelstm_open(&model, file, size) || edgelstm_features(&model) != shape[1]) return 2;
    const char *const *names = count > 3 ? (const char *const *)arguments + 3 : kernels;
    const size_t named = count > 3 ? (size_t)count - 3 : sizeof kernels / sizeof kernels[0];
    for (size_t k = 0; k < named; k++) {
        const int missing = edgelstm_use_kernel(&model, names[k]);
        if (missing && count > 3) {
            printf("%s is not there\n", names[k]);
            return 1;
        }
        if (missing) continue;
        status |= check(&model, xs, shape[0]);
        ran++;
    }
    return ran ? status : 1;
}
