#include "edgeasr_ulaw.h"

#define BIAS 132  // of the 16-bit form: the eight segments then begin at powers of two
#define CLIP 32635

static uint8_t encode_sample(int16_t sample) {
    const uint32_t sign = sample < 0 ? 0x80u : 0u;
    int32_t magnitude = sample < 0 ? -(int32_t)sample : sample;
    magnitude = (magnitude > CLIP ? CLIP : magnitude) + BIAS;
    uint32_t segment = 7;
    for (int32_t start = 0x4000; segment > 0 && magnitude < start; start >>= 1) {
        segment--;
    }
    const uint32_t mantissa = ((uint32_t)magnitude >> (segment + 3u)) & 15u;
    return (uint8_t)(~(sign | (segment << 4) | mantissa) & 0xFFu);
}

static int16_t decode_sample(uint8_t byte) {
    const uint32_t code = ~(uint32_t)byte & 0xFFu;
    const uint32_t magnitude = ((((code & 15u) << 3) + BIAS) << ((code >> 4) & 7u)) - BIAS;
    return (int16_t)((code & 0x80u) != 0 ? -(int32_t)magnitude : (int32_t)magnitude);
}

edgeasr_status_t edgeasr_ulaw_encode(const int16_t *samples, size_t n, uint8_t *out) {
    if (samples == NULL || out == NULL) {
        return EDGEASR_BAD_ARG;
    }
    for (size_t i = 0; i < n; i++) {
        out[i] = encode_sample(samples[i]);
    }
    return EDGEASR_OK;
}

edgeasr_status_t edgeasr_ulaw_decode(const uint8_t *in, size_t n, int16_t *samples) {
    if (in == NULL || samples == NULL) {
        return EDGEASR_BAD_ARG;
    }
    for (size_t i = 0; i < n; i++) {
        samples[i] = decode_sample(in[i]);
    }
    return EDGEASR_OK;
}
