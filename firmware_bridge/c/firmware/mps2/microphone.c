#include "microphone.h"

#include <stddef.h>
#include <string.h>

#include "edgeasr_tables.h"
#include "semihosting.h"

#define RATE_HZ EDGEASR_LOGMEL_SAMPLE_RATE_HZ
#define MAX_SAMPLES (8u << 20)  // 524 s
#define TONE_SAMPLES (RATE_HZ / 2)
#define TONE_STEP 20u  // of 512 a sample: 625 Hz
#define SILENCE_AT_ONCE 160u

__attribute__((section(".microphone"))) static int16_t clip[MAX_SAMPLES];
static uint32_t clip_length;
static uint32_t length;  // with the silence
static volatile uint32_t heard;

// Half a second each of silence, a tone of -6 dB, silence and a tone of -18 dB.
static void make_tones(void) {
    clip_length = 4u * TONE_SAMPLES;
    for (uint32_t i = 0; i < clip_length; i++) {
        const uint32_t part = i / TONE_SAMPLES;
        const uint32_t phase = (i * TONE_STEP) % EDGEASR_LOGMEL_FFT_LENGTH;
        // The table holds the first half turn of a cosine.
        const int32_t cosine = edgeasr_twiddle_q15[2u * (phase % (EDGEASR_LOGMEL_FFT_LENGTH / 2u))];
        const int32_t value = phase < EDGEASR_LOGMEL_FFT_LENGTH / 2u ? cosine : -cosine;
        clip[i] = (int16_t)(part % 2u == 0 ? 0 : value / (part == 1u ? 2 : 8));
    }
}

bool microphone_load(const char *path, uint32_t tail_ms) {
    if (path == NULL) {
        make_tones();
    } else {
        const long size = semihosting_read_file(path, clip, sizeof clip);
        if (size <= 0 || size % (long)sizeof *clip != 0) {
            return false;
        }
        clip_length = (uint32_t)size / (uint32_t)sizeof *clip;
    }
    heard = 0;
    length = clip_length + tail_ms * (RATE_HZ / 1000u);
    return true;
}

void microphone_hear(edgeasr_ring_t *ring, uint32_t n) {
    static const int16_t SILENCE[SILENCE_AT_ONCE];
    while (n > 0 && heard < length) {
        const bool in_clip = heard < clip_length;
        const uint32_t left = (in_clip ? clip_length : length) - heard;
        uint32_t count = n < left ? n : left;
        if (!in_clip && count > SILENCE_AT_ONCE) {
            count = SILENCE_AT_ONCE;
        }
        (void)edgeasr_ring_write(ring, in_clip ? &clip[heard] : SILENCE, count);
        heard += count;
        n -= count;
    }
}

void microphone_fill(edgeasr_ring_t *ring) {
    microphone_hear(ring, ring->size - edgeasr_ring_count(ring));
}

bool microphone_is_over(void) {
    return heard >= length;
}
