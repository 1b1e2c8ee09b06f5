/* A kernel, in terms of a vector type that the including file defines:
 *
 *   V, VW          a vector of floats, and how many
 *   v_set1 v_load v_store v_add v_sub v_mul v_div v_fma v_min v_max
 *                  v_load(p, lanes) and v_store take the lanes that count, where V is wider than a block;
 *                  v_min(limit, x) and v_max(limit, x) give NaN where x is NaN
 *   v_half(p, lanes)  the same from 16-bit floats
 *   v_round(x), v_pow2(n, p)  to the nearest whole number; p · 2^n
 *   dot_int8(...)  sums += row scales · scale of the inputs · (inputs · weights), all in integers but the scaling
 *   quantize_row(x, n, q)  makes what dot_int8 reads
 *   SINGLE, FLEET, FLEET_VECTORS  vectors of a block that share registers for one stream; streams that do, and vectors
 *   BLOCKS_AT_ONCE  blocks of an LSTM that share registers for one stream
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

/* An LSTM's next c and h from its four sums. With e = exp(-x) for the sigmoids and g = exp(2x) - 1 for tanh,
 * f·c + i·tanh = (c·(1 + ei)·(g + 2) + g·(1 + ef)) / ((1 + ef)·(1 + ei)·(g + 2)): one division in place of three. */
static INLINE void lstm_cell(V i, V f, V g, V o, float *c_at, float *h_at, unsigned lanes) {
    const V one = v_set1(1.0f), two = v_set1(2.0f);
    const V pi = v_add(one, sigmoid_exp(i)), pf = v_add(one, sigmoid_exp(f)), po = v_add(one, sigmoid_exp(o));
    const V eg = tanh_expm1(g), input = v_mul(pi, v_add(eg, two));
    const V c = v_div(v_fma(v_load(c_at, lanes), input, v_mul(eg, pf)), v_mul(pf, input));
    const V ec = tanh_expm1(c), h = v_div(ec, v_mul(po, v_add(ec, two)));
    v_store(c_at, c, lanes);
    v_store(h_at, h, lanes);
}

/* ---- Products ---- */

typedef struct sums {
    V of[FLEET][4][MAX_VECTORS]; /* stream, gate, vector */
} sums;

/* Chains of additions that an output's sum is made of, side by side so that one need not wait for the last: as many
 * as it takes where few gates give little else to do. */
static INLINE unsigned chains_of(unsigned gates) { return SMALL ? 1 : gates == 1 ? 4 : gates == 2 ? 2 : 1; }

/* Where vector v lies behind vector 0, in bytes: `each` apart, or in as many whole blocks, where these are given. */
static INLINE size_t behind(unsigned v, size_t each, size_t block) { return v * (block ? block : each * VW); }

/* sums += rows · weights. `lanes` is the block's width, of which `vectors` from lane `first` on are computed; or, with
 * the size of a block, the first vectors of so many blocks. */
