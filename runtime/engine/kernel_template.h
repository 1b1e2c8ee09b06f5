/* A kernel, in terms of a vector type that the including file defines:
 *
 *   V, VW          a vector of floats, and how many
 *   v_set1 v_load v_store v_add v_sub v_mul v_div v_fma v_min v_max
 *                  v_load(p, lanes) and v_store take the lanes that count, where V is wider than a block;
 *                  v_min(limit, x) and v_max(limit, x) give NaN where x is NaN
 *   v_half(p, lanes)  the same from 16-bit floats
 *   v_round(x), v_pow2(n, p)  to the nearest whole number; p · 2^n
 *   v_any_nan(x)  whether any lane is NaN
 *   dot_int8(...)  sums += row scales · scale of the inputs · (inputs · weights), all in integers but the scaling
 *   quantize_row(x, n, q)  makes what dot_int8 reads
 *   SINGLE, FLEET, FLEET_VECTORS  vectors of a block that share registers for one stream; streams that do, and vectors
 *   DELAY(precision)  whether a block's activations come behind the next block's sums
 *   SMALL  whether code shall be small: no copies of it for both widths of blocks
 *   KERNEL, KERNEL_NAME  the kernel to define
 *
 * The order of summation of an output is the same whatever the number of streams: bias, a, b. So a fleet's rows equal
 * single streams to the last bit.
 */

static INLINE unsigned single_vectors(unsigned lanes) {
    const unsigned all = lanes < VW ? 1 : lanes / VW;
    return all < SINGLE ? all : SINGLE;
}

/* ---- Activations ----
 * exp(x) = 2^n · 2^r with n whole and |r| ≤ 1/2, and a polynomial of least relative error for 2^r (7.5e-8), or for
 * (2^r - 1) / r (1.1e-8), which keeps tanh accurate near zero. Both found by iterated weighted least squares. */

static INLINE V exp_of(V t) { /* 2^t */
    const V n = v_round(t), r = v_sub(t, n), r2 = v_mul(r, r);
    const V low = v_fma(v_set1(0.693146967f), r, v_set1(1.00000007f));
    const V middle = v_fma(v_set1(0.0555071327f), r, v_set1(0.240221197f));
    const V high = v_fma(v_set1(0.00132764719f), r, v_set1(0.00967554133f));
    return v_pow2(n, v_fma(v_fma(high, r2, middle), r2, low));
}

static INLINE V expm1_of(V t) { /* 2^t - 1 */
    const V n = v_round(t), r = v_sub(t, n), r2 = v_mul(r, r);
    const V low = v_fma(v_set1(0.240226498f), r, v_set1(0.693147188f));
    const V middle = v_fma(v_set1(0.00961823749f), r, v_set1(0.0555035743f));
    const V high = v_fma(v_set1(0.000154035127f), r, v_set1(0.00133907355f));
    const V q = v_mul(v_fma(v_fma(high, r2, middle), r2, low), r), two_n = v_pow2(n, v_set1(1.0f));
    return v_fma(two_n, q, v_sub(two_n, v_set1(1.0f)));
}

/* Beyond these the functions are what they are there, within 1e-12 and 1e-8; products of three stay finite. */
static INLINE V sigmoid_exp(V x) { /* exp(-x) */
    const V limited = v_min(v_set1(28.0f), v_max(v_set1(-28.0f), x));
    return exp_of(v_mul(limited, v_set1(-1.44269504f)));
}

static INLINE V tanh_expm1(V x) { /* exp(2x) - 1 */
    const V limited = v_min(v_set1(9.2f), v_max(v_set1(-9.2f), x));
    return expm1_of(v_mul(limited, v_set1(2.88539008f)));
}

static INLINE V sigmoid_of(V x) { return v_div(v_set1(1.0f), v_add(v_set1(1.0f), sigmoid_exp(x))); }

static INLINE V tanh_of(V x) {
    const V e = tanh_expm1(x);
    return v_div(e, v_add(e, v_set1(2.0f)));
}

/* An LSTM's next c from its sums, and what divides the next h. With e = exp(-x) for the sigmoids and g = exp(2x) - 1 for
 * tanh, f·c + i·tanh = (c·(1 + ei)·(g + 2) + g·(1 + ef)) / ((1 + ef)·(1 + ei)·(g + 2)): one division in place of three. */
