#include "edgeasr_logmel.h"

#include <string.h>

#include "edgeasr_fixed.h"

#define HALF (EDGEASR_LOGMEL_FFT_LENGTH / 2)  // the length of the complex FFT that the real one is made of
#define LOG2_HALF 8

// An energy of full scale squared is 2^42 in the spectrum's power: samples and window in Q15, and a spectrum that is
// divided by the FFT's length. Ten bits fewer leave room for the sum of a filter.
#define SPECTRUM_BITS 42
#define POWER_SHIFT 10
#define POWER_BITS (SPECTRUM_BITS - POWER_SHIFT)
#define WEIGHT_BITS 15
#define FLOOR_BITS 40
#define LN2_Q15 22713

typedef char half_is_a_power_of_two[HALF == (1 << LOG2_HALF) ? 1 : -1];
typedef char floor_fits[FLOOR_BITS <= POWER_BITS + WEIGHT_BITS ? 1 : -1];

edgeasr_status_t edgeasr_logmel_init(edgeasr_logmel_t *state) {
    if (state == NULL) {
        return EDGEASR_BAD_ARG;
    }
    state->fill = 0;
    return EDGEASR_OK;
}

static uint32_t reversed(uint32_t index) {
    uint32_t result = 0;
    for (uint32_t bit = 0; bit < LOG2_HALF; bit++) {
        result = (result << 1) | ((index >> bit) & 1u);
    }
    return result;
}

// Samples times window in Q30, the even ones as real and the odd ones as imaginary parts, in the order of the FFT.
static void load(edgeasr_logmel_t *state) {
    memset(state->bins, 0, sizeof state->bins);
    for (uint32_t i = 0; i < EDGEASR_LOGMEL_WIN_LENGTH; i += 2) {
        edgeasr_bin_t *bin = &state->bins[reversed(i / 2)];
        const uint32_t mirrored = EDGEASR_LOGMEL_WIN_LENGTH - i;
        const uint32_t even = i < mirrored ? i : mirrored;
        const uint32_t odd = i + 1 < mirrored ? i + 1 : mirrored - 1;
        bin->value.re = state->samples[i] * (int32_t)edgeasr_window_q15[even];
        bin->value.im = state->samples[i + 1] * (int32_t)edgeasr_window_q15[odd];
    }
}

// Both are halved, so that the magnitude cannot grow; `turned` is half of the second, turned by the twiddle factor.
static void butterfly(edgeasr_bin_t *first, edgeasr_bin_t *second, int32_t turned_re, int32_t turned_im) {
    const int32_t re = first->value.re >> 1;
    const int32_t im = first->value.im >> 1;
    first->value.re = re + turned_re;
    first->value.im = im + turned_im;
    second->value.re = re - turned_re;
    second->value.im = im - turned_im;
}

// Complex FFT of HALF bins in place, divided by HALF (Cooley and Tukey 1965, decimation in time).
static void transform(edgeasr_bin_t *bins) {
    for (uint32_t span = 1; span < HALF; span *= 2) {
        for (uint32_t i = 0; i < HALF; i += 2 * span) {
            edgeasr_bin_t *second = &bins[i + span];
            butterfly(&bins[i], second, second->value.re >> 1, second->value.im >> 1);
        }
        for (uint32_t k = 1; k < span; k++) {
            const int16_t *twiddle = &edgeasr_twiddle_q15[2 * k * (HALF / span)];
            for (uint32_t i = k; i < HALF; i += 2 * span) {
                edgeasr_bin_t *second = &bins[i + span];
                const int32_t re = second->value.re;
                const int32_t im = second->value.im;
                butterfly(&bins[i], second,
                          edgeasr_multiply_q16(re, twiddle[0]) - edgeasr_multiply_q16(im, twiddle[1]),
                          edgeasr_multiply_q16(re, twiddle[1]) + edgeasr_multiply_q16(im, twiddle[0]));
            }
        }
    }
}

static uint64_t power(int32_t re, int32_t im) {
    return (uint64_t)((int64_t)re * re) + (uint64_t)((int64_t)im * im);
}

