// Any bytes, in pieces, into the frame reader; behind them the second of two good frames must arrive.
#include "edgeasr_frame.h"
#include "fuzz.h"

#define LARGEST 64

static edgeasr_frame_reader_t reader;
static uint32_t errors;

static edgeasr_status_t accept_all(const uint8_t *bytes, size_t n, edgeasr_frame_t *frame) {
    edgeasr_status_t last = EDGEASR_EMPTY;
    for (size_t done = 0; done < n;) {
        size_t used;
        const edgeasr_status_t status = edgeasr_frame_reader_accept(&reader, bytes + done, n - done, &used, frame);
        PROMISE(used > 0 && used <= n - done && status != EDGEASR_BAD_ARG);
        PROMISE(status != EDGEASR_EMPTY || used == n - done);
        if (status == EDGEASR_OK) {
            uint32_t sum = 0;
            for (size_t i = 0; i < frame->payload_length; i++) {
                sum += frame->payload[i];
            }
            PROMISE(sum <= 255u * frame->payload_length);
        }
        errors += status != EDGEASR_OK && status != EDGEASR_EMPTY;
        last = status != EDGEASR_EMPTY ? status : last;
        done += used;
    }
    return last;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t buffer[EDGEASR_FRAME_MAX(LARGEST)];
    uint8_t wire[EDGEASR_FRAME_MAX(LARGEST)];
    edgeasr_frame_t frame = {0};
    errors = 0;
    (void)edgeasr_frame_reader_init(&reader, buffer, sizeof buffer);
    const size_t piece = size > 0 ? 1u + data[0] % 40u : 1;
    for (size_t at = 0; at < size; at += piece) {
        (void)accept_all(data + at, piece < size - at ? piece : size - at, &frame);
    }
    const uint8_t next = reader.expected;
    const size_t payload_size = size < LARGEST ? size : LARGEST;
    for (uint8_t i = 0; i < 2; i++) {
        size_t length;
        PROMISE(edgeasr_frame_encode(EDGEASR_TYPE_PING, (uint8_t)(next + i), i, data, payload_size, wire, sizeof wire,
                                     &length) == EDGEASR_OK);
        const edgeasr_status_t status = accept_all(wire, length, &frame);
        PROMISE(i == 0 || (status == EDGEASR_OK && frame.time == 1));
    }
    const edgeasr_frame_counts_t *counts = &reader.counts;
    PROMISE(errors == counts->cobs + counts->crc + counts->length + counts->version + counts->type);
    fuzz_count("frame", size);
    return 0;
}
