/* Windows in flight: for every stream as many states as windows of it overlap, advanced together. */
#include "step.h"

#define WINDOWS_MAGIC 0x454c5357u
#define SNAPSHOT_MAGIC 0x57534c45u /* "ELSW" */
#define SNAPSHOT_HEAD 32
#define FURTHEST_SEEK ((uint64_t)1 << 62)

/* A stream's place. Nothing is known of the inputs before `origin`. */
typedef struct place {
    uint64_t steps, origin;
    uint32_t named; /* Used while a fleet's list of streams is checked. */
    uint32_t reserved[3];
} place;

struct edgelstm_windows {
    uint32_t magic, window, hop, slots;
    uint32_t first, last; /* Recurrent operations: from the first to behind the last; 0 and 0 where there are none. */
    uint32_t partial, reserved;
    uint64_t streams;
    place *places;
    edgelstm_state *state; /* Stream i's window k lies in stream i * slots + k % slots of it. */
};

#define WINDOWS_HEADER 64
typedef char windows_header_fits[sizeof(edgelstm_windows) <= WINDOWS_HEADER ? 1 : -1];

static uint32_t slots_of(size_t window, size_t hop) { return (uint32_t)((window - 1) / hop + 1); }

/* The header and the places. */
static uint64_t head_size(uint64_t streams) {
    return WINDOWS_HEADER + (streams * sizeof(place) + EDGELSTM_ALIGNMENT - 1) / EDGELSTM_ALIGNMENT * EDGELSTM_ALIGNMENT;
}

size_t edgelstm_windows_size(const edgelstm_model *model, size_t streams, size_t window, size_t hop) {
    if (window == 0 || hop == 0 || window > UINT32_MAX || hop > UINT32_MAX) return 0;
    const size_t slots = slots_of(window, hop);
    if (streams > SIZE_MAX / 2 / sizeof(place) || streams > SIZE_MAX / slots) return 0;
    const uint64_t states = edgelstm_state_size(model, streams * slots), head = head_size(streams);
    return states == 0 || states > SIZE_MAX - head ? 0 : (size_t)(head + states);
}

int edgelstm_windows_init(const edgelstm_model *model, void *memory, size_t size, size_t streams, size_t window,
                          size_t hop, int partial, edgelstm_windows **windows) {
    if (model == NULL || memory == NULL || windows == NULL || model->kernel == NULL) return EDGELSTM_NULL;
    *windows = NULL;
    if ((uintptr_t)memory % EDGELSTM_ALIGNMENT) return EDGELSTM_MISALIGNED;
    const size_t needed = edgelstm_windows_size(model, streams, window, hop);
    if (needed == 0) return EDGELSTM_RANGE;
    if (size < needed) return EDGELSTM_TOO_SMALL;
    const size_t head = (size_t)head_size(streams);
    memset(memory, 0, head);
    edgelstm_windows *made = (edgelstm_windows *)memory;
    made->window = (uint32_t)window;
    made->hop = (uint32_t)hop;
    made->slots = slots_of(window, hop);
    made->partial = partial != 0;
    made->streams = streams;
    made->places = (place *)(void *)((unsigned char *)memory + WINDOWS_HEADER);
    for (uint32_t i = 0; i < model->layers; i++) {
        if (!is_recurrent(layer_of(model, i))) continue;
        if (made->last == 0) made->first = i;
        made->last = i + 1;
    }
    const int error =
        edgelstm_init(model, (unsigned char *)memory + head, size - head, streams * made->slots, &made->state);
    if (error) return error;
    made->magic = WINDOWS_MAGIC;
    *windows = made;
    return EDGELSTM_OK;
}

static int check_windows(const edgelstm_model *model, const edgelstm_windows *windows) {
    if (model == NULL || windows == NULL || model->kernel == NULL) return EDGELSTM_NULL;
    return windows->magic == WINDOWS_MAGIC ? check_state(model, windows->state) : EDGELSTM_FOREIGN;
}

/* The same, and whether there is such a stream. */
static int check_stream(const edgelstm_model *model, const edgelstm_windows *windows, size_t stream) {
    const int error = check_windows(model, windows);
    if (error) return error;
    return stream < windows->streams ? EDGELSTM_OK : EDGELSTM_RANGE;
}

int edgelstm_windows_seek(const edgelstm_model *model, edgelstm_windows *windows, size_t stream, uint64_t steps) {
    const int error = check_stream(model, windows, stream);
    if (error) return error;
    if (steps > FURTHEST_SEEK) return EDGELSTM_RANGE;
    /* A window's state is set to zero when the window begins. */
    windows->places[stream].steps = windows->places[stream].origin = steps;
    return EDGELSTM_OK;
}

