#include "edgeasr_adpcm.h"

static const uint16_t STEPS[EDGEASR_ADPCM_MAX_STEP_INDEX + 1] = {
    7,     8,     9,     10,    11,    12,    13,    14,    16,    17,    19,    21,    23,    25,    28,
    31,    34,    37,    41,    45,    50,    55,    60,    66,    73,    80,    88,    97,    107,   118,
    130,   143,   157,   173,   190,   209,   230,   253,   279,   307,   337,   371,   408,   449,   494,
    544,   598,   658,   724,   796,   876,   963,   1060,  1166,  1282,  1411,  1552,  1707,  1878,  2066,
    2272,  2499,  2749,  3024,  3327,  3660,  4026,  4428,  4871,  5358,  5894,  6484,  7132,  7845,  8630,
    9493,  10442, 11487, 12635, 13899, 15289, 16818, 18500, 20350, 22385, 24623, 27086, 29794, 32767,
};

static const int8_t INDEX_CHANGES[8] = {-1, -1, -1, -1, 2, 4, 6, 8};

static int32_t clamp(int32_t value, int32_t low, int32_t high) {
    return value < low ? low : value > high ? high : value;
}

// The decoder, which the encoder follows too.
static void advance(edgeasr_adpcm_t *state, uint32_t code) {
    const int32_t step = STEPS[state->step_index];
    int32_t change = step >> 3;
    change += (code & 4u) != 0 ? step : 0;
    change += (code & 2u) != 0 ? step >> 1 : 0;
    change += (code & 1u) != 0 ? step >> 2 : 0;
    const int32_t predictor = state->predictor + ((code & 8u) != 0 ? -change : change);
    state->predictor = (int16_t)clamp(predictor, INT16_MIN, INT16_MAX);
    state->step_index =
        (uint8_t)clamp(state->step_index + INDEX_CHANGES[code & 7u], 0, (int32_t)EDGEASR_ADPCM_MAX_STEP_INDEX);
}

static uint32_t encode_sample(edgeasr_adpcm_t *state, int16_t sample) {
    int32_t step = STEPS[state->step_index];
    int32_t difference = (int32_t)sample - state->predictor;
    uint32_t code = 0;
    if (difference < 0) {
        code = 8;
        difference = -difference;
    }
    for (uint32_t bit = 4; bit > 0; bit >>= 1) {
        if (difference >= step) {
            code |= bit;
            difference -= step;
        }
        step >>= 1;
    }
    advance(state, code);
    return code;
}

edgeasr_status_t edgeasr_adpcm_encode(edgeasr_adpcm_t *state, const int16_t *samples, size_t n, uint8_t *out,
                                      size_t out_max, size_t *out_len) {
    if (state == NULL || samples == NULL || out == NULL || out_len == NULL ||
        state->step_index > EDGEASR_ADPCM_MAX_STEP_INDEX) {
        return EDGEASR_BAD_ARG;
    }
    if (out_max < EDGEASR_ADPCM_SIZE(n)) {
        return EDGEASR_OVERFLOW;
    }
    uint8_t *data = edgeasr_put_i16(out, state->predictor);
    data = edgeasr_put_u8(data, state->step_index);
    data = edgeasr_put_u8(data, 0);
    for (size_t i = 0; i < n; i += 2) {
        uint32_t pair = encode_sample(state, samples[i]);
        if (i + 1 < n) {
            pair |= encode_sample(state, samples[i + 1]) << 4;
        }
        *data++ = (uint8_t)pair;
    }
    *out_len = EDGEASR_ADPCM_SIZE(n);
    return EDGEASR_OK;
}

edgeasr_status_t edgeasr_adpcm_decode(const uint8_t *in, size_t in_len, int16_t *samples, size_t n) {
    if (in == NULL || samples == NULL) {
        return EDGEASR_BAD_ARG;
    }
    if (in_len != EDGEASR_ADPCM_SIZE(n)) {
        return EDGEASR_BAD_LENGTH;
    }
    edgeasr_adpcm_t state = {edgeasr_get_i16(in), in[2]};
    if (state.step_index > EDGEASR_ADPCM_MAX_STEP_INDEX || in[3] != 0) {
        return EDGEASR_MALFORMED;
    }
    for (size_t i = 0; i < n; i++) {
        const uint8_t pair = in[EDGEASR_ADPCM_HEADER_SIZE + i / 2];
        advance(&state, (i % 2 == 0 ? pair : pair >> 4) & 15u);
        samples[i] = state.predictor;
    }
    return EDGEASR_OK;
}
