// Operators of a step graph, and the loop that runs a program of them. See program.py, which writes programs.
//
// A program is a sequence of instructions of 64-bit words: an operator, the number of its arguments, and these. Tensors
// are places: a root (constants, scratch, an input or an output of the graph) and the bytes from its start. Sizes and
// strides count elements. Nothing is kept between runs, so threads may run one program on roots of their own.

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__) && !defined(EDGEASR_PORTABLE)
#include <immintrin.h>
#if defined(__AVX512VNNI__) && defined(__AVX512F__) && !defined(EDGEASR_NO_VNNI)
#define DOT_VNNI
#elif defined(__AVX2__)
#define DOT_AVX2
#endif
#elif defined(__aarch64__) && !defined(EDGEASR_PORTABLE)
#include <arm_neon.h>
#if defined(__ARM_FEATURE_DOTPROD) && !defined(EDGEASR_NO_DOTPROD)
#define DOT_SDOT
#else
#define DOT_NEON
#endif
#endif

// Vectors of floats as wide as the registers are.
#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
typedef float floats_t __attribute__((vector_size(LANES * 4)));
typedef float loose_t __attribute__((vector_size(LANES * 4), aligned(4))); // anywhere in memory
typedef int32_t mask_t __attribute__((vector_size(LANES * 4)));

#define MAX_DIMS 6
#define PANEL 64 // columns of weights side by side

typedef const int64_t *args_t;
typedef struct {
    char *const *roots;
    const int64_t *sizes; // those that vary, by number
} frame_t;

enum { F32, I64, BOOL };
enum { ADD, SUB, MUL, DIV, MOD, GREATER, GREATER_OR_EQUAL, LESS, EQUAL, AND, LARGER };
enum { EXP, LOG, SIGMOID, COS, SIN, CLIP_LOW, CAST, TANH, NEGATE, FLOOR, NOT };
enum { SUM, MAX };

// Keeps what is used more than once in a register, where compilers would rather load it again each time.
#if defined(__AVX512F__)
#define HOLD(v) __asm__("" : "+v"(v))
#else
#define HOLD(v) (void)(v)
#endif

static inline void *at(const frame_t *f, int64_t place)
{
    return place < 0 ? NULL : f->roots[place >> 32] + (place & 0xffffffff);
}

