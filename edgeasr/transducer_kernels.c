// What a transducer computes (transducer.py), on weights as its file has them: integers of 8 bits with a scale an
// output. They become float32 in registers, and sums are float32: numpy has to keep four times as many bytes and read
// them all again for every chunk. Sums of a row are added in one order, however many rows there are.

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define EDGEASR_LANES 16 // of a vector of the processor
#elif defined(__AVX2__)
#define EDGEASR_LANES 8
#else
#define EDGEASR_LANES 4
#endif
#define EDGEASR_TILE (4 * EDGEASR_LANES) // outputs that are summed together
#define EDGEASR_BLOCK 4                  // rows that share a tile's weights while these are in registers
#define EDGEASR_BLANK 0

typedef enum { EDGEASR_OK = 0, EDGEASR_BAD_ARG = 1 } edgeasr_status_t;

typedef int32_t ints_t __attribute__((vector_size(4 * EDGEASR_LANES)));
typedef float floats_t __attribute__((vector_size(4 * EDGEASR_LANES)));

// Lane l of a tile's integers has the weights of four outputs, w[k] that of output k * EDGEASR_LANES + l, as
// w[0] + 2^8 w[1] + 2^16 w[2] + 2^24 w[3], each from -127 to 127, and 0 for outputs that the last tile lacks.
typedef struct {
    const int32_t *weights; // (tiles of outputs, inputs, EDGEASR_LANES)
    const float *scale;    // (outputs,)
    const float *bias;     // (outputs,)
    size_t inputs, outputs;
} edgeasr_layer_t;

typedef struct {
    const int8_t *values; // (pieces, width)
    const float *scale;   // (width,)
    size_t pieces, width;
} edgeasr_embedding_t;

// edgeasr.neural.ReadOut: widths of expand.inputs, expand.outputs, and output.outputs
typedef struct {
    edgeasr_layer_t expand, contract, output;
} edgeasr_read_out_t;

typedef struct {
    edgeasr_layer_t acoustic;
    edgeasr_embedding_t embedding;
    edgeasr_layer_t predictor;
    edgeasr_read_out_t joiner;
    edgeasr_embedding_t text_embedding;
    edgeasr_layer_t text_input;
    edgeasr_read_out_t text;
    size_t context; // pieces that the language model knows; the predictor knows as many or fewer
    float gain, text_gain;
} edgeasr_transducer_t;

typedef struct {
    size_t token_id;
    float log_prob;
} edgeasr_piece_t;

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

// e^x to some units in the last place; what is out of range is as at its end.
static inline float exponential(float x)
{
    const float within = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
    // The nearest power of 2, as a float has it: above 0, where to convert is to round down.
    const int32_t biased = (int32_t)(within * 1.44269504f + 127.5f);
    const float power = (float)(biased - 127);
    // The logarithm of 2 in two parts, of which the first times any power is exact.
    const float rest = (within - power * 0.693359375f) + power * 2.12194440e-4f;
    const int32_t bits = biased << 23;
    float scale, sum = 1.9875691500e-4f;

    memcpy(&scale, &bits, sizeof scale);
    sum = sum * rest + 1.3981999507e-3f;
    sum = sum * rest + 8.3334519073e-3f;
    sum = sum * rest + 4.1665795894e-2f;
    sum = sum * rest + 1.6666665459e-1f;
    sum = sum * rest + 5.0000001201e-1f;
    return ((sum * rest) * rest + rest + 1.0f) * scale;
}

static void apply_silu(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = x[i] / (1.0f + exponential(-x[i]));
}

// In lanes, since compilers may not reorder sums of floats into vectors by themselves.
static float sum_of(const float *x, size_t n)
{
    float lanes[EDGEASR_TILE] = {0.0f}, sum = 0.0f;
    size_t i = 0;
    for (; i + EDGEASR_TILE <= n; i += EDGEASR_TILE)
        for (size_t lane = 0; lane < EDGEASR_TILE; lane++)
            lanes[lane] += x[i + lane];
    for (; i < n; i++)
        sum += x[i];
    for (size_t lane = 0; lane < EDGEASR_TILE; lane++)
        sum += lanes[lane];
    return sum;
}

static float largest_of(const float *x, size_t n)
{
    float largest = x[0];
    for (size_t i = 1; i < n; i++)
        largest = x[i] > largest ? x[i] : largest;
    return largest;
}

// The logarithm of the sum of e^(x - offset). scratch: n
static float log_sum(const float *restrict x, size_t n, float offset, float *restrict scratch)
{
    for (size_t i = 0; i < n; i++)
        scratch[i] = exponential(x[i] - offset);
    return logf(sum_of(scratch, n));
}

// Mean 0 and variance 1 of every row. squares: width
static void normalise(const float *restrict x, size_t rows, size_t width, float *restrict normal, float *restrict squares)
{
    for (size_t row = 0; row < rows; row++, x += width, normal += width) {
        const float mean = sum_of(x, width) / (float)width;
        for (size_t i = 0; i < width; i++) {
            normal[i] = x[i] - mean;
            squares[i] = normal[i] * normal[i];
        }
        const float scale = 1.0f / sqrtf(sum_of(squares, width) / (float)width + 1e-5f);
        for (size_t i = 0; i < width; i++)
            normal[i] *= scale;
    }
}

