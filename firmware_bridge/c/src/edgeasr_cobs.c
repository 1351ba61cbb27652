#include "edgeasr_cobs.h"

#define FULL_BLOCK 0xFFu  // 254 bytes without a zero after them

edgeasr_status_t edgeasr_cobs_begin(edgeasr_cobs_writer_t *writer, uint8_t *out, size_t out_max) {
    if (writer == NULL || out == NULL) {
        return EDGEASR_BAD_ARG;
    }
    if (out_max < 1) {
        return EDGEASR_OVERFLOW;
    }
    writer->out = out;
    writer->out_max = out_max;
    writer->length = 1;
    writer->code_at = 0;
    writer->code = 1;
    return EDGEASR_OK;
}

// The next block begins only when a byte follows a full one: 254 bytes take one block, not two.
static void close_block(edgeasr_cobs_writer_t *writer) {
    writer->out[writer->code_at] = writer->code;
    writer->code_at = writer->length++;
    writer->code = 1;
}

edgeasr_status_t edgeasr_cobs_append(edgeasr_cobs_writer_t *writer, const uint8_t *in, size_t n) {
    if (writer == NULL || (in == NULL && n > 0)) {
        return EDGEASR_BAD_ARG;
    }
    for (size_t i = 0; i < n; i++) {
        // A byte takes two places at most: itself, and the code of a block.
        if (writer->out_max - writer->length < (writer->code == FULL_BLOCK ? 2u : 1u)) {
            return EDGEASR_OVERFLOW;
        }
        if (writer->code == FULL_BLOCK) {
            close_block(writer);
        }
        if (in[i] == 0) {
            close_block(writer);
        } else {
            writer->out[writer->length++] = in[i];
            writer->code++;
        }
    }
    return EDGEASR_OK;
}

edgeasr_status_t edgeasr_cobs_end(edgeasr_cobs_writer_t *writer, size_t *out_len) {
    if (writer == NULL || out_len == NULL) {
        return EDGEASR_BAD_ARG;
    }
    writer->out[writer->code_at] = writer->code;
    *out_len = writer->length;
    return EDGEASR_OK;
}

edgeasr_status_t edgeasr_cobs_encode(const uint8_t *in, size_t n, uint8_t *out, size_t out_max, size_t *out_len) {
    edgeasr_cobs_writer_t writer;
    if (out == NULL || out_len == NULL || (in == NULL && n > 0)) {
        return EDGEASR_BAD_ARG;
    }
    if (out_max < EDGEASR_COBS_MAX(n)) {
        return EDGEASR_OVERFLOW;
    }
    (void)edgeasr_cobs_begin(&writer, out, out_max);
    (void)edgeasr_cobs_append(&writer, in, n);
    return edgeasr_cobs_end(&writer, out_len);
}

edgeasr_status_t edgeasr_cobs_decode(const uint8_t *in, size_t n, uint8_t *out, size_t out_max, size_t *out_len) {
    if (in == NULL || out == NULL || out_len == NULL) {
        return EDGEASR_BAD_ARG;
    }
    if (n == 0) {
        return EDGEASR_MALFORMED;
    }
    size_t read = 0;
    size_t written = 0;
    for (;;) {
        const uint8_t code = in[read++];
        if (code == 0 || (size_t)(code - 1u) > n - read) {
            return EDGEASR_MALFORMED;
        }
        for (uint8_t left = code; left > 1; left--) {
            if (in[read] == 0) {
                return EDGEASR_MALFORMED;
            }
            if (written == out_max) {
                return EDGEASR_OVERFLOW;
            }
            out[written++] = in[read++];
        }
        if (read == n) {
            break;
        }
        if (code != FULL_BLOCK) {
            if (written == out_max) {
                return EDGEASR_OVERFLOW;
            }
            out[written++] = 0;
        }
    }
    *out_len = written;
    return EDGEASR_OK;
}