static inline double real(int64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline floats_t load(const float *p)
{
    return *(const loose_t *)p;
}

static inline void store(float *p, floats_t v)
{
    *(loose_t *)p = v;
}

static inline floats_t all(float value)
{
    return value - (floats_t){0};
}

static inline floats_t larger(floats_t v, floats_t w)
{
    const mask_t first = v > w;
    return (floats_t)((first & (mask_t)v) | (~first & (mask_t)w));
}

static inline floats_t smaller(floats_t v, floats_t w)
{
    const mask_t first = v < w;
    return (floats_t)((first & (mask_t)v) | (~first & (mask_t)w));
}

static inline float sum_of(floats_t v)
{
    float sum = 0;
    for (int i = 0; i < LANES; i++)
        sum += v[i];
    return sum;
}

// To about one in 10^7: 2^n times a polynomial on -ln(2)/2 to ln(2)/2 (Cephes).
static inline float exp_of(float x)
{
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    const float n = __builtin_rintf(x * 1.44269504f);
    float r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    const int32_t power = ((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &power, sizeof scale);
    return p * scale;
}

static inline float sigmoid_of(float x)
{
    return 1.0f / (1.0f + exp_of(-x));
}

// ---- strided loops over a few dimensions

typedef struct {
    int dims;
    const int64_t *size;
} shape_t;

// The next index of all dimensions but the last. returns: 0 behind the last
static inline int next_row(shape_t s, int64_t *index)
{
    for (int d = s.dims - 2; d >= 0; d--) {
        if (++index[d] < s.size[d])
            return 1;
        index[d] = 0;
    }
    return 0;
}

static inline int64_t offset(shape_t s, const int64_t *index, const int64_t *stride)
{
    int64_t sum = 0;
    for (int d = 0; d < s.dims - 1; d++)
        sum += index[d] * stride[d];
    return sum;
}

// element bytes, dimensions, size[6], to, to's strides[6], from, from's strides[6]
static void copy(const frame_t *f, args_t a)
{
    const shape_t s = {(int)a[1], a + 2};
    const int64_t *to_stride = a + 9, *from_stride = a + 16;
    char *to = at(f, a[8]);
    const char *from = at(f, a[15]);
    const int64_t bytes = a[0], n = s.size[s.dims - 1], t = to_stride[s.dims - 1], r = from_stride[s.dims - 1];
    int64_t index[MAX_DIMS] = {0};
    do {
        char *x = to + bytes * offset(s, index, to_stride);
        const char *y = from + bytes * offset(s, index, from_stride);
        if (t == 1 && r == 1)
            memcpy(x, y, (size_t)(n * bytes));
        else if (bytes == 4)
            for (int64_t i = 0; i < n; i++)
                ((int32_t *)x)[i * t] = ((const int32_t *)y)[i * r];
        else if (bytes == 8)
            for (int64_t i = 0; i < n; i++)
                ((int64_t *)x)[i * t] = ((const int64_t *)y)[i * r];
        else
            for (int64_t i = 0; i < n; i++)
                x[i * t] = y[i * r];
    } while (next_row(s, index));
}

#define EACH(TYPE, OUT, EXPRESSION)                                                                                    \
    for (int64_t i = 0; i < n; i++) {                                                                                  \
        const TYPE x = ((const TYPE *)p)[i * ps], y = ((const TYPE *)q)[i * qs];                                       \
        ((OUT *)to)[i] = (OUT)(EXPRESSION);                                                                            \
    }                                                                                                                  \
    break
#define BY_TYPE(F, I)                                                                                                  \
    if (type == F32) {                                                                                                 \
        EACH(float, float, F);                                                                                         \
    } else {                                                                                                           \
        EACH(int64_t, int64_t, I);                                                                                     \
    }
#define COMPARE(EXPRESSION)                                                                                            \
    if (type == F32) {                                                                                                 \
        EACH(float, uint8_t, EXPRESSION);                                                                              \
    } else {                                                                                                           \
        EACH(int64_t, uint8_t, EXPRESSION);                                                                            \
    }

// The sign of a remainder is that of the divisor.
static inline int64_t remainder_of(int64_t x, int64_t y)
{
    const int64_t r = y == 0 || y == -1 ? 0 : x % y; // by -1 the least number has no quotient
    return r && (r < 0) != (y < 0) ? r + y : r;
}

static inline int64_t quotient_of(int64_t x, int64_t y)
{
    return y == 0 ? 0 : y == -1 ? (int64_t)(0 - (uint64_t)x) : x / y;
}

static inline void binary_row(int op, int type, int64_t n, char *to, const char *p, int64_t ps, const char *q,
                              int64_t qs)
{
    switch (op) {
    case ADD:
        BY_TYPE(x + y, x + y)
        break;
    case SUB:
        BY_TYPE(x - y, x - y)
        break;
    case MUL:
        BY_TYPE(x * y, x * y)
        break;
    case DIV:
        BY_TYPE(x / y, quotient_of(x, y))
        break;
    case MOD:
        BY_TYPE(fmodf(x, y), remainder_of(x, y))
        break;
    case GREATER:
        COMPARE(x > y)
        break;
    case GREATER_OR_EQUAL:
        COMPARE(x >= y)
        break;
    case LESS:
        COMPARE(x < y)
        break;
    case EQUAL:
        COMPARE(x == y)
        break;
    case AND:
        for (int64_t i = 0; i < n; i++)
            to[i] = p[i * ps] && q[i * qs];
        break;
    case LARGER:
        BY_TYPE(x > y ? x : y, x > y ? x : y)
        break;
    default:
        break;
    }
}

// operator, type of what is read, dimensions, size[6], to (dense), bytes of its elements, x, strides[6], y, strides[6]
static void binary(const frame_t *f, args_t a)
{
    const int op = (int)a[0], type = (int)a[1];
    const shape_t s = {(int)a[2], a + 3};
    const int64_t *x_stride = a + 12, *y_stride = a + 19;
    char *to = at(f, a[9]);
    const char *x = at(f, a[11]), *y = at(f, a[18]);
    const int64_t n = s.size[s.dims - 1], xs = x_stride[s.dims - 1], ys = y_stride[s.dims - 1];
    const int64_t bytes = type == F32 ? 4 : type == I64 ? 8 : 1;
    int64_t index[MAX_DIMS] = {0};
    do {
        const char *p = x + bytes * offset(s, index, x_stride), *q = y + bytes * offset(s, index, y_stride);
        // With strides that the compiler knows it makes vectors of them.
        if (xs == 1 && ys == 1)
            binary_row(op, type, n, to, p, 1, q, 1);
        else if (xs == 1 && ys == 0)
            binary_row(op, type, n, to, p, 1, q, 0);
        else
            binary_row(op, type, n, to, p, xs, q, ys);
        to += n * a[10];
    } while (next_row(s, index));
}

// operator, type read, type written, elements, to, from, parameter (bits of a double); both dense
static void unary(const frame_t *f, args_t a)
{
    const int op = (int)a[0], in = (int)a[1], out = (int)a[2];
    const int64_t n = a[3];
    void *to = at(f, a[4]);
    const void *from = at(f, a[5]);
    const float *restrict x = from;
    float *restrict y = to;
    const float parameter = (float)real(a[6]);
    switch (op) {
    case EXP:
        for (int64_t i = 0; i < n; i++)
            y[i] = expf(x[i]); // to 0 and to infinity, where exp_of ends before
        break;
    case LOG:
        for (int64_t i = 0; i < n; i++)
            y[i] = logf(x[i]);
        break;
    case SIGMOID:
        for (int64_t i = 0; i < n; i++)
            y[i] = sigmoid_of(x[i]);
        break;
    case COS:
        for (int64_t i = 0; i < n; i++)
            y[i] = cosf(x[i]);
        break;
    case SIN:
        for (int64_t i = 0; i < n; i++)
            y[i] = sinf(x[i]);
        break;
    case CLIP_LOW:
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] < parameter ? parameter : x[i] > FLT_MAX ? FLT_MAX : x[i]; // the standard's largest value
        break;
    case CAST:
        if (in == I64 && out == I64) { // a double has not all of them
            memmove(to, from, (size_t)n * sizeof(int64_t));
            break;
        }
        for (int64_t i = 0; i < n; i++) {
            const double value = in == F32   ? (double)((const float *)from)[i]
                                 : in == I64 ? (double)((const int64_t *)from)[i]
                                             : (double)((const uint8_t *)from)[i];
            if (out == F32)
                y[i] = (float)value;
            else if (out == I64)
                ((int64_t *)to)[i] = (int64_t)value;
            else
                ((uint8_t *)to)[i] = value != 0;
        }
        break;
    case TANH:
        for (int64_t i = 0; i < n; i++)
            y[i] = 2.0f * sigmoid_of(2.0f * x[i]) - 1.0f;
        break;
    case NEGATE:
        for (int64_t i = 0; i < n; i++)
            y[i] = -x[i];
        break;
    case FLOOR:
        for (int64_t i = 0; i < n; i++)
            y[i] = floorf(x[i]);
        break;
    case NOT:
        for (int64_t i = 0; i < n; i++)
            ((uint8_t *)to)[i] = !((const uint8_t *)from)[i];
        break;
    default:
        break;
    }
}

// element bytes, dimensions, size[6], to (dense), condition, strides[6], x, strides[6], y, strides[6]
static void where(const frame_t *f, args_t a)
{
    const shape_t s = {(int)a[1], a + 2};
    const int64_t bytes = a[0], n = s.size[s.dims - 1];
    const int last = s.dims - 1;
    char *to = at(f, a[8]);
    const uint8_t *condition = at(f, a[9]);
    const char *x = at(f, a[16]), *y = at(f, a[23]);
    int64_t index[MAX_DIMS] = {0};
    do {
        const uint8_t *c = condition + offset(s, index, a + 10);
        const char *p = x + bytes * offset(s, index, a + 17), *q = y + bytes * offset(s, index, a + 24);
        for (int64_t i = 0; i < n; i++, to += bytes)
            memcpy(to, c[i * a[10 + last]] ? p + bytes * i * a[17 + last] : q + bytes * i * a[24 + last], (size_t)bytes);
    } while (next_row(s, index));
}

// element bytes, outer, length, chosen, inner, to, from, numbers along `length`; all dense
static void gather(const frame_t *f, args_t a)
{
    const int64_t bytes = a[0], length = a[2], inner = a[4];
    char *to = at(f, a[5]);
    const char *from = at(f, a[6]);
    const int64_t *numbers = at(f, a[7]);
    for (int64_t o = 0; o < a[1]; o++, from += bytes * length * inner)
        for (int64_t j = 0; j < a[3]; j++)
            for (int64_t i = 0; i < inner; i++, to += bytes) {
                int64_t number = *numbers++;
                number += number < 0 ? length : 0;
                number = number < 0 ? 0 : number < length ? number : length - 1; // never beyond the tensor
                memcpy(to, from + bytes * (number * inner + i), (size_t)bytes);
            }
}

// operator, type, outer, length, inner, to, from; both dense
static void reduce(const frame_t *f, args_t a)
{
    const int op = (int)a[0], type = (int)a[1];
    const int64_t outer = a[2], length = a[3], inner = a[4];
    void *to = at(f, a[5]);
    const void *from = at(f, a[6]);
    for (int64_t o = 0; o < outer; o++)
        for (int64_t i = 0; i < inner; i++) {
            const int64_t first = o * length * inner + i;
            if (type == F32) {
                const float *x = (const float *)from + first;
                float value = x[0];
                for (int64_t k = 1; k < length; k++)
                    value = op == SUM ? value + x[k * inner] : x[k * inner] > value ? x[k * inner] : value;
                ((float *)to)[o * inner + i] = value;
            } else {
                const int64_t *x = (const int64_t *)from + first;
                int64_t value = x[0];
                for (int64_t k = 1; k < length; k++)
                    value = op == SUM ? value + x[k * inner] : x[k * inner] > value ? x[k * inner] : value;
                ((int64_t *)to)[o * inner + i] = value;
            }
        }
}

// ---- rows

static inline float most_of(const float *x, int64_t n)
{
    float most = x[0];
    int64_t i = 0;
    if (n >= LANES) {
        floats_t v = load(x);
        for (i = LANES; i + LANES <= n; i += LANES)
            v = larger(load(x + i), v);
        for (int k = 0; k < LANES; k++)
            most = v[k] > most ? v[k] : most;
    }
    for (; i < n; i++)
        most = x[i] > most ? x[i] : most;
    return most;
}

static inline float total_of(const float *x, int64_t n)
{
    floats_t v = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        v += load(x + i);
    float total = sum_of(v);
    for (; i < n; i++)
        total += x[i];
    return total;
}

static inline void softmax_row(float *y, const float *x, int64_t n)
{
    const float most = most_of(x, n);
    for (int64_t i = 0; i < n; i++)
        y[i] = exp_of(x[i] - most);
    const float scale = 1.0f / total_of(y, n);
    for (int64_t i = 0; i < n; i++)
        y[i] *= scale;
}

// whether of the logarithm, rows, length, to, from
static void softmax(const frame_t *f, args_t a)
{
    const int64_t n = a[2];
    float *y = at(f, a[3]);
    const float *x = at(f, a[4]);
    for (int64_t r = 0; r < a[1]; r++, x += n, y += n) {
        if (!a[0]) {
            softmax_row(y, x, n);
            continue;
        }
        const float most = most_of(x, n);
        for (int64_t i = 0; i < n; i++)
            y[i] = exp_of(x[i] - most);
        const float log_total = most + logf(total_of(y, n));
        for (int64_t i = 0; i < n; i++)
            y[i] = x[i] - log_total;
    }
}

// rows, length, epsilon (bits of a double), to, from, weight, bias
static void layer_norm(const frame_t *f, args_t a)
{
    const int64_t n = a[1];
    const float epsilon = (float)real(a[2]);
    float *restrict y = at(f, a[3]);
    const float *restrict x = at(f, a[4]), *restrict weight = at(f, a[5]), *restrict bias = at(f, a[6]);
    for (int64_t r = 0; r < a[0]; r++, x += n, y += n) {
        const float mean = total_of(x, n) / (float)n;
        floats_t v = {0};
        int64_t i = 0;
        for (; i + LANES <= n; i += LANES) {
            const floats_t centred = load(x + i) - mean;
            v += centred * centred;
        }
        float squares = sum_of(v);
        for (; i < n; i++)
            squares += (x[i] - mean) * (x[i] - mean);
        const float scale = 1.0f / sqrtf(squares / (float)n + epsilon);
        for (i = 0; i < n; i++)
            y[i] = (x[i] - mean) * scale * weight[i] + bias[i];
    }
}

// rows, columns, to (dense), x, its row stride, y, its row stride: x times the logistic function of y
static void gate(const frame_t *f, args_t a)
{
    const int64_t n = a[1];
    float *restrict to = at(f, a[2]);
    const float *x = at(f, a[3]), *y = at(f, a[5]);
    for (int64_t r = 0; r < a[0]; r++, to += n, x += a[4], y += a[6])
        for (int64_t i = 0; i < n; i++)
            to[i] = x[i] * sigmoid_of(y[i]);
}

// ---- products

// batches[3], m, n, k, factor (bits of a double), to, strides[5] (batches, m, n), x, strides[5] (.., m, k), y, strides[5]
// (.., k, n)
static void product(const frame_t *f, args_t a)
{
    const int64_t m = a[3], n = a[4], k = a[5];
    const float factor = (float)real(a[6]);
    const int64_t *ts = a + 8, *xs = a + 14, *ys = a + 20;
    for (int64_t b0 = 0; b0 < a[0]; b0++)
        for (int64_t b1 = 0; b1 < a[1]; b1++)
            for (int64_t b2 = 0; b2 < a[2]; b2++) {
                float *to = (float *)at(f, a[7]) + b0 * ts[0] + b1 * ts[1] + b2 * ts[2];
                const float *x = (const float *)at(f, a[13]) + b0 * xs[0] + b1 * xs[1] + b2 * xs[2];
                const float *y = (const float *)at(f, a[19]) + b0 * ys[0] + b1 * ys[1] + b2 * ys[2];
                for (int64_t i = 0; i < m; i++)
                    for (int64_t j = 0; j < n; j++) {
                        float sum = 0;
                        for (int64_t l = 0; l < k; l++)
                            sum += x[i * xs[3] + l * xs[4]] * y[l * ys[3] + j * ys[4]];
                        to[i * ts[3] + j * ts[4]] = factor * sum;
                    }
            }
}

#define ROWS 4 // of one tile of a product in int8

// What is added to a quantised number so that the processor's products can take it.
#if defined(DOT_SDOT) || defined(DOT_NEON)
#define SHIFT (-128)
typedef int8_t quantised_t;
#else
#define SHIFT 0
typedef uint8_t quantised_t;
#endif

// Sums of `rows` rows, groups * 4 long, with one panel of weights; to: rows * PANEL
static inline __attribute__((always_inline)) void dot_rows(int rows, const quantised_t *x, int64_t stride,
                                                           const int8_t *panel, int64_t groups, int32_t *to)
{
#if defined(DOT_VNNI)
    __m512i sum[ROWS][4];
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < 4; c++)
            sum[r][c] = _mm512_setzero_si512();
    for (int64_t g = 0; g < groups; g++, panel += 4 * PANEL) {
        __m512i w[4];
        for (int c = 0; c < 4; c++) {
            w[c] = _mm512_load_si512(panel + 64 * c);
            HOLD(w[c]);
            _mm_prefetch(panel + 64 * c + 4096, _MM_HINT_T0);
            _mm_prefetch(panel + 64 * c + 16384, _MM_HINT_T1);
        }
        for (int r = 0; r < rows; r++) {
            int32_t four;
            memcpy(&four, x + r * stride + 4 * g, 4);
            const __m512i v = _mm512_set1_epi32(four);
            for (int c = 0; c < 4; c++)
                sum[r][c] = _mm512_dpbusd_epi32(sum[r][c], v, w[c]);
        }
    }
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < 4; c++)
            _mm512_storeu_si512(to + r * PANEL + 16 * c, sum[r][c]);
