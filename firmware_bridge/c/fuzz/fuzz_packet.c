// Any header and payload with a right checksum into the frame reader, and on into the unpacking of its message; behind
// it the second of two good frames must arrive, whatever their numbers.
#include "edgeasr_crc.h"
#include "edgeasr_frame.h"
#include "fuzz.h"

#define LARGEST 2048

static void read_tail(const void *tail, size_t size) {
    static uint8_t copy[LARGEST];
    PROMISE(size <= sizeof copy);
    memcpy(copy, tail, size);
}

#define UNPACK(TYPE, noun, tail)                                                                                  \
    case EDGEASR_TYPE_##TYPE: {                                                                                   \
        edgeasr_##noun##_t message;                                                                               \
        if (edgeasr_##noun##_unpack(frame->payload, frame->payload_length, &message) == EDGEASR_OK) {             \
            uint8_t again[LARGEST];                                                                               \
            size_t length;                                                                                        \
            tail;                                                                                                 \
            PROMISE(edgeasr_##noun##_pack(&message, again, sizeof again, &length) == EDGEASR_OK);                 \
            PROMISE(length == frame->payload_length && memcmp(again, frame->payload, length) == 0);               \
        }                                                                                                         \
        break;                                                                                                    \
    }

static void unpack(const edgeasr_frame_t *frame) {
    switch (frame->type) {
        UNPACK(HELLO, hello, read_tail(message.name, message.name_size))
        UNPACK(CONFIGURE, configure, )
        UNPACK(AUDIO, audio, read_tail(message.data, message.data_size))
        UNPACK(FEATURES, features, read_tail(message.data, message.data_size))
        UNPACK(EVENT, event, )
        UNPACK(GAP, gap, )
        UNPACK(LOG, log, read_tail(message.text, message.text_size))
        UNPACK(STATS, stats, )
        UNPACK(PING, ping, )
        UNPACK(PONG, pong, )
        UNPACK(TRANSCRIPT, transcript, read_tail(message.text, message.text_size))
        UNPACK(COMMAND, command, )
        UNPACK(RESET, reset, )
        UNPACK(INFO, info, read_tail(message.board, message.board_size))
        UNPACK(ACK, ack, )
        default:
            PROMISE(0);
    }
}

// Two frames of the same time, one number after the other.
static void go_on(edgeasr_frame_reader_t *reader, uint8_t sequence, uint32_t time) {
    for (uint8_t i = 0; i < 2; i++) {
        uint8_t wire[EDGEASR_FRAME_MAX(0)];
        edgeasr_frame_t frame;
        size_t length;
        size_t used;
        PROMISE(edgeasr_frame_encode(EDGEASR_TYPE_PING, (uint8_t)(sequence + i), time, NULL, 0, wire, sizeof wire,
                                     &length) == EDGEASR_OK);
        const edgeasr_status_t status = edgeasr_frame_reader_accept(reader, wire, length, &used, &frame);
        PROMISE(status == EDGEASR_OK || (i == 0 && status == EDGEASR_EMPTY));
    }
    PROMISE(reader->counts.duplicate + reader->counts.late <= 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static uint8_t packet[LARGEST + 4];
    static uint8_t wire[EDGEASR_COBS_MAX(LARGEST + 4) + 1];
    static uint8_t buffer[EDGEASR_FRAME_MAX(LARGEST)];
    edgeasr_frame_reader_t reader;
    edgeasr_frame_t frame;
    size_t length;
    size_t used;
    size_t n = size < LARGEST ? size : LARGEST;
    if (n == 0) {
        return 0;
    }
    memcpy(packet, data, n);
    packet[0] = (uint8_t)(EDGEASR_PROTOCOL_VERSION << 5 | (packet[0] & 31u));
    if (n <= EDGEASR_CRC16_LIMIT) {
        (void)edgeasr_put_u16(packet + n, edgeasr_crc16(packet, n));
        n += EDGEASR_CRC16_SIZE;
    } else {
        (void)edgeasr_put_u32(packet + n, edgeasr_crc32(packet, n));
        n += EDGEASR_CRC32_SIZE;
    }
    PROMISE(edgeasr_cobs_encode(packet, n, wire, sizeof wire - 1, &length) == EDGEASR_OK);
    wire[length++] = 0;
    (void)edgeasr_frame_reader_init(&reader, buffer, sizeof buffer);
    const edgeasr_status_t status = edgeasr_frame_reader_accept(&reader, wire, length, &used, &frame);
    PROMISE(used == length);
    PROMISE(status == EDGEASR_OK || status == EDGEASR_BAD_TYPE || status == EDGEASR_BAD_LENGTH);
    if (status == EDGEASR_OK) {
        PROMISE(frame.payload_length == (size < LARGEST ? size : LARGEST) - EDGEASR_HEADER_SIZE);
        unpack(&frame);
    }
    go_on(&reader, data[size - 1], edgeasr_get_u32(&packet[2]));
    fuzz_count("packet", size);
    return 0;
}
