#include "edgeasr_features.h"

// log_mel is in 1/1024 nats, the offset in 1/256.
#define OFFSET_SCALE ((int32_t)(EDGEASR_FEATURE_STEP_UNIT / EDGEASR_FEATURE_OFFSET_UNIT))
#define NUM_PARAMETERS (EDGEASR_RICE_MAX_PARAMETER + 1u)

static int32_t clamp_int8(int32_t value) {
    return value < INT8_MIN ? INT8_MIN : value > INT8_MAX ? INT8_MAX : value;
}

// Rounded towards minus infinity, where C rounds towards zero.
static int32_t floor_divide(int32_t value, int32_t by) {
    const int32_t quotient = value / by;
    return value % by < 0 ? quotient - 1 : quotient;
}

edgeasr_status_t edgeasr_features_quantize(const int16_t *log_mel, size_t n, uint16_t step, int16_t offset, int8_t *q) {
    if (log_mel == NULL || q == NULL || step == 0) {
        return EDGEASR_BAD_ARG;
    }
    for (size_t i = 0; i < n; i++) {
        const int32_t above = (int32_t)log_mel[i] - OFFSET_SCALE * offset;
        q[i] = (int8_t)clamp_int8(floor_divide(2 * above + step, 2 * (int32_t)step));
    }
    return EDGEASR_OK;
}

edgeasr_status_t edgeasr_features_dequantize(const int8_t *q, size_t n, uint16_t step, int16_t offset,
                                             int32_t *log_mel) {
    if (q == NULL || log_mel == NULL) {
        return EDGEASR_BAD_ARG;
    }
    for (size_t i = 0; i < n; i++) {
        log_mel[i] = q[i] * (int32_t)step + OFFSET_SCALE * offset;
    }
    return EDGEASR_OK;
}

// What the value at `at` is expected to be from three neighbours before it: least squares on speech, in quarters.
static int32_t predict(const int8_t *at, uint32_t frame, uint32_t mel, size_t num_mels) {
    if (frame == 0) {
        return mel == 0 ? 0 : at[-1];
    }
    const int8_t *before = at - num_mels;
    if (mel == 0) {
        return *before;
    }
    return clamp_int8(floor_divide(3 * *before + 3 * at[-1] - 2 * before[-1] + 2, 4));
}

// Small differences of either sign become small numbers.
static uint32_t mapped_residual(const int8_t *at, uint32_t frame, uint32_t mel, size_t num_mels) {
    const int32_t residual = *at - predict(at, frame, mel, num_mels);
    return (uint32_t)(residual >= 0 ? 2 * residual : -2 * residual - 1);
}

static uint32_t code_length(uint32_t mapped, uint32_t parameter) {
    const uint32_t ones = mapped >> parameter;
    return ones < EDGEASR_RICE_ESCAPE_ONES ? ones + 1u + parameter
                                           : EDGEASR_RICE_ESCAPE_ONES + EDGEASR_RICE_ESCAPE_BITS;
}

static uint32_t best_parameter(const int8_t *row, uint32_t frame, uint8_t num_mels) {
    uint32_t lengths[NUM_PARAMETERS] = {0};
    for (uint32_t mel = 0; mel < num_mels; mel++) {
        const uint32_t mapped = mapped_residual(row + mel, frame, mel, num_mels);
        for (uint32_t parameter = 0; parameter < NUM_PARAMETERS; parameter++) {
            lengths[parameter] += code_length(mapped, parameter);
        }
    }
    uint32_t best = 0;
    for (uint32_t parameter = 1; parameter < NUM_PARAMETERS; parameter++) {
        if (lengths[parameter] < lengths[best]) {
            best = parameter;
        }
    }
    return best;
}

typedef struct {
    uint8_t *out;
    size_t out_max;
    size_t length;
    uint32_t bits;   // waiting, the last `count` of them are meant
    uint32_t count;  // below 8 between two calls
} bit_writer_t;

// count: up to 20.
static edgeasr_status_t put_bits(bit_writer_t *writer, uint32_t value, uint32_t count) {
    writer->bits = (writer->bits << count) | value;
    writer->count += count;
    while (writer->count >= 8) {
        if (writer->length == writer->out_max) {
            return EDGEASR_OVERFLOW;
        }
        writer->count -= 8;
        writer->out[writer->length++] = (uint8_t)((writer->bits >> writer->count) & 0xFFu);
    }
    return EDGEASR_OK;
}

static edgeasr_status_t put_code(bit_writer_t *writer, uint32_t mapped, uint32_t parameter) {
    const uint32_t ones = mapped >> parameter;
    if (ones >= EDGEASR_RICE_ESCAPE_ONES) {
        const edgeasr_status_t status =
            put_bits(writer, (1u << EDGEASR_RICE_ESCAPE_ONES) - 1u, EDGEASR_RICE_ESCAPE_ONES);
        return status != EDGEASR_OK ? status : put_bits(writer, mapped, EDGEASR_RICE_ESCAPE_BITS);
    }
    const edgeasr_status_t status = put_bits(writer, (1u << (ones + 1u)) - 2u, ones + 1u);
    return status != EDGEASR_OK ? status : put_bits(writer, mapped & ((1u << parameter) - 1u), parameter);
}

