// Samples from the bits of a PDM microphone: 64 bits become one sample.
//
// A comb filter of third order (Hogenauer 1981) goes from 1.024 MHz to 64 kHz, an FIR filter from there to 16 kHz. The
// whole is flat within 0.2 dB up to 7 kHz; what would fold below that is 50 dB down.
#ifndef PDM_H
#define PDM_H

#include <stddef.h>
#include <stdint.h>

#define PDM_BITS_PER_SAMPLE 64u
#define PDM_WORDS_PER_SAMPLE (PDM_BITS_PER_SAMPLE / 32u)
#define PDM_NUM_TAPS 97u

typedef struct {
    uint32_t integrators[3];
    uint32_t combs[3];
    int16_t history[PDM_NUM_TAPS];  // at 64 kHz, a ring
    uint32_t newest;
} pdm_t;

void pdm_init(pdm_t *pdm);

// num_samples times PDM_WORDS_PER_SAMPLE words, their highest bit first, to samples.
void pdm_decimate(pdm_t *pdm, const uint32_t *words, size_t num_samples, int16_t *samples);

#endif