#elif defined(DOT_AVX2)
    // Sums of two products saturate at 16 bits: weights have 7, which products.py makes sure of.
    const __m256i ones = _mm256_set1_epi16(1);
    for (int c = 0; c < PANEL / 16; c++) {
        __m256i sum[ROWS][2];
        for (int r = 0; r < rows; r++)
            sum[r][0] = sum[r][1] = _mm256_setzero_si256();
        const int8_t *w = panel + 64 * c;
        for (int64_t g = 0; g < groups; g++, w += 4 * PANEL) {
            const __m256i low = _mm256_load_si256((const __m256i *)w), high = _mm256_load_si256((const __m256i *)(w + 32));
            for (int r = 0; r < rows; r++) {
                int32_t four;
                memcpy(&four, x + r * stride + 4 * g, 4);
                const __m256i v = _mm256_set1_epi32(four);
                sum[r][0] = _mm256_add_epi32(sum[r][0], _mm256_madd_epi16(_mm256_maddubs_epi16(v, low), ones));
                sum[r][1] = _mm256_add_epi32(sum[r][1], _mm256_madd_epi16(_mm256_maddubs_epi16(v, high), ones));
            }
        }
        for (int r = 0; r < rows; r++) {
            _mm256_storeu_si256((__m256i *)(to + r * PANEL + 16 * c), sum[r][0]);
            _mm256_storeu_si256((__m256i *)(to + r * PANEL + 16 * c + 8), sum[r][1]);
        }
    }