// The power of the real FFT, divided by its length squared, from the complex one of half the length.
static void split(edgeasr_bin_t *bins) {
    const int32_t re = bins[0].value.re >> 1;
    const int32_t im = bins[0].value.im >> 1;
    bins[0].power = power(re + im, 0);
    bins[HALF].power = power(re - im, 0);
    for (uint32_t k = 1; k <= HALF / 2; k++) {
        const int32_t a_re = bins[k].value.re >> 1;
        const int32_t a_im = bins[k].value.im >> 1;
        const int32_t b_re = bins[HALF - k].value.re >> 1;
        const int32_t b_im = bins[HALF - k].value.im >> 1;
        const int32_t even_re = (a_re + b_re) >> 1;
        const int32_t even_im = (a_im - b_im) >> 1;
        const int32_t odd_re = a_im + b_im;
        const int32_t odd_im = b_re - a_re;
        const int16_t *twiddle = &edgeasr_twiddle_q15[2 * k];
        const int32_t re_turned = edgeasr_multiply_q16(odd_re, twiddle[0]) - edgeasr_multiply_q16(odd_im, twiddle[1]);
        const int32_t im_turned = edgeasr_multiply_q16(odd_re, twiddle[1]) + edgeasr_multiply_q16(odd_im, twiddle[0]);
        bins[HALF - k].power = power(even_re - re_turned, even_im - im_turned);
        bins[k].power = power(even_re + re_turned, even_im + im_turned);
    }
}

// Natural logarithm of an energy in units of 2^-bits, in 1/1024 nats.
static int16_t logarithm(uint64_t energy, int32_t bits) {
    const int32_t log2_q15 = (int32_t)edgeasr_log2_q15(energy) - (bits << 15);
    // Q15 times Q15 and half of it gives Q14 after the shift of 16; Q10 is wanted.
    return (int16_t)((edgeasr_multiply_q16(log2_q15, LN2_Q15) + (1 << 3)) >> 4);
}

static void filter(const edgeasr_bin_t *bins, int16_t *log_mel) {
    const uint16_t *weights = edgeasr_mel_weights;
    for (uint32_t mel = 0; mel < EDGEASR_LOGMEL_NUM_MELS; mel++) {
        const edgeasr_mel_filter_t *row = &edgeasr_mel_filters[mel];
        uint64_t energy = (uint64_t)EDGEASR_LOGMEL_FLOOR_Q40 << (POWER_BITS + WEIGHT_BITS - FLOOR_BITS + row->shift);
        for (uint32_t i = 0; i < row->num_bins; i++) {
            energy += (bins[row->first_bin + i].power >> POWER_SHIFT) * *weights++;
        }
        log_mel[mel] = logarithm(energy, POWER_BITS + WEIGHT_BITS + row->shift);
    }
}

edgeasr_status_t edgeasr_logmel_accept(edgeasr_logmel_t *state, const int16_t *samples, size_t n, size_t *used,
                                       int16_t *log_mel) {
    if (state == NULL || used == NULL || log_mel == NULL || (samples == NULL && n > 0)) {
        return EDGEASR_BAD_ARG;
    }
    const size_t wanted = EDGEASR_LOGMEL_WIN_LENGTH - (size_t)state->fill;
    *used = n < wanted ? n : wanted;
    if (*used > 0) {
        memcpy(&state->samples[state->fill], samples, *used * sizeof *samples);
        state->fill = (uint16_t)(state->fill + *used);
    }
    if (state->fill < EDGEASR_LOGMEL_WIN_LENGTH) {
        return EDGEASR_EMPTY;
    }
    load(state);
    transform(state->bins);
    split(state->bins);
    filter(state->bins, log_mel);
    state->fill = EDGEASR_LOGMEL_WIN_LENGTH - EDGEASR_LOGMEL_HOP_LENGTH;
    memmove(state->samples, &state->samples[EDGEASR_LOGMEL_HOP_LENGTH], state->fill * sizeof *samples);
    return EDGEASR_OK;
}