int edgelstm_windows_reset(const edgelstm_model *model, edgelstm_windows *windows, size_t stream) {
    return edgelstm_windows_seek(model, windows, stream, 0);
}

int edgelstm_windows_steps(const edgelstm_model *model, edgelstm_windows *windows, size_t stream, uint64_t *steps) {
    const int error = check_stream(model, windows, stream);
    if (error) return error;
    if (steps == NULL) return EDGELSTM_NULL;
    *steps = windows->places[stream].steps;
    return EDGELSTM_OK;
}

/* The windows that a stream's timestep t is of, from `first` to before `end`. */
static void windows_at(const edgelstm_windows *windows, const place *p, uint64_t t, uint64_t *first, uint64_t *end) {
    const uint64_t hop = windows->hop, known = p->origin / hop + (p->origin % hop != 0);
    *end = t / hop + 1;
    *first = t < windows->window ? 0 : (t - windows->window) / hop + 1;
    if (*first < known) *first = known;
}

/* Whether timestep t of a stream gives an answer, and which window's. */
static int is_due(const edgelstm_windows *windows, const place *p, uint64_t t, uint64_t *which) {
    const uint64_t seen = t + 1, T = windows->window;
    *which = 0;
    if (seen < T) return windows->partial && p->origin == 0 && (T - seen) % windows->hop == 0;
    *which = (seen - T) / windows->hop;
    return seen - T >= p->origin && (seen - T) % windows->hop == 0;
}

/* Multiples of `hop` from `low` to `high`. */
static uint64_t multiples(uint64_t low, uint64_t high, uint64_t hop) {
    return low > high ? 0 : high / hop - low / hop + (low % hop == 0);
}

/* Answers due from a stream's next timestep on, for so many of them. */
static uint64_t answers_of(const edgelstm_windows *windows, const place *p, uint64_t timesteps) {
    const uint64_t T = windows->window, begin = p->steps, most = UINT64_MAX - begin;
    const uint64_t end = begin + (timesteps < most ? timesteps : most), full = end < T ? end : T - 1;
    uint64_t answers = 0, low = begin + 1 > T ? begin + 1 - T : 0;
    if (timesteps == 0) return 0;
    if (low < p->origin) low = p->origin;
    if (end >= T) answers = multiples(low, end - T, windows->hop);
    if (windows->partial && p->origin == 0 && begin < full) answers += multiples(T - full, T - begin - 1, windows->hop);
    return answers;
}

int edgelstm_windows_answers(const edgelstm_model *model, edgelstm_windows *windows, size_t stream, size_t timesteps,
                             size_t *answers) {
    const int error = check_stream(model, windows, stream);
    if (error) return error;
    if (answers == NULL) return EDGELSTM_NULL;
    *answers = (size_t)answers_of(windows, &windows->places[stream], timesteps);
    return EDGELSTM_OK;
}

/* What goes through the layers together: windows of one stream or of several. */
typedef struct batch {
    tile t;
    uint32_t inputs; /* Rows of them, which all windows of a stream share. */
    const float *x[EDGELSTM_TILE];
    uint32_t input[EDGELSTM_TILE]; /* By window. */
    float *y[EDGELSTM_TILE];       /* Where its answer goes, or NULL where none is due. */
} batch;

/* All layers: those before the first recurrent one for every input, those behind the last for every answer. */
static void advance(const edgelstm_windows *windows, batch *b) {
    tile *const t = &b->t;
    const operation *const plan = windows->state->plan;
    const uint32_t n = t->n, first = windows->first, last = windows->last;
    const int frozen = t->frozen;
    uint32_t due = 0;
    if (n == 0) return;
    place_work(t);
    for (uint32_t i = 0; i < b->inputs; i++) t->b.row[i] = input_of(t, i, b->x[i]);
    t->n = b->inputs;
    t->frozen = 1; /* No state goes on in these layers. */
    edgelstm_forward(t, plan, first);
    for (uint32_t i = n; i-- > 0;) t->b.row[i] = t->b.row[b->input[i]]; /* b->input[i] <= i. */
    t->n = n;
    t->frozen = frozen;
    edgelstm_forward(t, plan + first, last - first);
    for (uint32_t i = 0; i < n; i++) {
        if (b->y[i] == NULL) continue;
        t->b.row[due] = t->b.row[i];
        b->y[due++] = b->y[i];
    }
    t->n = due;
    t->frozen = 1;
    if (due) edgelstm_forward(t, plan + last, windows->state->operations - last);
    for (uint32_t i = 0; i < due; i++) memcpy(b->y[i], t->b.row[i], 4 * (size_t)t->model->outputs);
    t->n = b->inputs = 0;
    t->frozen = frozen;
}