static INLINE V lstm_c(V i, V f, V g, V o, V c, V *divisor) {
    const V one = v_set1(1.0f), eg = tanh_expm1(g);
    const V pi = v_add(one, sigmoid_exp(i)), pf = v_add(one, sigmoid_exp(f)), input = v_mul(pi, v_add(eg, v_set1(2.0f)));
    *divisor = v_add(one, sigmoid_exp(o));
    return v_div(v_fma(c, input, v_mul(eg, pf)), v_mul(pf, input));
}

/* Its next h, tanh(c) / divisor. */
static INLINE V lstm_h(V c, V divisor) {
    const V e = tanh_expm1(c);
    return v_div(e, v_mul(divisor, v_add(e, v_set1(2.0f))));
}

static INLINE void lstm_cell(V i, V f, V g, V o, float *c_at, float *h_at, unsigned lanes) {
    V divisor;
    const V c = lstm_c(i, f, g, o, v_load(c_at, lanes), &divisor);
    v_store(c_at, c, lanes);
    v_store(h_at, lstm_h(c, divisor), lanes);
}

/* ---- Products ---- */

typedef struct sums {
    V of[FLEET][4][MAX_VECTORS]; /* stream, gate, vector */
} sums;

/* Chains of additions that an output's sum is made of, side by side so that one need not wait for the last: as many
 * as it takes where few gates give little else to do. */
static INLINE unsigned chains_of(unsigned gates) { return SMALL ? 1 : gates == 1 ? 4 : gates == 2 ? 2 : 1; }

/* sums += rows · weights, of `vectors` of a block of `lanes` from lane `first` on. */
static INLINE void dot_float(const unsigned char *w, int half, unsigned lanes, unsigned gates, unsigned first,
                             unsigned vectors, unsigned streams, const float *const *x, uint32_t inputs, sums *s) {
    const size_t row = (size_t)lanes * gates;
    const unsigned chains = chains_of(gates);
    sums other[3];
    uint32_t k = 0;
#ifdef DOT_FLOAT
    if (streams == 1 && vectors == 1) {
        DOT_FLOAT(w, half, lanes, gates, first, x[0], inputs, s->of[0]);
        return;
    }
#endif
#ifdef DOT_HALF
    if (half && streams == 1 && chains == 1) {
        DOT_HALF((const uint16_t *)(const void *)w, lanes, gates, x[0], inputs, s->of[0]);
        return;
    }
#endif
#define ONE_ROW(K, TO)                                                                                               \
    {                                                                                                                \
        V values[FLEET];                                                                                             \
        UNROLL EACH(n, streams) values[n] = v_set1(x[n][K]);                                                         \
        UNROLL EACH(g, gates) {                                                                                      \
            UNROLL EACH(v, vectors) {                                                                                \
                const void *at = w + ((size_t)(K) * row + g * lanes + first + v * VW) * (half ? 2 : 4);              \
                const V weights = half ? v_half((const uint16_t *)at, lanes) : v_load((const float *)at, lanes);     \
                UNROLL EACH(n, streams)(TO)->of[n][g][v] = v_fma(values[n], weights, (TO)->of[n][g][v]);             \
            }                                                                                                        \
        }                                                                                                            \
    }
    if (chains > 1) {
        UNROLL EACH(c, chains - 1) {
            UNROLL EACH(n, streams) {
                UNROLL EACH(g, gates) {
                    UNROLL EACH(v, vectors) other[c].of[n][g][v] = v_set1(0.0f);
                }
            }
        }
        for (; k + chains <= inputs; k += chains) {
            ONE_ROW(k, s)
            UNROLL EACH(c, chains - 1) ONE_ROW(k + c + 1, &other[c])
        }
    }
    for (; k < inputs; k++) ONE_ROW(k, s)
#undef ONE_ROW
    if (chains > 1) {
        UNROLL EACH(c, chains - 1) {
            UNROLL EACH(n, streams) {
                UNROLL EACH(g, gates) {
                    UNROLL EACH(v, vectors) s->of[n][g][v] = v_add(s->of[n][g][v], other[c].of[n][g][v]);
                }
            }
        }
    }
}