#elif defined(DOT_SDOT)
    for (int c = 0; c < PANEL / 16; c++) {
        int32x4_t sum[ROWS][4];
        for (int r = 0; r < rows; r++)
            for (int q = 0; q < 4; q++)
                sum[r][q] = vdupq_n_s32(0);
        const int8_t *w = panel + 64 * c;
        for (int64_t g = 0; g < groups; g++, w += 4 * PANEL)
            for (int r = 0; r < rows; r++) {
                int32_t four;
                memcpy(&four, x + r * stride + 4 * g, 4);
                const int8x16_t v = vreinterpretq_s8_s32(vdupq_n_s32(four));
                for (int q = 0; q < 4; q++)
                    sum[r][q] = vdotq_s32(sum[r][q], vld1q_s8(w + 16 * q), v);
            }
        for (int r = 0; r < rows; r++)
            for (int q = 0; q < 4; q++)
                vst1q_s32(to + r * PANEL + 16 * c + 4 * q, sum[r][q]);
    }
#elif defined(DOT_NEON)
    for (int c = 0; c < PANEL / 8; c++) {
        int32x4_t sum[ROWS][4]; // two columns each, of two halves
        for (int r = 0; r < rows; r++)
            for (int q = 0; q < 4; q++)
                sum[r][q] = vdupq_n_s32(0);
        const int8_t *w = panel + 32 * c;
        // Sums of two products have room in 16 bits where weights have 7, which products.py makes sure of.
        int64_t g = 0;
        for (; g + 1 < groups; g += 2, w += 8 * PANEL)
            for (int r = 0; r < rows; r++) {
                int32_t four[2];
                memcpy(four, x + r * stride + 4 * g, 8);
                const int8x8_t v = vreinterpret_s8_s32(vdup_n_s32(four[0]));
                const int8x8_t u = vreinterpret_s8_s32(vdup_n_s32(four[1]));
                for (int q = 0; q < 4; q++) {
                    const int16x8_t pair = vmlal_s8(vmull_s8(vld1_s8(w + 8 * q), v), vld1_s8(w + 8 * q + 4 * PANEL), u);
                    sum[r][q] = vpadalq_s16(sum[r][q], pair);
                }
            }
        if (g < groups)
            for (int r = 0; r < rows; r++) {
                int32_t four;
                memcpy(&four, x + r * stride + 4 * g, 4);
                const int8x8_t v = vreinterpret_s8_s32(vdup_n_s32(four));
                for (int q = 0; q < 4; q++)
                    sum[r][q] = vpadalq_s16(sum[r][q], vmull_s8(vld1_s8(w + 8 * q), v));
            }
        for (int r = 0; r < rows; r++)
            for (int q = 0; q < 4; q += 2)
                vst1q_s32(to + r * PANEL + 8 * c + 2 * q, vpaddq_s32(sum[r][q], sum[r][q + 1]));
    }
