// Log-mel frames as int8 values, and their lossless packing for a FEATURES message (Rice 1979).
#ifndef EDGEASR_FEATURES_H
#define EDGEASR_FEATURES_H

#include <stddef.h>
#include <stdint.h>

#include "edgeasr_messages.h"
#include "edgeasr_status.h"

#ifdef __cplusplus
extern "C" {
#endif

// Bytes that Rice coding takes at most: with the largest parameter no value takes more than 11 bits.
#define EDGEASR_FEATURES_MAX(num_frames, num_mels) \
    (((size_t)(num_frames) * (EDGEASR_RICE_PARAMETER_BITS + 11u * (size_t)(num_mels)) + 7u) / 8u)

// n values of log_mel in 1/1024 nats to the nearest q, for log_mel = q * step / 1024 + offset / 256.
// What int8 cannot hold becomes the nearest that it can. BAD_ARG: null pointer or step 0.
edgeasr_status_t edgeasr_features_quantize(const int16_t *log_mel, size_t n, uint16_t step, int16_t offset, int8_t *q);

// And back, in 1/1024 nats. BAD_ARG: null pointer.
edgeasr_status_t edgeasr_features_dequantize(const int8_t *q, size_t n, uint16_t step, int16_t offset,
                                             int32_t *log_mel);

// num_frames rows of num_mels values to bytes (EDGEASR_FEATURE_CODING_RICE).
// BAD_ARG: null pointer or num_mels 0. OVERFLOW: the bytes do not fit into out_max;
// EDGEASR_FEATURES_MAX(num_frames, num_mels) always hold them.
edgeasr_status_t edgeasr_features_encode(const int8_t *q, uint8_t num_frames, uint8_t num_mels, uint8_t *out,
                                         size_t out_max, size_t *out_len);

// And back. On an error q holds nothing of use.
// BAD_ARG: null pointer (in may be null where n is 0) or num_mels 0. TRUNCATED: the bytes end too early.
// MALFORMED: a value beyond int8, or bits that are not zero after the last value.
// BAD_LENGTH: whole bytes after the last value.
edgeasr_status_t edgeasr_features_decode(const uint8_t *in, size_t n, uint8_t num_frames, uint8_t num_mels, int8_t *q);

#ifdef __cplusplus
}
#endif

#endif