/* Put the windows of a stream's timestep into the batch, and what is full through the layers. */
static void take(const edgelstm_windows *windows, batch *b, size_t stream, const float *x, float *y) {
    const place *const p = &windows->places[stream];
    uint64_t k, end, answer;
    int fresh = 1;
    if (!is_due(windows, p, p->steps, &answer)) y = NULL;
    for (windows_at(windows, p, p->steps, &k, &end); k < end; k++) {
        struct stream *const s = stream_of(windows->state, stream * windows->slots + (size_t)(k % windows->slots));
        if (k * windows->hop == p->steps) memset(s, 0, (size_t)windows->state->stream_size);
        if (fresh) b->x[b->inputs++] = x;
        b->input[b->t.n] = b->inputs - 1;
        b->t.streams[b->t.n] = s;
        b->y[b->t.n] = k == answer ? y : NULL;
        fresh = ++b->t.n == windows->state->tile;
        if (fresh) advance(windows, b);
    }
}

/* One timestep of each of the streams, whose inputs are known to be finite. */
static void step(const edgelstm_model *model, edgelstm_windows *windows, const size_t *streams, size_t count,
                 const float *xs, float *ys, unsigned char *due) {
    batch b;
    b.t.model = model;
    b.t.state = windows->state;
    b.t.k = (const kernel *)model->kernel;
    b.t.n = b.inputs = 0;
    /* First the streams that go on, then those whose timestep is masked. */
    for (b.t.frozen = 0; b.t.frozen <= (model->masked ? 1 : 0); b.t.frozen++) {
        for (size_t i = 0; i < count; i++) {
            const float *x = xs + i * model->features;
            if (is_masked(model, x) == b.t.frozen)
                take(windows, &b, streams == NULL ? i : streams[i], x, ys + i * model->outputs);
        }
        advance(windows, &b);
    }
    for (size_t i = 0; i < count; i++) {
        place *const p = &windows->places[streams == NULL ? i : streams[i]];
        uint64_t which;
        due[i] = (unsigned char)is_due(windows, p, p->steps, &which);
        p->steps++;
    }
}

int edgelstm_windows_step(const edgelstm_model *model, edgelstm_windows *windows, const float *x, float *y, int *due) {
    unsigned char answered = 0;
    const int error = check_windows(model, windows);
    if (error) return error;
    if (x == NULL || y == NULL || due == NULL) return EDGELSTM_NULL;
    float_mode callers;
    enter_float_mode(&callers);
    const int finite = are_finite(model, x, 1);
    if (finite) step(model, windows, NULL, 1, x, y, &answered);
    leave_float_mode(&callers);
    if (finite) *due = answered;
    return finite ? EDGELSTM_OK : EDGELSTM_NOT_FINITE;
}

int edgelstm_windows_run(const edgelstm_model *model, edgelstm_windows *windows, const float *xs, size_t timesteps,
                         float *ys, size_t room, size_t *answers) {
    unsigned char due;
    const int error = check_windows(model, windows);
    if (error) return error;
    if (answers == NULL) return EDGELSTM_NULL;
    const uint64_t coming = answers_of(windows, windows->places, timesteps);
    if (timesteps && (xs == NULL || ys == NULL)) return EDGELSTM_NULL;
    if (coming > room) return EDGELSTM_TOO_SMALL;
    float_mode callers;
    enter_float_mode(&callers);
    const int finite = are_finite(model, xs, timesteps);
    for (size_t t = 0; finite && t < timesteps; t++) {
        step(model, windows, NULL, 1, xs + t * model->features, ys, &due);
        if (due) ys += model->outputs;
    }
    leave_float_mode(&callers);
    if (finite) *answers = (size_t)coming;
    return finite ? EDGELSTM_OK : EDGELSTM_NOT_FINITE;
}

int edgelstm_windows_fleet_step(const edgelstm_model *model, edgelstm_windows *windows, const size_t *streams,
                                size_t count, const float *xs, float *ys, unsigned char *due) {
    size_t marked = 0;
    const int error = check_windows(model, windows);
    if (error) return error;
    if (count == 0) return EDGELSTM_OK;
    if (xs == NULL || ys == NULL || due == NULL) return EDGELSTM_NULL;
    if (count > windows->streams) return EDGELSTM_RANGE;
    if (streams != NULL) { /* Each number once, and each a stream's; the marks are gone afterwards. */
        for (; marked < count; marked++) {
            if (streams[marked] >= windows->streams || windows->places[streams[marked]].named) break;
            windows->places[streams[marked]].named = 1;
        }
        for (size_t i = 0; i < marked; i++) windows->places[streams[i]].named = 0;
        if (marked < count) return EDGELSTM_RANGE;
    }
    float_mode callers;
    enter_float_mode(&callers);
    const int finite = are_finite(model, xs, count);
    if (finite) step(model, windows, streams, count, xs, ys, due);
    leave_float_mode(&callers);
    return finite ? EDGELSTM_OK : EDGELSTM_NOT_FINITE;
}