#else
    for (int i = 0; i < rows * PANEL; i++)
        to[i] = 0;
    for (int64_t g = 0; g < groups; g++, panel += 4 * PANEL)
        for (int r = 0; r < rows; r++) {
            const quantised_t *v = x + r * stride + 4 * g;
            for (int c = 0; c < PANEL; c++) {
                const int8_t *w = panel + 4 * c;
                to[r * PANEL + c] += v[0] * w[0] + v[1] * w[1] + v[2] * w[2] + v[3] * w[3];
            }
        }
#endif
}

// As DynamicQuantizeLinear of ONNX: 0 is exact. returns: the zero point
static inline int32_t quantise(const float *restrict x, int64_t n, quantised_t *restrict to, float *scale)
{
    float least = 0, most = 0;
    int64_t i = 0;
    if (n >= LANES) {
        floats_t low = {0}, high = {0};
        for (; i + LANES <= n; i += LANES) {
            const floats_t v = load(x + i);
            low = smaller(v, low);
            high = larger(v, high);
        }
        for (int k = 0; k < LANES; k++) {
            least = low[k] < least ? low[k] : least;
            most = high[k] > most ? high[k] : most;
        }
    }
    for (; i < n; i++) {
        least = x[i] < least ? x[i] : least;
        most = x[i] > most ? x[i] : most;
    }
    *scale = most > least ? (most - least) / 255.0f : 1.0f;
    const float by = *scale;
    const float zero = __builtin_rintf(-least / by);
    for (i = 0; i < n; i++) {
        float q = __builtin_rintf(x[i] / by) + zero;
        q = q < 0.0f ? 0.0f : q;
        q = q > 255.0f ? 255.0f : q;
        to[i] = (quantised_t)((int32_t)q + SHIFT);
    }
    return (int32_t)zero + SHIFT;
}

// rows, k, n, activation (1: SiLU), to, x, quantised x, weights in panels, sums of their columns, scales, bias, residual
static void linear(const frame_t *f, args_t a)
{
    const int64_t rows = a[0], k = a[1], n = a[2], groups = (k + 3) / 4, stride = 4 * groups;
    float *to = at(f, a[4]);
    const float *x = at(f, a[5]);
    quantised_t *quantised = at(f, a[6]);
    const int8_t *weights = at(f, a[7]);
    const int32_t *column_sums = at(f, a[8]);
    const float *scales = at(f, a[9]), *bias = at(f, a[10]), *residual = at(f, a[11]);
    float scale;
    int32_t zero;
    if (stride == k) {
        zero = quantise(x, rows * k, quantised, &scale);
    } else { // in place of the rows' ends there are weights of zero
        quantised_t *dense = quantised + rows * stride;
        zero = quantise(x, rows * k, dense, &scale);
        for (int64_t r = 0; r < rows; r++)
            memcpy(quantised + r * stride, dense + r * k, (size_t)k);
    }
    int32_t sums[ROWS * PANEL] __attribute__((aligned(64)));
    for (int64_t first = 0; first < n; first += PANEL, weights += 4 * PANEL * groups) {
        const int64_t columns = n - first < PANEL ? n - first : PANEL;
        float factors[PANEL], offsets[PANEL];
        for (int c = 0; c < PANEL; c++) { // both arrays have whole panels
            factors[c] = scale * scales[first + c];
            offsets[c] = (bias ? bias[first + c] : 0.0f);
        }
        for (int64_t r = 0; r < rows; r += ROWS) {
            const int64_t many = rows - r < ROWS ? rows - r : ROWS;
            const quantised_t *of = quantised + r * stride;
            switch (many) {
            case 1:
                dot_rows(1, of, stride, weights, groups, sums);
                break;
            case 2:
                dot_rows(2, of, stride, weights, groups, sums);
                break;
            case 3:
                dot_rows(3, of, stride, weights, groups, sums);
                break;
            default:
                dot_rows(ROWS, of, stride, weights, groups, sums);
                break;
            }
            for (int64_t i = 0; i < many; i++) {
                float y[PANEL];
                for (int c = 0; c < PANEL; c++) {
                    const int32_t whole = sums[i * PANEL + c] - zero * column_sums[first + c];
                    y[c] = (float)whole * factors[c] + offsets[c];
                }
                if (a[3])
                    for (int c = 0; c < PANEL; c++)
                        y[c] *= sigmoid_of(y[c]);
                float *row = to + (r + i) * n + first;
                const float *beside = residual ? residual + (r + i) * n + first : NULL;
                if (beside)
                    for (int64_t c = 0; c < columns; c++)
                        row[c] = y[c] + beside[c];
                else
                    memcpy(row, y, (size_t)columns * sizeof *row);
            }
        }
    }
}

