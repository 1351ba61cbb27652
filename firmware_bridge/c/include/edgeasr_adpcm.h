// IMA ADPCM in blocks of 4 bits a sample; a block begins with the coder's state, so that it decodes on its own.
#ifndef EDGEASR_ADPCM_H
#define EDGEASR_ADPCM_H

#include <stddef.h>
#include <stdint.h>

#include "edgeasr_messages.h"
#include "edgeasr_status.h"

#ifdef __cplusplus
extern "C" {
#endif

// Bytes of a block of n samples.
#define EDGEASR_ADPCM_SIZE(n) (EDGEASR_ADPCM_HEADER_SIZE + ((n) + 1u) / 2u)

// The coder between two blocks; all zero at the start of a stream.
typedef struct {
    int16_t predictor;
    uint8_t step_index;
} edgeasr_adpcm_t;

// n samples to a block of EDGEASR_ADPCM_SIZE(n) bytes.
// BAD_ARG: null pointer, or the state's step index is beyond the table. OVERFLOW: out_max is too small.
edgeasr_status_t edgeasr_adpcm_encode(edgeasr_adpcm_t *state, const int16_t *samples, size_t n, uint8_t *out,
                                      size_t out_max, size_t *out_len);

// A block of in_len bytes to its n samples.
// BAD_ARG: null pointer. BAD_LENGTH: in_len is not EDGEASR_ADPCM_SIZE(n). MALFORMED: a state that no encoder writes.
edgeasr_status_t edgeasr_adpcm_decode(const uint8_t *in, size_t in_len, int16_t *samples, size_t n);

#ifdef __cplusplus
}
#endif

#endif