// Sums of one tile for so many rows: to be inlined where that is a constant, so that they stay in registers.
//
// An integer shifted until w[k] is on top is 2^24 (w[k] + w[k - 1] / 2^8 + ...): two instructions for a float, where to
// take the weight alone would be three. What is too much in a sum is 2^-8 of the sum before it.
static inline __attribute__((always_inline)) void sum_tile(const int32_t *restrict weights, const float *const *x,
                                                           size_t inputs, const size_t rows,
                                                           float sums[restrict][EDGEASR_TILE])
{
    floats_t kept[EDGEASR_BLOCK][4] = {{{0.0f}}};
    const float *of_row[EDGEASR_BLOCK];
    for (size_t row = 0; row < rows; row++)
        of_row[row] = x[row];
    for (size_t i = 0; i < inputs; i++, weights += EDGEASR_LANES) {
        ints_t four;
        memcpy(&four, weights, sizeof four);
        for (int k = 0; k < 4; k++) {
            const floats_t weight = __builtin_convertvector(four << (24 - 8 * k), floats_t);
            for (size_t row = 0; row < rows; row++)
                kept[row][k] += of_row[row][i] * weight;
        }
    }
    for (size_t row = 0; row < rows; row++)
        for (int k = 3; k >= 0; k--) {
            const floats_t sum = (k > 0 ? kept[row][k] - kept[row][k - 1] * 0x1p-8f : kept[row][k]) * 0x1p-24f;
            memcpy(&sums[row][k * EDGEASR_LANES], &sum, sizeof sum);
        }
}

// x: rows, up to EDGEASR_BLOCK of them; out: (rows, outputs)
static void multiply_block(const edgeasr_layer_t *layer, const float *const *x, size_t rows, float *restrict out)
{
    float sums[EDGEASR_BLOCK][EDGEASR_TILE];
    const int32_t *weights = layer->weights;
    for (size_t first = 0; first < layer->outputs; first += EDGEASR_TILE, weights += EDGEASR_LANES * layer->inputs) {
        const size_t left = layer->outputs - first, count = left < EDGEASR_TILE ? left : EDGEASR_TILE;
        const float *scale = layer->scale + first, *bias = layer->bias + first;
        switch (rows) {
        case 1: sum_tile(weights, x, layer->inputs, 1, sums); break;
        case 2: sum_tile(weights, x, layer->inputs, 2, sums); break;
        case 3: sum_tile(weights, x, layer->inputs, 3, sums); break;
        default: sum_tile(weights, x, layer->inputs, 4, sums); break;
        }
        for (size_t row = 0; row < rows; row++)
            for (size_t i = 0; i < count; i++)
                out[row * layer->outputs + first + i] = sums[row][i] * scale[i] + bias[i];
    }
}

// x: (rows, inputs), up to EDGEASR_BLOCK rows; out: (rows, outputs)
static void multiply(const edgeasr_layer_t *layer, const float *x, size_t rows, float *out)
{
    const float *of_row[EDGEASR_BLOCK];
    for (size_t row = 0; row < rows; row++)
        of_row[row] = x + row * layer->inputs;
    multiply_block(layer, of_row, rows, out);
}

static size_t read_out_scratch(const edgeasr_read_out_t *part)
{
    return EDGEASR_BLOCK * (part->expand.inputs + part->expand.outputs) + part->expand.inputs;
}

// x: (rows, width), up to EDGEASR_BLOCK rows, lost; scores: (rows, outputs); scratch: read_out_scratch()
static void read_out(const edgeasr_read_out_t *part, float *restrict x, size_t rows, float *restrict scores,
                     float *restrict scratch)
{
    const size_t width = part->expand.inputs;
    float *normal = scratch, *inner = normal + rows * width, *squares = inner + rows * part->expand.outputs;

    normalise(x, rows, width, normal, squares);
    multiply(&part->expand, normal, rows, inner);
    apply_silu(inner, rows * part->expand.outputs);
    multiply(&part->contract, inner, rows, normal);
    for (size_t i = 0; i < rows * width; i++)
        x[i] += normal[i];
    normalise(x, rows, width, normal, squares);
    multiply(&part->output, normal, rows, scores);
}

static void embed(const edgeasr_embedding_t *embedding, const intptr_t *pieces, size_t count, float *restrict out)
{
    for (size_t i = 0; i < count; i++, out += embedding->width) {
        const int8_t *values = embedding->values + (size_t)pieces[i] * embedding->width;
        for (size_t j = 0; j < embedding->width; j++)
            out[j] = (float)values[j] * embedding->scale[j];
    }
}

const size_t edgeasr_transducer_lanes = EDGEASR_LANES;