// ---- convolutions

#define VECTORS 3 // of output channels of a tile
#if LANES == 8
#define POSITIONS 4
#else
#define POSITIONS 8
#endif
#define CHANNELS (VECTORS * LANES)

// channels in, rows in, columns in, channels out, kernel's rows and columns, strides[2], padding above and to the left,
// rows and columns out, activation (1: SiLU), to, x (channels first, like to), weights (tiles of CHANNELS outputs, each
// by input channel, row and column of the kernel), bias
static void convolution(const frame_t *f, args_t a)
{
    const int64_t in = a[0], height = a[1], width = a[2], out = a[3], kh = a[4], kw = a[5];
    const int64_t down = a[6], right = a[7], top = a[8], left = a[9], rows = a[10], columns = a[11];
    float *to = at(f, a[13]);
    const float *x = at(f, a[14]), *weights = at(f, a[15]), *bias = at(f, a[16]);
    static const float nothing = 0;
    for (int64_t first = 0; first < out; first += CHANNELS, weights += in * kh * kw * CHANNELS)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < columns; c += POSITIONS) {
                floats_t sum[POSITIONS][VECTORS];
                for (int p = 0; p < POSITIONS; p++)
                    for (int v = 0; v < VECTORS; v++)
                        sum[p][v] = load(bias + first + v * LANES); // whole tiles of it
                const float *w = weights;
                for (int64_t i = 0; i < in; i++)
                    for (int64_t y = 0; y < kh; y++) {
                        const int64_t row = r * down + y - top;
                        if (row < 0 || row >= height) {
                            w += kw * CHANNELS;
                            continue;
                        }
                        const float *line = x + (i * height + row) * width;
                        for (int64_t z = 0; z < kw; z++, w += CHANNELS) {
                            floats_t each[VECTORS];
                            for (int v = 0; v < VECTORS; v++) {
                                each[v] = load(w + v * LANES);
                                HOLD(each[v]);
                            }
                            const int64_t column = c * right + z - left;
                            if (column >= 0 && column + (POSITIONS - 1) * right < width)
                                for (int p = 0; p < POSITIONS; p++) {
                                    floats_t value = all(line[column + p * right]);
                                    HOLD(value);
                                    for (int v = 0; v < VECTORS; v++)
                                        sum[p][v] += value * each[v];
                                }
                            else
                                for (int p = 0; p < POSITIONS; p++) {
                                    const int64_t place = column + p * right;
                                    const float value = *(place >= 0 && place < width ? line + place : &nothing);
                                    for (int v = 0; v < VECTORS; v++)
                                        sum[p][v] += value * each[v];
                                }
                        }
                    }
                const int64_t many = columns - c < POSITIONS ? columns - c : POSITIONS;
                const int64_t channels = out - first < CHANNELS ? out - first : CHANNELS;
                float tile[POSITIONS][CHANNELS];
                for (int p = 0; p < POSITIONS; p++) {
                    for (int v = 0; v < VECTORS; v++)
                        store(tile[p] + v * LANES, sum[p][v]);
                    if (a[12])
                        for (int o = 0; o < CHANNELS; o++)
                            tile[p][o] *= sigmoid_of(tile[p][o]);
                }
                for (int64_t o = 0; o < channels; o++)
                    for (int64_t p = 0; p < many; p++)
                        to[((first + o) * rows + r) * columns + c + p] = tile[p][o];
            }
}

// rows, channels, taps, rows of the past (taps - 1), to, past, new, weights (taps, channels), bias
static void depthwise(const frame_t *f, args_t a)
{
    const int64_t rows = a[0], n = a[1], taps = a[2], past = a[3];
    float *to = at(f, a[4]);
    const float *before = at(f, a[5]), *now = at(f, a[6]), *weights = at(f, a[7]), *bias = at(f, a[8]);
    for (int64_t r = 0; r < rows; r++) {
        float *restrict y = to + r * n;
        int64_t c = 0;
        for (; c + LANES <= n; c += LANES) {
            floats_t sum = load(bias + c);
            for (int64_t t = 0; t < taps; t++) {
                const int64_t row = r + t;
                const float *x = row < past ? before + row * n : now + (row - past) * n;
                sum += load(x + c) * load(weights + t * n + c);
            }
            store(y + c, sum);
        }
        for (; c < n; c++) {
            float sum = bias[c];
            for (int64_t t = 0; t < taps; t++) {
                const int64_t row = r + t;
                sum += (row < past ? before + row * n : now + (row - past) * n)[c] * weights[t * n + c];
            }
            y[c] = sum;
        }
    }
}

// ---- attention

// vectors, size of a vector, to, x, numbers of rows of the tables, cosines, sines: turns halves against each other
static void rotate(const frame_t *f, args_t a)
{
    const int64_t size = a[1], half = size / 2;
    float *to = at(f, a[2]);
    const float *x = at(f, a[3]), *cosines = at(f, a[5]), *sines = at(f, a[6]);
    const int64_t *numbers = at(f, a[4]);
    for (int64_t r = 0; r < a[0]; r++, x += size, to += size) {
        const float *c = cosines + numbers[r] * half, *s = sines + numbers[r] * half;
        float *restrict y = to;
        for (int64_t i = 0; i < half; i++) {
            const float first = x[i], second = x[i + half];
            y[i] = first * c[i] - second * s[i];
            y[i + half] = second * c[i] + first * s[i];
        }
    }
}

#define QUERIES 4 // of one tile, side by side in vectors of four
#define MOST_VECTORS 16 // of a query

typedef float four_t __attribute__((vector_size(16)));
typedef int32_t picked_t __attribute__((vector_size(16)));

