// Any bytes as Rice-coded features, ADPCM and u-law; and any features there and back.
#include "edgeasr_adpcm.h"
#include "edgeasr_features.h"
#include "edgeasr_ulaw.h"
#include "fuzz.h"

static void check_features(const uint8_t *data, size_t n, uint8_t num_frames, uint8_t num_mels) {
    static int8_t q[255 * 255];
    static int8_t again[255 * 255];
    static uint8_t bytes[EDGEASR_FEATURES_MAX(255, 255)];
    size_t length;
    const size_t count = (size_t)num_frames * num_mels;
    edgeasr_status_t status = edgeasr_features_decode(data, n, num_frames, num_mels, q);
    if (status != EDGEASR_OK) {
        PROMISE((num_mels == 0) == (status == EDGEASR_BAD_ARG));
        PROMISE(num_mels == 0 || status == EDGEASR_TRUNCATED || status == EDGEASR_MALFORMED ||
                status == EDGEASR_BAD_LENGTH);
        for (size_t i = 0; i < count; i++) {
            q[i] = n == 0 ? 0 : (int8_t)(data[i % n] - 128);
        }
    }
    if (num_mels == 0) {
        return;
    }
    const size_t room = EDGEASR_FEATURES_MAX(num_frames, num_mels);
    PROMISE(edgeasr_features_encode(q, num_frames, num_mels, bytes, room, &length) == EDGEASR_OK && length <= room);
    PROMISE(status != EDGEASR_OK || length <= n);
    PROMISE(edgeasr_features_decode(bytes, length, num_frames, num_mels, again) == EDGEASR_OK);
    PROMISE(memcmp(q, again, count) == 0);
    if (length > 0) {
        PROMISE(edgeasr_features_encode(q, num_frames, num_mels, bytes, length - 1, &length) == EDGEASR_OVERFLOW);
    }
}

static void check_audio(const uint8_t *data, size_t n) {
    static int16_t samples[2 * 4096];
    static uint8_t bytes[EDGEASR_ADPCM_SIZE(2 * 4096)];
    size_t length;
    if (n > 4096) {
        n = 4096;
    }
    PROMISE(edgeasr_ulaw_decode(data, n, samples) == EDGEASR_OK);
    PROMISE(edgeasr_ulaw_encode(samples, n, bytes) == EDGEASR_OK);
    for (size_t i = 0; i < n; i++) {
        // Both zeros are decoded to 0, which has one code.
        PROMISE(bytes[i] == (data[i] == 0x7F ? 0xFF : data[i]));
    }
    const size_t count = n < 4 ? 0 : 2 * (n - 4);
    const edgeasr_status_t status = edgeasr_adpcm_decode(data, n, samples, count);
    PROMISE(status == EDGEASR_OK || status == (n < 4 ? EDGEASR_BAD_LENGTH : EDGEASR_MALFORMED));
    edgeasr_adpcm_t state = {0, n == 0 ? 0 : (uint8_t)(data[0] % (EDGEASR_ADPCM_MAX_STEP_INDEX + 1))};
    PROMISE(edgeasr_adpcm_encode(&state, samples, count, bytes, EDGEASR_ADPCM_SIZE(count), &length) == EDGEASR_OK);
    PROMISE(edgeasr_adpcm_decode(bytes, length, samples, count) == EDGEASR_OK);
    PROMISE(count == 0 || samples[count - 1] == state.predictor);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size >= 2) {
        check_features(data + 2, size - 2, data[0] % 4, data[1]);
        check_audio(data + 2, size - 2);
    }
    fuzz_count("codecs", size);
    return 0;
}
