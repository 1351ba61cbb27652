// Vectors of byte stuffing, checksums, frames and the reader of a stream.
#include <stdlib.h>

#include "edgeasr_cobs.h"
#include "edgeasr_crc.h"
#include "edgeasr_frame.h"
#include "vectors.h"

// name data crc
bool vector_crc16(const vector_t *vector) {
    const bytes_t data = vector_bytes(vector, 1);
    return edgeasr_crc16(data.data, data.size) == vector_hex(vector, 2);
}

// name data crc
bool vector_crc32(const vector_t *vector) {
    const bytes_t data = vector_bytes(vector, 1);
    return edgeasr_crc32(data.data, data.size) == vector_hex(vector, 2);
}

// name data encoded
bool vector_cobs(const vector_t *vector) {
    const bytes_t plain = vector_bytes(vector, 1);
    const bytes_t encoded = vector_bytes(vector, 2);
    const size_t room = EDGEASR_COBS_MAX(plain.size);
    uint8_t *out = malloc(room);
    size_t length = 0;
    bool good = edgeasr_cobs_encode(plain.data, plain.size, out, room, &length) == EDGEASR_OK;
    good = good && bytes_equal(encoded, out, length);
    good = good && edgeasr_cobs_decode(encoded.data, encoded.size, out, plain.size, &length) == EDGEASR_OK;
    good = good && bytes_equal(plain, out, length);
    free(out);
    return good;
}

// name encoded
bool vector_cobs_malformed(const vector_t *vector) {
    const bytes_t encoded = vector_bytes(vector, 1);
    size_t length;
    return edgeasr_cobs_decode(encoded.data, encoded.size, encoded.data, encoded.size, &length) == EDGEASR_MALFORMED;
}

typedef struct {
    edgeasr_frame_reader_t reader;
    edgeasr_frame_t frame;
    uint8_t buffer[EDGEASR_FRAME_MAX(EDGEASR_MAX_PAYLOAD) - 1];
} receiver_t;

static receiver_t receiver;

static edgeasr_status_t receive(bytes_t wire) {
    size_t used;
    (void)edgeasr_frame_reader_init(&receiver.reader, receiver.buffer, sizeof receiver.buffer);
    const edgeasr_status_t status =
        edgeasr_frame_reader_accept(&receiver.reader, wire.data, wire.size, &used, &receiver.frame);
    return used == wire.size ? status : EDGEASR_BAD_ARG;
}

// name status type sequence time payload wire
bool vector_frame(const vector_t *vector) {
    static uint8_t out[EDGEASR_FRAME_MAX(EDGEASR_MAX_PAYLOAD)];
    const long type = vector_number(vector, 2);
    const long sequence = vector_number(vector, 3);
    const long time = vector_number(vector, 4);
    const bytes_t payload = vector_bytes(vector, 5);
    const bytes_t wire = vector_bytes(vector, 6);
    const edgeasr_frame_t *frame = &receiver.frame;
    size_t length;
    return edgeasr_frame_encode((uint8_t)type, (uint8_t)sequence, (uint32_t)time, payload.data, payload.size, out,
                                sizeof out, &length) == EDGEASR_OK &&
           bytes_equal(wire, out, length) && receive(wire) == vector_status(vector, 1) && frame->type == type &&
           frame->sequence == sequence && frame->time == time &&
           bytes_equal(payload, frame->payload, frame->payload_length);
}

// name status wire
bool vector_frame_malformed(const vector_t *vector) {
    return receive(vector_bytes(vector, 2)) == vector_status(vector, 1);
}

// name frames cobs crc length version type duplicate late lost wire
bool vector_stream(const vector_t *vector) {
    const bytes_t wire = vector_bytes(vector, 10);
    edgeasr_frame_reader_t *reader = &receiver.reader;
    size_t used;
    (void)edgeasr_frame_reader_init(reader, receiver.buffer, sizeof receiver.buffer);
    for (size_t at = 0; at < wire.size; at += used) {
        const edgeasr_frame_t *frame = &receiver.frame;
        if (edgeasr_frame_reader_accept(reader, wire.data + at, wire.size - at, &used, &receiver.frame) == EDGEASR_OK &&
            message_unpack(frame->type, frame->payload, frame->payload_length) != EDGEASR_OK) {
            return false;
        }
    }
    const edgeasr_frame_counts_t *counts = &reader->counts;
    const uint32_t got[9] = {counts->frames, counts->cobs,      counts->crc,  counts->length, counts->version,
                             counts->type,   counts->duplicate, counts->late, counts->lost};
    for (size_t i = 0; i < 9; i++) {
        if (vector_number(vector, 1 + i) != (long)got[i]) {
            return false;
        }
    }
    return true;
}