/* What is of an input row in a block's sums. */
enum { STATE_PART, INPUT_PART };

/* sums += part of a block, `vectors` of it from lane `first` on, for `streams` streams from `n` on; `bias` starts it. */
static INLINE void add_part(const matrix *m, const unsigned char *block, int part, unsigned precision, unsigned lanes,
                            unsigned gates, unsigned first, unsigned vectors, unsigned streams, uint32_t n,
                            const rows *x, sums *s) {
    const float *bias = (const float *)(const void *)block;
    const size_t row = (size_t)lanes * gates;
    const uint32_t inputs = part == STATE_PART ? m->a : m->b;
    if (part == STATE_PART) {
        UNROLL EACH(i, streams) {
            UNROLL EACH(g, gates) {
                UNROLL EACH(v, vectors) s->of[i][g][v] = v_load(bias + g * lanes + first + v * VW, lanes);
            }
        }
    }
    if (inputs == 0) return;
    if (precision == ELM_INT8) {
        const unsigned char *w = block + 12 * row + (part == STATE_PART ? 0 : row * round_up(m->a, 4));
        const float *scales = bias + (part == STATE_PART ? 1 : 2) * row;
        UNROLL EACH(i, streams) dot_int8(w, lanes, gates, first, vectors, &x->q[n + i], inputs, scales, s->of[i]);
    } else {
        const int half = precision == ELM_FLOAT16;
        const unsigned char *w = block + 4 * row + (part == STATE_PART ? 0 : row * m->a * (half ? 2 : 4));
        dot_float(w, half, lanes, gates, first, vectors, streams, x->row + n, inputs, s);
    }
}

/* The whole sums of a block. */
static INLINE void block_sums(const matrix *m, const unsigned char *block, unsigned precision, unsigned lanes,
                              unsigned gates, unsigned first, unsigned vectors, unsigned streams, uint32_t n,
                              const rows *a, const rows *b, sums *s) {
    add_part(m, block, STATE_PART, precision, lanes, gates, first, vectors, streams, n, a, s);
    add_part(m, block, INPUT_PART, precision, lanes, gates, first, vectors, streams, n, b, s);
}

/* One block for all streams: FLEET at a time, and the rest one by one. */
#define FOR_STREAMS(STREAMS, VECTORS, BODY)                                                                          \
    for (; i + (STREAMS) <= n; i += (STREAMS)) {                                                                     \
        for (unsigned first = 0; first < lanes; first += (VECTORS) * VW) {                                           \
            sums s;                                                                                                  \
            block_sums(m, block, precision, lanes, gates, first, (VECTORS), (STREAMS), i, a, b, &s);                 \
            UNROLL EACH(j, (STREAMS)) {                                                                              \
                UNROLL EACH(v, (VECTORS)) {                                                                          \
                    const size_t at = unit + first + v * VW;                                                         \
                    V(*const of)[MAX_VECTORS] = s.of[j];                                                             \
                    float *const *const to = &out[i + j];                                                            \
                    BODY                                                                                             \
                }                                                                                                    \
            }                                                                                                        \
        }                                                                                                            \
    }

static INLINE void product_block(const matrix *m, const unsigned char *block, unsigned precision, unsigned lanes,
                                 unsigned gates, uint32_t unit, uint32_t n, const rows *a, const rows *b,
                                 float *const *out, size_t stride) {
    uint32_t i = 0;
#define STORE UNROLL EACH(g, gates) v_store(*to + g * stride + at, of[g][v], lanes);
    if (precision != ELM_INT8 && FLEET > 1) FOR_STREAMS(FLEET, FLEET_VECTORS, STORE)
    FOR_STREAMS(1, single_vectors(lanes), STORE)
#undef STORE
}

static INLINE void lstm_block(const matrix *m, const unsigned char *block, unsigned precision, unsigned lanes,
                              uint32_t unit, uint32_t n, const rows *a, const rows *b, float *const *c,
                              float *const *out) {
    const unsigned gates = 4;
    uint32_t i = 0;
#define CELL lstm_cell(of[0][v], of[1][v], of[2][v], of[3][v], c[i + j] + at, *to + at, lanes);
    if (precision != ELM_INT8 && FLEET > 1) FOR_STREAMS(FLEET, FLEET_VECTORS, CELL)
    FOR_STREAMS(1, single_vectors(lanes), CELL)
#undef CELL
}

