#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "edgeasr_adpcm.h"
#include "edgeasr_messages.h"
#include "edgeasr_ulaw.h"

static void test_ulaw(void) {
    uint8_t byte;
    int16_t back;
    for (int32_t sample = INT16_MIN; sample <= INT16_MAX; sample++) {
        const int16_t given = (int16_t)sample;
        if (edgeasr_ulaw_encode(&given, 1, &byte) != EDGEASR_OK || edgeasr_ulaw_decode(&byte, 1, &back) != EDGEASR_OK) {
            CHECK(0);
        }
        // Half of a step, which is a sixteenth of the segment; beyond 32635 it clips.
        const int32_t magnitude = abs(sample);
        const int32_t most = magnitude > 32635 ? 645 : (magnitude + 132) / 32 + 4;
        if (abs(sample - back) > most) {
            CHECK(abs(sample - back) <= most);
        }
    }
    const int16_t loudest = INT16_MIN;
    CHECK(edgeasr_ulaw_encode(&loudest, 1, &byte) == EDGEASR_OK && byte == 0x00);
    CHECK(edgeasr_ulaw_decode(&byte, 1, &back) == EDGEASR_OK && back == -32124);
    CHECK(edgeasr_ulaw_encode(NULL, 1, &byte) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_ulaw_decode(&byte, 1, NULL) == EDGEASR_BAD_ARG);
}

static void test_adpcm(void) {
    int16_t samples[321];
    int16_t back[321];
    uint8_t block[EDGEASR_ADPCM_SIZE(321)];
    edgeasr_adpcm_t state = {0, 0};
    unsigned random = 1;
    size_t length = 0;
    for (size_t n = 0; n <= 321; n += 107) {
        for (size_t i = 0; i < n; i++) {
            samples[i] = (int16_t)(check_random(&random) % 65536u - 32768);
        }
        CHECK(edgeasr_adpcm_encode(&state, samples, n, block, EDGEASR_ADPCM_SIZE(n), &length) == EDGEASR_OK);
        CHECK(length == EDGEASR_ADPCM_SIZE(n));
        CHECK(edgeasr_adpcm_decode(block, length, back, n) == EDGEASR_OK);
        CHECK(n == 0 || back[n - 1] == state.predictor);
    }
    // A ramp is followed within a few steps, once the coder has found its step size.
    for (size_t i = 0; i < 320; i++) {
        samples[i] = (int16_t)(100 * (int32_t)i - 16000);
    }
    state.predictor = -16000;
    state.step_index = 40;
    CHECK(edgeasr_adpcm_encode(&state, samples, 320, block, sizeof block, &length) == EDGEASR_OK);
    CHECK(edgeasr_adpcm_decode(block, length, back, 320) == EDGEASR_OK);
    for (size_t i = 20; i < 320; i++) {
        CHECK(abs(samples[i] - back[i]) < 60);
    }
    CHECK(edgeasr_adpcm_encode(NULL, samples, 2, block, 5, &length) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_adpcm_encode(&state, samples, 2, block, 4, &length) == EDGEASR_OVERFLOW);
    state.step_index = 89;
    CHECK(edgeasr_adpcm_encode(&state, samples, 2, block, 5, &length) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_adpcm_decode(NULL, 4, back, 0) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_adpcm_decode(block, 5, back, 4) == EDGEASR_BAD_LENGTH);
    CHECK(edgeasr_adpcm_decode((const uint8_t *)"\0\0\131", 4, back, 0) == EDGEASR_MALFORMED);
    CHECK(edgeasr_adpcm_decode((const uint8_t *)"\0\0\1\1", 4, back, 0) == EDGEASR_MALFORMED);
}

void test_codecs(void) {
    test_ulaw();
    test_adpcm();
}

void test_messages(void) {
    uint8_t bytes[64];
    size_t length = 0;
    const uint8_t data[4] = {1, 2, 3, 4};
    const edgeasr_audio_t audio = {EDGEASR_CODEC_S16, 2, data, sizeof data};
    edgeasr_audio_t back;
    CHECK(edgeasr_audio_pack(&audio, bytes, sizeof bytes, &length) == EDGEASR_OK);
    CHECK(length == EDGEASR_AUDIO_SIZE + 4 && edgeasr_audio_unpack(bytes, length, &back) == EDGEASR_OK);
    CHECK(back.codec == audio.codec && back.num_samples == 2 && back.data_size == 4);
    CHECK(memcmp(back.data, data, 4) == 0);
    CHECK(edgeasr_audio_pack(&audio, bytes, length - 1, &length) == EDGEASR_OVERFLOW);
    CHECK(edgeasr_audio_pack(&audio, bytes, 1, &length) == EDGEASR_OVERFLOW);
    CHECK(edgeasr_audio_pack(NULL, bytes, 1, &length) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_audio_unpack(bytes, 2, &back) == EDGEASR_TRUNCATED);
    CHECK(edgeasr_audio_unpack(NULL, 2, &back) == EDGEASR_BAD_ARG);
    const edgeasr_event_t event = {EDGEASR_EVENT_KIND_BUTTON, 7, -12345};
    edgeasr_event_t heard;
    CHECK(edgeasr_event_pack(&event, bytes, sizeof bytes, &length) == EDGEASR_OK && length == EDGEASR_EVENT_SIZE);
    CHECK(edgeasr_event_unpack(bytes, length, &heard) == EDGEASR_OK);
    CHECK(heard.kind == event.kind && heard.value == 7 && heard.level == -12345);
    CHECK(edgeasr_event_unpack(bytes, length + 1, &heard) == EDGEASR_MALFORMED);
}