/* A snapshot: magic, the model's checksum, window, hop, steps, origin, then the state of every window in flight, in
 * order of their places, with zeros where none is, and a CRC-32 of it all. */
typedef struct snapshot_head {
    uint32_t magic, checksum, window, hop;
    uint64_t steps, origin;
} snapshot_head;

typedef char snapshot_head_fits[sizeof(snapshot_head) == SNAPSHOT_HEAD ? 1 : -1];

/* Of one state in it. */
static size_t each_size(const edgelstm_model *model) { return edgelstm_snapshot_size(model) - 12; }

size_t edgelstm_windows_snapshot_size(const edgelstm_model *model, edgelstm_windows *windows) {
    return check_windows(model, windows) ? 0 : SNAPSHOT_HEAD + windows->slots * each_size(model) + 4;
}

/* All windows in flight, to or from the bytes at `at`. */
static void copy_windows(const edgelstm_model *model, const edgelstm_windows *windows, size_t stream, unsigned char *at,
                         int restore) {
    const place *const p = &windows->places[stream];
    uint64_t k, end;
    if (p->steps == 0) return; /* None has begun. The last timestep's windows are in flight, or full. */
    for (windows_at(windows, p, p->steps - 1, &k, &end); k < end; k++) {
        const size_t slot = (size_t)(k % windows->slots);
        struct stream *const s = stream_of(windows->state, stream * windows->slots + slot);
        edgelstm_copy_state(model, s, at + slot * each_size(model), restore);
    }
}

int edgelstm_windows_snapshot(const edgelstm_model *model, edgelstm_windows *windows, size_t stream, void *snapshot,
                              size_t size) {
    const int error = check_windows(model, windows);
    if (error) return error;
    if (snapshot == NULL) return EDGELSTM_NULL;
    if (stream >= windows->streams) return EDGELSTM_RANGE;
    const size_t needed = edgelstm_windows_snapshot_size(model, windows);
    if (size < needed) return EDGELSTM_TOO_SMALL;
    unsigned char *bytes = (unsigned char *)snapshot;
    const place *const p = &windows->places[stream];
    const snapshot_head head = {SNAPSHOT_MAGIC, model->checksum, windows->window, windows->hop, p->steps, p->origin};
    memset(bytes, 0, needed);
    memcpy(bytes, &head, sizeof head);
    copy_windows(model, windows, stream, bytes + sizeof head, 0);
    const uint32_t checksum = edgelstm_crc32(bytes, needed - 4);
    memcpy(bytes + needed - 4, &checksum, 4);
    return EDGELSTM_OK;
}

int edgelstm_windows_restore(const edgelstm_model *model, edgelstm_windows *windows, size_t stream,
                             const void *snapshot, size_t size) {
    const int error = check_windows(model, windows);
    if (error) return error;
    if (snapshot == NULL) return EDGELSTM_NULL;
    if (stream >= windows->streams) return EDGELSTM_RANGE;
    if (size != edgelstm_windows_snapshot_size(model, windows)) return EDGELSTM_FOREIGN;
    unsigned char *bytes = (unsigned char *)(uintptr_t)snapshot; /* Only read: edgelstm_copy_state goes both ways. */
    snapshot_head head;
    uint32_t checksum;
    memcpy(&head, bytes, sizeof head);
    memcpy(&checksum, bytes + size - 4, 4);
    if (head.magic != SNAPSHOT_MAGIC || head.checksum != model->checksum) return EDGELSTM_FOREIGN;
    if (head.window != windows->window || head.hop != windows->hop) return EDGELSTM_FOREIGN;
    if (checksum != edgelstm_crc32(bytes, size - 4)) return EDGELSTM_DAMAGED;
    if (head.origin > head.steps || head.steps > 2 * FURTHEST_SEEK) return EDGELSTM_DAMAGED;
    windows->places[stream].steps = head.steps;
    windows->places[stream].origin = head.origin;
    copy_windows(model, windows, stream, bytes + sizeof head, 1);
    return EDGELSTM_OK;
}