static INLINE void product_matrix(const matrix *m, unsigned precision, unsigned gates, uint32_t n, const rows *a,
                                  const rows *b, float *const *z, size_t stride) {
    const unsigned char *block = m->data;
    uint32_t unit = 0;
#if SMALL
    for (; unit < m->units; block += block_size(m, block_lanes(m->units, unit)), unit += 16)
        product_block(m, block, precision, block_lanes(m->units, unit), gates, unit, n, a, b, z, stride);
#else
    for (; unit + 8 < m->units; unit += 16, block += m->block)
        product_block(m, block, precision, 16, gates, unit, n, a, b, z, stride);
    if (unit < m->units) product_block(m, block, precision, 8, gates, unit, n, a, b, z, stride);
#endif
}

#if SINGLE * VW >= 16
#define TO_C(UNIT, LANES)                                                                                            \
    UNROLL EACH(v, single_vectors(LANES)) {                                                                          \
        state[v] = v_load(c + (UNIT) + v * VW, LANES);                                                               \
        state[v] = lstm_c(z[0][v], z[1][v], z[2][v], z[3][v], state[v], &divisor[v]);                                \
        v_store(c + (UNIT) + v * VW, state[v], LANES);                                                               \
    }
#define TO_H(UNIT, LANES)                                                                                            \
    UNROLL EACH(v, single_vectors(LANES)) v_store(h + (UNIT) + v * VW, lstm_h(state[v], divisor[v]), LANES);
#define SUMS(LANES)                                                                                                  \
    sums s;                                                                                                          \
    add_part(m, block, STATE_PART, precision, LANES, 4, 0, single_vectors(LANES), 1, 0, a, &s);                      \
    if (DELAY(precision) && unit) TO_C(unit - 16, 16)                                                                \
    add_part(m, block, INPUT_PART, precision, LANES, 4, 0, single_vectors(LANES), 1, 0, b, &s);                      \
    if (DELAY(precision) && unit) TO_H(unit - 16, 16)                                                                \
    UNROLL EACH(g, 4) {                                                                                              \
        UNROLL EACH(v, single_vectors(LANES)) z[g][v] = s.of[0][g][v];                                               \
    }

/* One stream. Activations right behind the sums that they need keep the processor from reading ahead; where reading is
 * not what takes the time anyway, DELAY puts them between and behind the next block's sums. */
static INLINE void lstm_single(const matrix *m, unsigned precision, const rows *a, const rows *b, float *c, float *h) {
    const unsigned char *block = m->data;
    V z[4][MAX_VECTORS], state[MAX_VECTORS], divisor[MAX_VECTORS];
    uint32_t unit = 0;
    UNROLL EACH(v, MAX_VECTORS) {
        UNROLL EACH(g, 4) z[g][v] = v_set1(0.0f); /* Or compilers see them used unset. */
        state[v] = divisor[v] = v_set1(0.0f);
    }
    for (; unit + 8 < m->units; unit += 16, block += m->block) {
        SUMS(16)
        if (!DELAY(precision)) {
            TO_C(unit, 16)
            TO_H(unit, 16)
        }
    }
    if (unit < m->units) {
        SUMS(8)
        TO_C(unit, 8)
        TO_H(unit, 8)
    } else if (DELAY(precision)) {
        TO_C(unit - 16, 16)
        TO_H(unit - 16, 16)
    }
}
#undef SUMS
#undef TO_H
#undef TO_C
#endif

static INLINE void lstm_matrix(const matrix *m, unsigned precision, uint32_t n, const rows *a, const rows *b,
                               float *const *c, float *const *h) {
    const unsigned char *block = m->data;
    uint32_t unit = 0;
#if SMALL
    for (; unit < m->units; block += block_size(m, block_lanes(m->units, unit)), unit += 16)
        lstm_block(m, block, precision, block_lanes(m->units, unit), unit, n, a, b, c, h);
#else
    for (; unit + 8 < m->units; unit += 16, block += m->block)
        lstm_block(m, block, precision, 16, unit, n, a, b, c, h);
    if (unit < m->units) lstm_block(m, block, precision, 8, unit, n, a, b, c, h);
#endif
}

