// Log-mel energies of int16 samples in fixed point: those of edgeasr.features.log_mel, which defines the tables.
//
// Tolerance against the definition in floating point, on speech: 0.001 nats on average and 0.1 at most. All values
// are absolute in a fixed scale: rounding stays 60 dB and more below the floor of 1e-7 that the definition adds to an
// energy, and so does the rounding of int16 samples itself (3.7e-10), so that block floating point gains nothing.
#ifndef EDGEASR_LOGMEL_H
#define EDGEASR_LOGMEL_H

#include <stddef.h>
#include <stdint.h>

#include "edgeasr_status.h"
#include "edgeasr_tables.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EDGEASR_LOGMEL_UNIT 1024  // 1 nat; the unit of the step of a FEATURES message too

// A bin of the spectrum, later its power: both in the same place.
typedef union {
    struct {
        int32_t re;
        int32_t im;
    } value;
    uint64_t power;
} edgeasr_bin_t;

// Samples that wait for a whole window, and room to work in: 2864 bytes in all.
typedef struct {
    int16_t samples[EDGEASR_LOGMEL_WIN_LENGTH];
    uint16_t fill;
    edgeasr_bin_t bins[EDGEASR_LOGMEL_NUM_BINS];
} edgeasr_logmel_t;

// Also forgets what came before a gap. BAD_ARG: null pointer.
edgeasr_status_t edgeasr_logmel_init(edgeasr_logmel_t *state);

// Take samples up to the end of the next window; used says how many, and the caller comes again with the rest.
// log_mel: EDGEASR_LOGMEL_NUM_MELS values in 1/EDGEASR_LOGMEL_UNIT nats, written where the answer is OK.
// OK: a frame. EMPTY: all n samples are used, more are needed.
// BAD_ARG: null pointer (samples may be null where n is 0).
edgeasr_status_t edgeasr_logmel_accept(edgeasr_logmel_t *state, const int16_t *samples, size_t n, size_t *used,
                                       int16_t *log_mel);

#ifdef __cplusplus
}
#endif

#endif
