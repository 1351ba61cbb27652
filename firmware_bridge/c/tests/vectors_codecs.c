// Vectors of u-law, ADPCM, Rice-coded features and the log-mel front end.
#include <stdlib.h>
#include <string.h>

#include "edgeasr_adpcm.h"
#include "edgeasr_features.h"
#include "edgeasr_logmel.h"
#include "edgeasr_ulaw.h"
#include "vectors.h"

// name pcm ulaw decoded
bool vector_ulaw(const vector_t *vector) {
    size_t n;
    size_t num_decoded;
    const int16_t *samples = vector_samples(vector, 1, &n);
    const bytes_t bytes = vector_bytes(vector, 2);
    const int16_t *decoded = vector_samples(vector, 3, &num_decoded);
    uint8_t *out = malloc(n + 1);
    int16_t *back = malloc(2 * n + 1);
    bool good = num_decoded == n && edgeasr_ulaw_encode(samples, n, out) == EDGEASR_OK && bytes_equal(bytes, out, n);
    good = good && edgeasr_ulaw_decode(bytes.data, n, back) == EDGEASR_OK && memcmp(back, decoded, 2 * n) == 0;
    free(out);
    free(back);
    return good;
}

// name predictor step_index pcm block decoded
bool vector_adpcm(const vector_t *vector) {
    edgeasr_adpcm_t state = {(int16_t)vector_number(vector, 1), (uint8_t)vector_number(vector, 2)};
    size_t n;
    size_t num_decoded;
    size_t length = 0;
    const int16_t *samples = vector_samples(vector, 3, &n);
    const bytes_t block = vector_bytes(vector, 4);
    const int16_t *decoded = vector_samples(vector, 5, &num_decoded);
    uint8_t *out = malloc(EDGEASR_ADPCM_SIZE(n));
    int16_t *back = malloc(2 * n + 1);
    bool good = num_decoded == n;
    good = good && edgeasr_adpcm_encode(&state, samples, n, out, EDGEASR_ADPCM_SIZE(n), &length) == EDGEASR_OK;
    good = good && bytes_equal(block, out, length);
    good = good && edgeasr_adpcm_decode(block.data, block.size, back, n) == EDGEASR_OK;
    good = good && memcmp(back, decoded, 2 * n) == 0 && (n == 0 || back[n - 1] == state.predictor);
    free(out);
    free(back);
    return good;
}

// name num_samples block status
bool vector_adpcm_malformed(const vector_t *vector) {
    const size_t n = (size_t)vector_number(vector, 1);
    const bytes_t block = vector_bytes(vector, 2);
    int16_t *back = malloc(2 * n + 1);
    const edgeasr_status_t status = edgeasr_adpcm_decode(block.data, block.size, back, n);
    free(back);
    return status == vector_status(vector, 3);
}

// name num_frames num_mels levels data
bool vector_rice(const vector_t *vector) {
    const uint8_t num_frames = (uint8_t)vector_number(vector, 1);
    const uint8_t num_mels = (uint8_t)vector_number(vector, 2);
    const bytes_t q = vector_bytes(vector, 3);
    const bytes_t data = vector_bytes(vector, 4);
    const size_t room = EDGEASR_FEATURES_MAX(num_frames, num_mels);
    uint8_t *out = malloc(room + 1);
    int8_t *back = malloc(q.size + 1);
    size_t length = 0;
    bool good = q.size == (size_t)num_mels * num_frames;
    good = good && edgeasr_features_encode((const int8_t *)q.data, num_frames, num_mels, out, room, &length) ==
                       EDGEASR_OK;
    good = good && bytes_equal(data, out, length);
    good = good && edgeasr_features_decode(data.data, data.size, num_frames, num_mels, back) == EDGEASR_OK;
    good = good && bytes_equal(q, back, q.size);
    free(out);
    free(back);
    return good;
}

// name num_frames num_mels data status
bool vector_rice_malformed(const vector_t *vector) {
    const uint8_t num_frames = (uint8_t)vector_number(vector, 1);
    const uint8_t num_mels = (uint8_t)vector_number(vector, 2);
    const bytes_t data = vector_bytes(vector, 3);
    int8_t *back = malloc((size_t)num_mels * num_frames + 1);
    const edgeasr_status_t status = edgeasr_features_decode(data.data, data.size, num_frames, num_mels, back);
    free(back);
    return status == vector_status(vector, 4);
}

// name step offset tolerance pcm levels
bool vector_logmel(const vector_t *vector) {
    static edgeasr_logmel_t state;
    const uint16_t step = (uint16_t)vector_number(vector, 1);
    const int16_t offset = (int16_t)vector_number(vector, 2);
    const long tolerance = vector_number(vector, 3);
    size_t n;
    const int16_t *samples = vector_samples(vector, 4, &n);
    const bytes_t levels = vector_bytes(vector, 5);
    size_t done = 0;
    size_t used;
    (void)edgeasr_logmel_init(&state);
    for (size_t at = 0; at < n; at += used) {
        int16_t log_mel[EDGEASR_LOGMEL_NUM_MELS];
        int8_t q[EDGEASR_LOGMEL_NUM_MELS];
        if (edgeasr_logmel_accept(&state, samples + at, n - at, &used, log_mel) != EDGEASR_OK) {
            continue;
        }
        (void)edgeasr_features_quantize(log_mel, EDGEASR_LOGMEL_NUM_MELS, step, offset, q);
        for (size_t mel = 0; mel < EDGEASR_LOGMEL_NUM_MELS; mel++, done++) {
            if (done >= levels.size || labs(q[mel] - ((const int8_t *)levels.data)[done]) > tolerance) {
                return false;
            }
        }
    }
    return done == levels.size;
}