static INLINE void dot_float(const unsigned char *w, int half, unsigned lanes, unsigned gates, unsigned first,
                             unsigned vectors, size_t block, unsigned streams, const float *const *x, uint32_t inputs,
                             sums *s) {
    const size_t row = (size_t)lanes * gates;
    const unsigned chains = chains_of(gates);
    sums other[3];
    uint32_t k = 0;
#define ONE_ROW(K, TO)                                                                                               \
    {                                                                                                                \
        V weights[4][MAX_VECTORS];                                                                                   \
        UNROLL EACH(g, gates) {                                                                                      \
            UNROLL EACH(v, vectors) {                                                                                \
                const unsigned char *at =                                                                            \
                    w + ((size_t)(K) * row + g * lanes + first) * (half ? 2 : 4) + behind(v, half ? 2 : 4, block);   \
                weights[g][v] = half ? v_half((const uint16_t *)(const void *)at, lanes)                             \
                                     : v_load((const float *)(const void *)at, lanes);                               \
            }                                                                                                        \
        }                                                                                                            \
        UNROLL EACH(n, streams) {                                                                                    \
            const V value = v_set1(x[n][K]);                                                                         \
            UNROLL EACH(g, gates) {                                                                                  \
                UNROLL EACH(v, vectors)(TO)->of[n][g][v] = v_fma(value, weights[g][v], (TO)->of[n][g][v]);           \
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

/* The sums of a block, `vectors` of it from lane `first` on, for `streams` streams from `n` on; or of several blocks,
 * as above. */
static INLINE void block_sums(const matrix *m, const unsigned char *block, unsigned precision, unsigned lanes,
                              unsigned gates, unsigned first, unsigned vectors, size_t apart, unsigned streams,
                              uint32_t n, const rows *a, const rows *b, sums *s) {
    const float *bias = (const float *)(const void *)block;
    const size_t row = (size_t)lanes * gates;
    UNROLL EACH(i, streams) {
        UNROLL EACH(g, gates) {
            UNROLL EACH(v, vectors)
            s->of[i][g][v] = v_load(bias + g * lanes + first + behind(v, 4, apart) / 4, lanes);
        }
    }
    if (precision == ELM_INT8) {
        const unsigned char *w = block + 12 * row;
        UNROLL EACH(i, streams) {
            if (m->a) dot_int8(w, lanes, gates, first, vectors, apart, &a->q[n + i], m->a, bias + row, s->of[i]);
            if (m->b)
                dot_int8(w + row * round_up(m->a, 4), lanes, gates, first, vectors, apart, &b->q[n + i], m->b,
                         bias + 2 * row, s->of[i]);
        }
    } else {
        const int half = precision == ELM_FLOAT16;
        const unsigned char *w = block + 4 * row;
        if (m->a) dot_float(w, half, lanes, gates, first, vectors, apart, streams, a->row + n, m->a, s);
        if (m->b)
            dot_float(w + row * m->a * (half ? 2 : 4), half, lanes, gates, first, vectors, apart, streams, b->row + n,
                      m->b, s);
    }
}

/* One block for all streams: FLEET at a time, and the rest one by one. */
#define FOR_STREAMS(STREAMS, VECTORS, APART, BODY)                                                                          \
    for (; i + (STREAMS) <= n; i += (STREAMS)) {                                                                     \
        for (unsigned first = 0; first < ((APART) ? 1 : lanes); first += (VECTORS) * VW) {                           \
            sums s;                                                                                                  \
            block_sums(m, block, precision, lanes, gates, first, (VECTORS), (APART), (STREAMS), i, a, b, &s);                \
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
    if (precision != ELM_INT8 && FLEET > 1) FOR_STREAMS(FLEET, FLEET_VECTORS, 0, STORE)
    FOR_STREAMS(1, single_vectors(lanes), 0, STORE)
#undef STORE
}

static INLINE void lstm_block(const matrix *m, const unsigned char *block, unsigned precision, unsigned lanes,
                              uint32_t unit, uint32_t n, const rows *a, const rows *b, float *const *c,
                              float *const *out) {
    const unsigned gates = 4;
    uint32_t i = 0;
#define CELL lstm_cell(of[0][v], of[1][v], of[2][v], of[3][v], c[i + j] + at, *to + at, lanes);
    if (precision != ELM_INT8 && FLEET > 1) FOR_STREAMS(FLEET, FLEET_VECTORS, 0, CELL)
    FOR_STREAMS(1, single_vectors(lanes), 0, CELL)
}

#if BLOCKS_AT_ONCE > 1
/* Several blocks of one stream: their chains of additions and their activations need not wait for each other. */
static INLINE void lstm_blocks(const matrix *m, const unsigned char *block, unsigned precision, uint32_t unit,
                               const rows *a, const rows *b, float *const *c, float *const *out) {
    const unsigned gates = 4, lanes = 16;
    const uint32_t n = 1;
    uint32_t i = 0;
    FOR_STREAMS(1, BLOCKS_AT_ONCE, (size_t)block_size(m, 16), CELL)
}
#endif
#undef CELL

static INLINE void product_matrix(const matrix *m, unsigned precision, unsigned gates, uint32_t n, const rows *a,
                                  const rows *b, float *const *z, size_t stride) {
    const unsigned char *block = m->data;
    uint32_t unit = 0;
#if SMALL
    for (; unit < m->units; block += block_size(m, block_lanes(m->units, unit)), unit += 16)
        product_block(m, block, precision, block_lanes(m->units, unit), gates, unit, n, a, b, z, stride);
#else
    for (; unit + 8 < m->units; unit += 16, block += block_size(m, 16))
        product_block(m, block, precision, 16, gates, unit, n, a, b, z, stride);
    if (unit < m->units) product_block(m, block, precision, 8, gates, unit, n, a, b, z, stride);
#endif
}

static INLINE void lstm_matrix(const matrix *m, unsigned precision, uint32_t n, const rows *a, const rows *b,
                               float *const *c, float *const *h) {
    const unsigned char *block = m->data;
    uint32_t unit = 0;
#if SMALL
    for (; unit < m->units; block += block_size(m, block_lanes(m->units, unit)), unit += 16)
        lstm_block(m, block, precision, block_lanes(m->units, unit), unit, n, a, b, c, h);
#else
#if BLOCKS_AT_ONCE > 1
    for (; n == 1 && unit + 16 * (BLOCKS_AT_ONCE - 1) + 8 < m->units;
         unit += 16 * BLOCKS_AT_ONCE, block += BLOCKS_AT_ONCE * block_size(m, 16))
        lstm_blocks(m, block, precision, unit, a, b, c, h);
#endif
    for (; unit + 8 < m->units; unit += 16, block += block_size(m, 16))
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

static void lstm(const matrix *m, uint32_t n, const rows *a, const rows *b, float *const *c, float *const *h) {
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

/* The caller's rows have not, so this reads no further than n. */
static float probe_row(const float *x, size_t n) {
    float sum = 0.0f;
    size_t i = 0;
    if (n >= VW) {
        V total = v_set1(0.0f);
        float each[VW];
        for (; i + VW <= n; i += VW) total = v_fma(v_set1(0.0f), v_load(x + i, 16), total);
        v_store(each, total, 16);
        for (unsigned j = 0; j < VW; j++) sum += each[j];
    }
    for (; i < n; i++) sum += 0.0f * x[i];
    return sum;
}

const kernel KERNEL = {KERNEL_NAME, product, lstm, quantize_row, sigmoid_row, tanh_row, gru_row, probe_row};
