// Consistent overhead byte stuffing (Cheshire and Baker 1999): any bytes become bytes without a zero.
#ifndef EDGEASR_COBS_H
#define EDGEASR_COBS_H

#include <stddef.h>
#include <stdint.h>

#include "edgeasr_status.h"

#ifdef __cplusplus
extern "C" {
#endif

// Bytes that n bytes take when encoded, at most; the zero that ends a frame is not among them.
#define EDGEASR_COBS_MAX(n) ((n) + (n) / 254u + 1u)

// An encoding under way, for input that lies in several places.
typedef struct {
    uint8_t *out;
    size_t out_max;
    size_t length;   // bytes written so far, with the code byte of the block under way
    size_t code_at;  // where that code byte lies
    uint8_t code;    // its value so far
} edgeasr_cobs_writer_t;

// BAD_ARG: null pointer. OVERFLOW: out_max < 1.
edgeasr_status_t edgeasr_cobs_begin(edgeasr_cobs_writer_t *writer, uint8_t *out, size_t out_max);

// BAD_ARG: null pointer; in may be null where n is 0. OVERFLOW: the encoding does not fit into out_max bytes.
edgeasr_status_t edgeasr_cobs_append(edgeasr_cobs_writer_t *writer, const uint8_t *in, size_t n);

// Bytes written in all. BAD_ARG: null pointer.
edgeasr_status_t edgeasr_cobs_end(edgeasr_cobs_writer_t *writer, size_t *out_len);

// Begin, append and end in one. in and out must not overlap.
// BAD_ARG: null pointer; in may be null where n is 0. OVERFLOW: out_max < EDGEASR_COBS_MAX(n).
edgeasr_status_t edgeasr_cobs_encode(const uint8_t *in, size_t n, uint8_t *out, size_t out_max, size_t *out_len);

// n bytes without the final zero give at most n - 1; out may be in itself. On an error out holds nothing of use.
// BAD_ARG: null pointer. MALFORMED: n is 0, a zero within, or a block beyond the end. OVERFLOW: out_max is too small.
edgeasr_status_t edgeasr_cobs_decode(const uint8_t *in, size_t n, uint8_t *out, size_t out_max, size_t *out_len);

#ifdef __cplusplus
}
#endif

#endif
