#include "pdm.h"

#include <string.h>

#define COMB_BITS 16u      // bits of PDM a value at 64 kHz
#define FIR_STEP 4u        // values at 64 kHz a sample
#define MIDDLE (PDM_NUM_TAPS / 2u)
#define OUTPUT_SHIFT 12    // the comb filter's full scale is 2^12, a coefficient of 1 is 2^15, a sample is 2^15

// First half and middle of a symmetric filter, Q15: least squares for the inverse of the comb filter's droop up to 7 kHz
// and for nothing from 8.6 kHz on, scipy.signal.firls(97, ...).
static const int16_t TAPS[MIDDLE + 1u] = {
    -18, -26, -18, 4, 32, 47, 35, -2, -48, -76, -61, -4, 68, 114, 98, 18, -90, -163, -150, -41, 113, 226, 221, 79,
    -136, -306, -319, -139, 157, 410, 458, 234, -175, -555, -667, -391, 186, 777, 1023, 687, -181, -1204, -1802,
    -1444, 91, 2556, 5277, 7393, 8190,
};

void pdm_init(pdm_t *pdm) {
    memset(pdm, 0, sizeof *pdm);
}

// Arithmetic modulo 2^32: integrators may wrap, the combs take it out again.
static int16_t comb(pdm_t *pdm, uint32_t bits) {
    uint32_t *sum = pdm->integrators;
    for (uint32_t i = 0; i < COMB_BITS; i++) {
        const uint32_t bit = (bits >> (COMB_BITS - 1u - i)) & 1u;
        sum[0] += 2u * bit - 1u;
        sum[1] += sum[0];
        sum[2] += sum[1];
    }
    uint32_t value = sum[2];
    for (uint32_t i = 0; i < 3; i++) {
        const uint32_t before = pdm->combs[i];
        pdm->combs[i] = value;
        value -= before;
    }
    return (int16_t)(int32_t)value;
}

static int16_t filtered(const pdm_t *pdm) {
    int32_t sum = 1 << (OUTPUT_SHIFT - 1);
    uint32_t older = pdm->newest;
    uint32_t newer = (pdm->newest + 1u) % PDM_NUM_TAPS;  // the oldest
    for (uint32_t i = 0; i < MIDDLE; i++) {
        sum += TAPS[i] * (pdm->history[older] + pdm->history[newer]);
        older = older == 0 ? PDM_NUM_TAPS - 1u : older - 1u;
        newer = newer == PDM_NUM_TAPS - 1u ? 0 : newer + 1u;
    }
    sum += TAPS[MIDDLE] * pdm->history[older];
    sum >>= OUTPUT_SHIFT;
    return (int16_t)(sum < INT16_MIN ? INT16_MIN : sum > INT16_MAX ? INT16_MAX : sum);
}

void pdm_decimate(pdm_t *pdm, const uint32_t *words, size_t num_samples, int16_t *samples) {
    for (size_t i = 0; i < num_samples; i++) {
        for (uint32_t step = 0; step < FIR_STEP; step++) {
            const uint32_t word = words[PDM_WORDS_PER_SAMPLE * i + step / 2u];
            pdm->newest = (pdm->newest + 1u) % PDM_NUM_TAPS;
            pdm->history[pdm->newest] = comb(pdm, step % 2u == 0 ? word >> 16 : word & 0xFFFFu);
        }
        samples[i] = filtered(pdm);
    }
}
