#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "edgeasr_features.h"
#include "edgeasr_fixed.h"
#include "edgeasr_logmel.h"

static void test_quantisation(void) {
    static const int16_t LOG_MEL[6] = {0, 100, -100, 255, 32767, -32768};
    int8_t q[6];
    int32_t back[6];
    CHECK(edgeasr_features_quantize(LOG_MEL, 6, 512, 0, q) == EDGEASR_OK);
    CHECK(q[0] == 0 && q[1] == 0 && q[2] == 0 && q[3] == 0 && q[4] == 64 && q[5] == -64);
    CHECK(edgeasr_features_quantize(LOG_MEL, 6, 200, -25, q) == EDGEASR_OK);
    CHECK(q[0] == 1 && q[1] == 1 && q[2] == 0 && q[3] == 2 && q[4] == 127 && q[5] == -128);
    CHECK(edgeasr_features_dequantize(q, 6, 200, -25, back) == EDGEASR_OK);
    CHECK(back[0] == 100 && back[3] == 300 && back[4] == 25300 && back[5] == -25700);
    CHECK(edgeasr_features_quantize(LOG_MEL, 6, 0, 0, q) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_features_dequantize(NULL, 6, 1, 0, back) == EDGEASR_BAD_ARG);
}

static void test_rice(void) {
    static int8_t q[8 * 80];
    static int8_t back[8 * 80];
    uint8_t bytes[EDGEASR_FEATURES_MAX(8, 80)];
    unsigned state = 1;
    size_t length = 0;
    for (unsigned spread = 1; spread <= 256; spread *= 2) {
        for (size_t i = 0; i < sizeof q; i++) {
            q[i] = (int8_t)(check_random(&state) % spread - spread / 2u);
        }
        q[100] = 127;  // one that needs the escape where the others are small
        q[101] = -128;
        CHECK(edgeasr_features_encode(q, 8, 80, bytes, sizeof bytes, &length) == EDGEASR_OK);
        CHECK(edgeasr_features_decode(bytes, length, 8, 80, back) == EDGEASR_OK && memcmp(q, back, sizeof q) == 0);
        CHECK(edgeasr_features_decode(bytes, length - 1, 8, 80, back) == EDGEASR_TRUNCATED);
        for (size_t room = 0; room < length; room += 1 + room / 8) {
            CHECK(edgeasr_features_encode(q, 8, 80, bytes, room, &length) == EDGEASR_OVERFLOW);
        }
        CHECK(edgeasr_features_encode(q, 8, 80, bytes, length - 1, &length) == EDGEASR_OVERFLOW);
    }
    CHECK(edgeasr_features_encode(q, 0, 80, bytes, 0, &length) == EDGEASR_OK && length == 0);
    CHECK(edgeasr_features_encode(q, 1, 0, bytes, 9, &length) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_features_decode(NULL, 0, 0, 80, q) == EDGEASR_OK);
    CHECK(edgeasr_features_decode(NULL, 1, 1, 80, q) == EDGEASR_BAD_ARG);
    // Parameter 0, then a zero: the value 0, and four bits to spare.
    CHECK(edgeasr_features_decode((const uint8_t *)"", 1, 1, 1, q) == EDGEASR_OK && q[0] == 0);
    CHECK(edgeasr_features_decode((const uint8_t *)"\1", 1, 1, 1, q) == EDGEASR_MALFORMED);
    CHECK(edgeasr_features_decode((const uint8_t *)"\0", 2, 1, 1, q) == EDGEASR_BAD_LENGTH);
    // Parameter 7, quotient 2: 2 * 128 is the value 128, and 1 more is -129.
    CHECK(edgeasr_features_decode((const uint8_t *)"\370", 2, 1, 1, q) == EDGEASR_MALFORMED);
    CHECK(edgeasr_features_decode((const uint8_t *)"\370\20", 2, 1, 1, q) == EDGEASR_MALFORMED);
}

void test_features(void) {
    test_quantisation();
    test_rice();
}

static void test_arithmetic(void) {
    CHECK(edgeasr_multiply_q16(-1, 1) == -1);
    CHECK(edgeasr_multiply_q16(INT32_MIN, INT16_MIN) == 1 << 30);
    CHECK(edgeasr_multiply_q16(INT32_MAX, INT16_MAX) == (int32_t)(((int64_t)INT32_MAX * INT16_MAX) >> 16));
    CHECK(edgeasr_log2_q15(0) == 0 && edgeasr_log2_q15(1) == 0);
    CHECK(edgeasr_log2_q15(UINT64_MAX) == 64u << 15);
    double worst = 0;
    for (uint64_t value = 1; value < UINT64_MAX / 5 * 4; value += value / 4 + 1) {
        worst = fmax(worst, fabs((double)edgeasr_log2_q15(value) / 32768.0 - log2((double)value)));
    }
    CHECK(worst < 0.00008);
}

void test_logmel(void) {
    static edgeasr_logmel_t state;
    static int16_t samples[1000];
    int16_t whole[4][EDGEASR_LOGMEL_NUM_MELS];
    int16_t parts[EDGEASR_LOGMEL_NUM_MELS];
    size_t used;
    unsigned random = 1;
    test_arithmetic();
    CHECK(sizeof state < 3000);

    // Silence is the floor: ln 1e-7.
    CHECK(edgeasr_logmel_init(&state) == EDGEASR_OK);
    CHECK(edgeasr_logmel_accept(&state, samples, 399, &used, parts) == EDGEASR_EMPTY && used == 399);
    CHECK(edgeasr_logmel_accept(&state, samples, 9, &used, parts) == EDGEASR_OK && used == 1);
    CHECK(abs(parts[0] + 16505) <= 1 && abs(parts[EDGEASR_LOGMEL_NUM_MELS - 1] + 16505) <= 1);

    // A frame a hop, and the same however the samples come.
    for (size_t i = 0; i < 1000; i++) {
        samples[i] = (int16_t)(check_random(&random) % 65536u - 32768);
    }
    CHECK(edgeasr_logmel_init(&state) == EDGEASR_OK);
    size_t at = 0;
    for (size_t t = 0; t < 4; t++) {
        CHECK(edgeasr_logmel_accept(&state, samples + at, 1000 - at, &used, whole[t]) == EDGEASR_OK);
        at += used;
        CHECK(at == EDGEASR_LOGMEL_WIN_LENGTH + t * EDGEASR_LOGMEL_HOP_LENGTH);
    }
    CHECK(edgeasr_logmel_init(&state) == EDGEASR_OK);
    size_t frames = 0;
    for (at = 0; at < 1000; at += used) {
        const size_t n = at + 7 < 1000 ? 7 : 1000 - at;
        if (edgeasr_logmel_accept(&state, samples + at, n, &used, parts) == EDGEASR_OK) {
            CHECK(memcmp(parts, whole[frames++], sizeof parts) == 0);
        }
    }
    CHECK(frames == 4);
    CHECK(edgeasr_logmel_init(NULL) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_logmel_accept(&state, NULL, 1, &used, parts) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_logmel_accept(&state, NULL, 0, &used, parts) == EDGEASR_EMPTY);
}