// Of two vectors, in each group of four lanes: shuffles that every processor has.
#if LANES == 16
#define IN_FOURS(OF) OF(0), OF(4), OF(8), OF(12)
#elif LANES == 8
#define IN_FOURS(OF) OF(0), OF(4)
#else
#define IN_FOURS(OF) OF(0)
#endif
#define FIRST_TURNS(i) i, LANES + i, i + 1, LANES + i + 1
#define LAST_TURNS(i) i + 2, LANES + i + 2, i + 3, LANES + i + 3
#define FIRST_HALVES(i) i, i + 1, LANES + i, LANES + i + 1
#define LAST_HALVES(i) i + 2, i + 3, LANES + i + 2, LANES + i + 3
#if defined(__clang__)
#define PICK(v, w, OF) __builtin_shufflevector(v, w, IN_FOURS(OF))
#else
#define PICK(v, w, OF) __builtin_shuffle(v, w, (mask_t){IN_FOURS(OF)})
#endif

static inline four_t folded(floats_t v)
{
    four_t parts[LANES / 4], sum;
    memcpy(parts, &v, sizeof v);
    sum = parts[0];
    for (int i = 1; i < LANES / 4; i++)
        sum += parts[i];
    return sum;
}

// The sums of four vectors, in their order.
static inline four_t sums_of(floats_t a, floats_t b, floats_t c, floats_t d)
{
    const floats_t x = PICK(a, b, FIRST_TURNS) + PICK(a, b, LAST_TURNS);
    const floats_t y = PICK(c, d, FIRST_TURNS) + PICK(c, d, LAST_TURNS);
    return folded(PICK(x, y, FIRST_HALVES) + PICK(x, y, LAST_HALVES));
}

typedef struct {
    const float *key, *value;
    int64_t rows, row_stride, head_stride;
} segment_t;

// Products of four queries with the keys of one head, for each key side by side; to holds the bias already.
// vectors: whole ones of a query
static inline __attribute__((always_inline)) void score(int vectors, const float *const *query, int64_t size,
                                                        const segment_t *s, int64_t head, float factor, float *to)
{
    floats_t held[QUERIES][MOST_VECTORS];
    for (int q = 0; q < QUERIES; q++)
        for (int v = 0; v < vectors; v++)
            held[q][v] = factor * load(query[q] + v * LANES);
    const float *key = s->key + head * s->head_stride;
    for (int64_t k = 0; k < s->rows; k++, key += s->row_stride, to += QUERIES) {
        floats_t sum[QUERIES];
        for (int q = 0; q < QUERIES; q++)
            sum[q] = (floats_t){0};
        for (int v = 0; v < vectors; v++) {
            floats_t each = load(key + v * LANES);
            HOLD(each);
            for (int q = 0; q < QUERIES; q++)
                sum[q] += each * held[q][v];
        }
        four_t scores = sums_of(sum[0], sum[1], sum[2], sum[3]);
        for (int64_t d = vectors * LANES; d < size; d++)
            for (int q = 0; q < QUERIES; q++)
                scores[q] += factor * key[d] * query[q][d];
        *(four_t *)to += scores;
    }
}

static inline four_t larger_four(four_t v, four_t w)
{
    const picked_t first = v > w;
    return (four_t)((first & (picked_t)v) | (~first & (picked_t)w));
}

// Scores of four queries to weights that are not divided by their sums yet. returns: one over the sums
static inline four_t weigh(float *scores, int64_t keys)
{
    const int64_t n = QUERIES * keys, wide = n - n % LANES;
    four_t most = *(const four_t *)scores, parts[LANES / 4];
    if (wide) {
        floats_t v = load(scores);
        for (int64_t i = LANES; i < wide; i += LANES)
            v = larger(load(scores + i), v);
        memcpy(parts, &v, sizeof v);
        for (int i = 0; i < LANES / 4; i++)
            most = larger_four(parts[i], most);
    }
    for (int64_t i = wide; i < n; i += QUERIES)
        most = larger_four(*(const four_t *)(scores + i), most);
    floats_t beside, sum = {0};
    for (int i = 0; i < LANES / 4; i++)
        parts[i] = most;
    memcpy(&beside, parts, sizeof beside);
    for (int64_t i = 0; i < wide; i += LANES) {
        float each[LANES];
        store(each, load(scores + i) - beside);
        for (int l = 0; l < LANES; l++)
            each[l] = exp_of(each[l]);
        const floats_t weights = load(each);
        store(scores + i, weights);
        sum += weights;
    }
    four_t total = folded(sum);
    for (int64_t i = wide; i < n; i += QUERIES) {
        for (int q = 0; q < QUERIES; q++)
            scores[i + q] = exp_of(scores[i + q] - most[q]);
        total += *(const four_t *)(scores + i);
    }
    return 1.0f / total;
}

// Values of one head times weights, for `vectors` vectors from d on; added to what is there
static inline __attribute__((always_inline)) void mix(int vectors, const float *weights, const segment_t *s, int64_t head,
                                                      int64_t d, float (*to)[VECTORS * LANES])
{
    const float *value = s->value + head * s->head_stride + d;
    floats_t sum[QUERIES][VECTORS];
    for (int q = 0; q < QUERIES; q++)
        for (int v = 0; v < vectors; v++)
            sum[q][v] = load(to[q] + v * LANES);
    for (int64_t k = 0; k < s->rows; k++, value += s->row_stride, weights += QUERIES)
        for (int v = 0; v < vectors; v++) {
            floats_t each = load(value + v * LANES);
            HOLD(each);
            for (int q = 0; q < QUERIES; q++)
                sum[q][v] += weights[q] * each;
        }
    for (int q = 0; q < QUERIES; q++)
        for (int v = 0; v < vectors; v++)
            store(to[q] + v * LANES, sum[q][v]);
}

