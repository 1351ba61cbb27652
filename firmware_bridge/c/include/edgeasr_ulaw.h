// u-law (ITU-T G.711): a sample in a byte.
#ifndef EDGEASR_ULAW_H
#define EDGEASR_ULAW_H

#include <stddef.h>
#include <stdint.h>

#include "edgeasr_status.h"

#ifdef __cplusplus
extern "C" {
#endif

// n samples to n bytes. BAD_ARG: null pointer.
edgeasr_status_t edgeasr_ulaw_encode(const int16_t *samples, size_t n, uint8_t *out);

// n bytes to n samples. BAD_ARG: null pointer.
edgeasr_status_t edgeasr_ulaw_decode(const uint8_t *in, size_t n, int16_t *samples);

#ifdef __cplusplus
}
#endif

#endif