static void product(const matrix *m, uint32_t n, const rows *a, const rows *b, float *const *z, size_t stride) {
    switch (m->precision * 4 + m->gates) { /* Each its own copy, in which both are constants. */
#define CASE(PRECISION, GATES)                                                                                       \
    case PRECISION * 4 + GATES: product_matrix(m, PRECISION, GATES, n, a, b, z, stride); break;
#define CASES(PRECISION) CASE(PRECISION, 1) CASE(PRECISION, 2) CASE(PRECISION, 3) CASE(PRECISION, 4)
#if HAS_FLOAT32
        CASES(ELM_FLOAT32)
#endif
#if HAS_FLOAT16
        CASES(ELM_FLOAT16)
#endif
#if HAS_INT8
        CASES(ELM_INT8)
#endif
#undef CASES
#undef CASE
        default: break;
    }
}

/* Functions of their own, so that compilers find registers for one loop at a time. */
#if SINGLE * VW >= 16
#define SINGLES(NAME, PRECISION)                                                                                     \
    static NOINLINE void NAME(const matrix *m, const rows *a, const rows *b, float *c, float *h) {                   \
        lstm_single(m, PRECISION, a, b, c, h);                                                                       \
    }
SINGLES(lstm_float32, ELM_FLOAT32)
SINGLES(lstm_float16, ELM_FLOAT16)
SINGLES(lstm_int8, ELM_INT8)
#endif

static void lstm(const matrix *m, uint32_t n, const rows *a, const rows *b, float *const *c, float *const *h) {
#if SINGLE * VW >= 16
    if (n == 1) {
        if (m->precision == ELM_FLOAT32) lstm_float32(m, a, b, *c, *h);
        else if (m->precision == ELM_FLOAT16) lstm_float16(m, a, b, *c, *h);
        else lstm_int8(m, a, b, *c, *h);
        return;
    }
#endif
    if (HAS_FLOAT32 && m->precision == ELM_FLOAT32) lstm_matrix(m, ELM_FLOAT32, n, a, b, c, h);
    if (HAS_FLOAT16 && m->precision == ELM_FLOAT16) lstm_matrix(m, ELM_FLOAT16, n, a, b, c, h);
    if (HAS_INT8 && m->precision == ELM_INT8) lstm_matrix(m, ELM_INT8, n, a, b, c, h);
}

/* ---- Rows: the library's own have room for a multiple of 16 values ---- */

static void sigmoid_row(float *x, size_t n) {
    for (size_t i = 0; i < n; i += VW) v_store(x + i, sigmoid_of(v_load(x + i, 16)), 16);
}

static void tanh_row(float *x, size_t n) {
    for (size_t i = 0; i < n; i += VW) v_store(x + i, tanh_of(v_load(x + i, 16)), 16);
}

static void gru_row(size_t n, const float *z, const float *candidate, const float *last, float *h) {
    for (size_t i = 0; i < n; i += VW) {
        const V zi = v_load(z + i, 16), rest = v_mul(v_sub(v_set1(1.0f), zi), v_load(candidate + i, 16));
        v_store(h + i, v_fma(zi, v_load(last + i, 16), rest), 16);
    }
}

/* The caller's rows have not, so this reads no further than n. Zero times anything finite is zero. */
static int is_finite_row(const float *x, size_t n) {
    V total = v_set1(0.0f);
    float rest = 0.0f;
    size_t i = 0;
    for (; i + VW <= n; i += VW) total = v_fma(v_set1(0.0f), v_load(x + i, 16), total);
#if VW == 16
    if (i < n) total = v_fma(v_set1(0.0f), v_load(x + i, (unsigned)(n - i)), total);
#else
    for (; i < n; i++) rest += times(0.0f, x[i]);
#endif
    return !v_any_nan(total) && rest == 0.0f;
}

const kernel KERNEL = {KERNEL_NAME, product, lstm, quantize_row, sigmoid_row, tanh_row, gru_row, is_finite_row};