// Four rows of one head, from their weights.
static inline void mix_all(const float *weights, four_t by, const segment_t *segments, int count, int64_t head,
                           int64_t size, float *const *to, int many)
{
    for (int64_t d = 0; d < size;) {
        const int64_t left = size - d;
        const int vectors = left >= VECTORS * LANES ? VECTORS : left >= LANES ? 1 : 0;
        float sums[QUERIES][VECTORS * LANES] = {{0}};
        const float *of = weights;
        for (int i = 0; i < count; of += QUERIES * segments[i++].rows)
            if (vectors == VECTORS)
                mix(VECTORS, of, segments + i, head, d, sums);
            else if (vectors)
                mix(1, of, segments + i, head, d, sums);
            else
                for (int64_t k = 0; k < segments[i].rows; k++)
                    for (int q = 0; q < QUERIES; q++)
                        for (int64_t l = 0; l < left; l++)
                            sums[q][l] += of[QUERIES * k + q]
                                          * segments[i].value[head * segments[i].head_stride
                                                              + k * segments[i].row_stride + d + l];
        const int64_t done = vectors ? vectors * LANES : left;
        for (int q = 0; q < many; q++)
            for (int64_t l = 0; l < done; l++)
                to[q][d + l] = sums[q][l] * by[q];
        d += done;
    }
}

// heads, queries, size of a vector, factor (bits of a double), to, row stride, head stride, query, row stride, head
// stride, bias (queries, keys), scratch (8 numbers a key), segments, then of each: keys, values, rows (-1 - i: size i of
// those that vary), row stride, head stride (-1: rows times the row stride)
static void attention(const frame_t *f, args_t a)
{
    const int64_t heads = a[0], queries = a[1], size = a[2];
    const float factor = (float)real(a[3]);
    float *to = at(f, a[4]);
    const float *query = at(f, a[7]), *bias = at(f, a[10]);
    segment_t segments[2];
    const int count = (int)a[12], whole = (int)(size / LANES < MOST_VECTORS ? size / LANES : MOST_VECTORS);
    int64_t keys = 0;
    for (int i = 0; i < count; i++) {
        args_t of = a + 13 + 5 * i;
        segment_t *s = segments + i;
        s->key = at(f, of[0]);
        s->value = at(f, of[1]);
        s->rows = of[2] < 0 ? f->sizes[-1 - of[2]] : of[2];
        s->row_stride = of[3];
        s->head_stride = of[4] < 0 ? s->rows * of[3] : of[4];
        keys += s->rows;
    }
    float *beside = at(f, a[11]), *scores = beside + QUERIES * keys;
    for (int64_t first = 0; first < queries; first += QUERIES) {
        const int many = (int)(queries - first < QUERIES ? queries - first : QUERIES);
        // Where there are fewer queries than that the last one counts again, and is not written.
        int64_t number[QUERIES];
        for (int q = 0; q < QUERIES; q++)
            number[q] = first + (q < many ? q : many - 1);
        for (int q = 0; q < QUERIES; q++)
            for (int64_t k = 0; k < keys; k++)
                beside[QUERIES * k + q] = bias ? bias[number[q] * keys + k] : 0.0f;
        for (int64_t h = 0; h < heads; h++) {
            const float *of[QUERIES];
            float *out[QUERIES], *own = scores;
            for (int q = 0; q < QUERIES; q++) {
                of[q] = query + number[q] * a[8] + h * a[9];
                out[q] = to + number[q] * a[5] + h * a[6];
            }
            memcpy(scores, beside, (size_t)(QUERIES * keys) * sizeof *scores);
            for (int i = 0; i < count; own += QUERIES * segments[i++].rows)
                if (whole == VECTORS)
                    score(VECTORS, of, size, segments + i, h, factor, own);
                else if (whole == 2 * VECTORS)
                    score(2 * VECTORS, of, size, segments + i, h, factor, own);
                else if (whole == 4 * VECTORS)
                    score(4 * VECTORS, of, size, segments + i, h, factor, own);
                else
                    score(whole, of, size, segments + i, h, factor, own);
            const four_t by = weigh(scores, keys);
            mix_all(scores, by, segments, count, h, size, out, many);
        }
    }
}

// ---- programs

typedef void (*operator_t)(const frame_t *, args_t);

// In the order of program.py.
static const operator_t OPERATORS[] = {copy,    binary, unary,       where,     reduce, softmax,   layer_norm,
                                       gate,    product, linear,     convolution, depthwise, rotate, attention, gather};

enum { OK, BAD_PROGRAM };

static inline int64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

// program: `length` words; times: NULL, or room for the ns that each instruction takes
int edgeasr_native_run(const int64_t *program, int64_t length, char *const *roots, const int64_t *sizes, int64_t *times)
{
    const frame_t frame = {roots, sizes};
    int64_t before = times ? now_ns() : 0;
    for (const int64_t *word = program, *end = program + length; word < end; word += 2 + word[1]) {
        if (word[0] < 0 || word[0] >= (int64_t)(sizeof OPERATORS / sizeof *OPERATORS))
            return BAD_PROGRAM;
        OPERATORS[word[0]](&frame, word + 2);
        if (times) {
            const int64_t now = now_ns();
            *times++ = now - before;
            before = now;
        }
    }
    return OK;
}

// What others have to know: floats of a vector, output channels of a tile of a convolution, whether weights of 8 bits
// are multiplied exactly, and whether there are instructions for products in int8.
void edgeasr_native_layout(int64_t *lanes, int64_t *channels, int64_t *eight_bits, int64_t *fast)
{
    *lanes = LANES;
    *channels = CHANNELS;
#if defined(DOT_AVX2) || defined(DOT_NEON)
    *eight_bits = 0;
#else
    *eight_bits = 1;
#endif
#if defined(DOT_VNNI) || defined(DOT_AVX2) || defined(DOT_SDOT) || defined(DOT_NEON)
    *fast = 1;
#else
    *fast = 0;
#endif
}