edgeasr_status_t edgeasr_features_encode(const int8_t *q, uint8_t num_frames, uint8_t num_mels, uint8_t *out,
                                         size_t out_max, size_t *out_len) {
    if (q == NULL || out == NULL || out_len == NULL || num_mels == 0) {
        return EDGEASR_BAD_ARG;
    }
    bit_writer_t writer = {out, out_max, 0, 0, 0};
    for (uint32_t frame = 0; frame < num_frames; frame++) {
        const int8_t *row = q + (size_t)frame * num_mels;
        const uint32_t parameter = best_parameter(row, frame, num_mels);
        edgeasr_status_t status = put_bits(&writer, parameter, EDGEASR_RICE_PARAMETER_BITS);
        for (uint32_t mel = 0; mel < num_mels && status == EDGEASR_OK; mel++) {
            status = put_code(&writer, mapped_residual(row + mel, frame, mel, num_mels), parameter);
        }
        if (status != EDGEASR_OK) {
            return status;
        }
    }
    if (writer.count > 0) {
        const edgeasr_status_t status = put_bits(&writer, 0, 8u - writer.count);
        if (status != EDGEASR_OK) {
            return status;
        }
    }
    *out_len = writer.length;
    return EDGEASR_OK;
}

typedef struct {
    const uint8_t *in;
    size_t n;
    size_t used;
    uint32_t bits;   // those that wait are the last `count`
    uint32_t count;
} bit_reader_t;

// count: up to 9.
static edgeasr_status_t get_bits(bit_reader_t *reader, uint32_t count, uint32_t *value) {
    while (reader->count < count) {
        if (reader->used == reader->n) {
            return EDGEASR_TRUNCATED;
        }
        reader->bits = (reader->bits << 8) | reader->in[reader->used++];
        reader->count += 8;
    }
    reader->count -= count;
    *value = (reader->bits >> reader->count) & ((1u << count) - 1u);
    return EDGEASR_OK;
}

static edgeasr_status_t get_code(bit_reader_t *reader, uint32_t parameter, uint32_t *mapped) {
    uint32_t ones = 0;
    uint32_t bit = 1;
    while (ones < EDGEASR_RICE_ESCAPE_ONES) {
        const edgeasr_status_t status = get_bits(reader, 1, &bit);
        if (status != EDGEASR_OK) {
            return status;
        }
        if (bit == 0) {
            break;
        }
        ones++;
    }
    if (ones == EDGEASR_RICE_ESCAPE_ONES) {
        return get_bits(reader, EDGEASR_RICE_ESCAPE_BITS, mapped);
    }
    const edgeasr_status_t status = get_bits(reader, parameter, mapped);
    *mapped |= ones << parameter;
    return status;
}

static edgeasr_status_t decode_row(bit_reader_t *reader, int8_t *row, uint32_t frame, uint8_t num_mels) {
    uint32_t parameter;
    edgeasr_status_t status = get_bits(reader, EDGEASR_RICE_PARAMETER_BITS, &parameter);
    for (uint32_t mel = 0; mel < num_mels && status == EDGEASR_OK; mel++) {
        uint32_t mapped = 0;
        status = get_code(reader, parameter, &mapped);
        if (status != EDGEASR_OK) {
            return status;
        }
        const int32_t half = (int32_t)(mapped / 2u);
        const int32_t value = predict(row + mel, frame, mel, num_mels) + (mapped % 2u == 0 ? half : -half - 1);
        if (value < INT8_MIN || value > INT8_MAX) {
            return EDGEASR_MALFORMED;
        }
        row[mel] = (int8_t)value;
    }
    return status;
}

edgeasr_status_t edgeasr_features_decode(const uint8_t *in, size_t n, uint8_t num_frames, uint8_t num_mels, int8_t *q) {
    if ((in == NULL && n > 0) || q == NULL || num_mels == 0) {
        return EDGEASR_BAD_ARG;
    }
    bit_reader_t reader = {in, n, 0, 0, 0};
    for (uint32_t frame = 0; frame < num_frames; frame++) {
        const edgeasr_status_t status = decode_row(&reader, q + (size_t)frame * num_mels, frame, num_mels);
        if (status != EDGEASR_OK) {
            return status;
        }
    }
    if (reader.used < n) {
        return EDGEASR_BAD_LENGTH;
    }
    return (reader.bits & ((1u << reader.count) - 1u)) == 0 ? EDGEASR_OK : EDGEASR_MALFORMED;
}