// Floats that the functions below need to work in.
size_t edgeasr_transducer_scratch(const edgeasr_transducer_t *transducer)
{
    const size_t predict = larger(transducer->predictor.inputs, transducer->text_input.inputs) +
                           transducer->text.expand.inputs +
                           larger(read_out_scratch(&transducer->text), transducer->text.output.outputs);
    const size_t find = EDGEASR_BLOCK * (transducer->joiner.expand.inputs + transducer->joiner.output.outputs) +
                        larger(read_out_scratch(&transducer->joiner), transducer->joiner.output.outputs);
    return larger(predict, find);
}

// Windows of projected frames to the acoustic part.
// frames: (num_frames, frame_width); starts: (rows,), first frame of each window; heard: (rows, outputs)
// BAD_ARG: a window that is not within the frames.
edgeasr_status_t edgeasr_transducer_hear(const edgeasr_transducer_t *transducer, const float *frames, size_t num_frames,
                                         size_t frame_width, const intptr_t *starts, size_t rows, float *heard)
{
    const edgeasr_layer_t *acoustic = &transducer->acoustic;
    for (size_t row = 0; row < rows; row++)
        if (starts[row] < 0 || (size_t)starts[row] > num_frames ||
            (num_frames - (size_t)starts[row]) * frame_width < acoustic->inputs)
            return EDGEASR_BAD_ARG;
    for (size_t first = 0; first < rows; first += EDGEASR_BLOCK) {
        const size_t left = rows - first, count = left < EDGEASR_BLOCK ? left : EDGEASR_BLOCK;
        const float *windows[EDGEASR_BLOCK];
        for (size_t row = 0; row < count; row++)
            windows[row] = frames + (size_t)starts[first + row] * frame_width;
        multiply_block(acoustic, windows, count, heard + first * acoustic->outputs);
    }
    return EDGEASR_OK;
}

// What the last pieces say of the next one.
// context: (transducer->context,); part: for the joiner; scores: log-probabilities of the language model times its gain
// BAD_ARG: a piece that no embedding has.
edgeasr_status_t edgeasr_transducer_predict(const edgeasr_transducer_t *transducer, const intptr_t *context,
                                            float *part, float *scores, float *scratch)
{
    const edgeasr_embedding_t *embedding = &transducer->embedding;
    const size_t known = transducer->predictor.inputs / embedding->width, tokens = transducer->text.output.outputs;
    float *x = scratch + larger(transducer->predictor.inputs, transducer->text_input.inputs);
    float *rest = x + transducer->text.expand.inputs;

    for (size_t i = 0; i < transducer->context; i++)
        if (context[i] < 0 || (size_t)context[i] >= embedding->pieces)
            return EDGEASR_BAD_ARG;
    embed(embedding, context + transducer->context - known, known, scratch);
    multiply(&transducer->predictor, scratch, 1, part);
    embed(&transducer->text_embedding, context, transducer->context, scratch);
    multiply(&transducer->text_input, scratch, 1, x);
    apply_silu(x, transducer->text.expand.inputs);
    read_out(&transducer->text, x, 1, scores, rest);
    const float largest = largest_of(scores, tokens), total = largest + log_sum(scores, tokens, largest, rest);
    for (size_t i = 0; i < tokens; i++)
        scores[i] = transducer->text_gain * (scores[i] - total);
    scores[EDGEASR_BLANK] = 0.0f; // which no text has
    return EDGEASR_OK;
}

// The first of the rows whose best token is a piece; rows where none is.
// heard: (rows, width); part, text: of edgeasr_transducer_predict; log_probs: emissions, (rows, tokens)
// piece: written where there is one
size_t edgeasr_transducer_find(const edgeasr_transducer_t *transducer, const float *heard, const float *part,
                               const float *text, const float *log_probs, size_t rows, float *scratch,
                               edgeasr_piece_t *piece)
{
    const size_t width = transducer->joiner.expand.inputs, tokens = transducer->joiner.output.outputs;
    float *x = scratch, *scores = x + EDGEASR_BLOCK * width, *rest = scores + EDGEASR_BLOCK * tokens;

    for (size_t first = 0; first < rows; first += EDGEASR_BLOCK) {
        const size_t left = rows - first, count = left < EDGEASR_BLOCK ? left : EDGEASR_BLOCK;
        for (size_t row = 0; row < count; row++)
            for (size_t i = 0; i < width; i++)
                x[row * width + i] = heard[(first + row) * width + i] + part[i];
        apply_silu(x, count * width);
        read_out(&transducer->joiner, x, count, scores, rest);
        for (size_t row = 0; row < count; row++) {
            float *of_row = scores + row * tokens;
            size_t best = 0;
            for (size_t i = 0; i < tokens; i++)
                of_row[i] += transducer->gain * log_probs[(first + row) * tokens + i] + text[i];
            for (size_t i = 1; i < tokens; i++)
                best = of_row[i] > of_row[best] ? i : best;
            if (best != EDGEASR_BLANK) {
                *piece = (edgeasr_piece_t){best, -log_sum(of_row, tokens, of_row[best], rest)};
                return first + row;
            }
        }
    }
    return rows;
}
