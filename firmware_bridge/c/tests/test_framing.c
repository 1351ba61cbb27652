#include <string.h>

#include "check.h"
#include "edgeasr_cobs.h"
#include "edgeasr_crc.h"
#include "edgeasr_frame.h"

#define LONG 1500

static uint8_t pattern(size_t i) {
    return (uint8_t)(i * 7 % 256);
}

void test_cobs(void) {
    static uint8_t plain[LONG];
    static uint8_t encoded[EDGEASR_COBS_MAX(LONG)];
    static uint8_t decoded[LONG];
    size_t length = 0;
    size_t back = 0;
    for (size_t n = 0; n < LONG; n += n < 600 ? 1 : 97) {
        for (unsigned kind = 0; kind < 3; kind++) {
            for (size_t i = 0; i < n; i++) {
                plain[i] = kind == 0 ? 0 : kind == 1 ? 1 : pattern(i);
            }
            CHECK(edgeasr_cobs_encode(plain, n, encoded, EDGEASR_COBS_MAX(n), &length) == EDGEASR_OK);
            CHECK(length <= EDGEASR_COBS_MAX(n) && memchr(encoded, 0, length) == NULL);
            CHECK(edgeasr_cobs_decode(encoded, length, decoded, n, &back) == EDGEASR_OK);
            CHECK(back == n && memcmp(plain, decoded, n) == 0);
            CHECK(edgeasr_cobs_decode(encoded, length, encoded, length, &back) == EDGEASR_OK);
            CHECK(back == n && memcmp(plain, encoded, n) == 0);
        }
    }
    CHECK(edgeasr_cobs_encode(NULL, 0, encoded, 1, &length) == EDGEASR_OK && length == 1 && encoded[0] == 1);
    CHECK(edgeasr_cobs_encode(NULL, 1, encoded, 9, &length) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_cobs_encode(plain, 1, NULL, 9, &length) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_cobs_encode(plain, 5, encoded, 5, &length) == EDGEASR_OVERFLOW);
    CHECK(edgeasr_cobs_decode(NULL, 1, decoded, 9, &length) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_cobs_decode(encoded, 0, decoded, 9, &length) == EDGEASR_MALFORMED);
    CHECK(edgeasr_cobs_decode((const uint8_t *)"\5abc", 4, decoded, 9, &length) == EDGEASR_MALFORMED);
    CHECK(edgeasr_cobs_decode((const uint8_t *)"\4ab", 4, decoded, 9, &length) == EDGEASR_MALFORMED);
    CHECK(edgeasr_cobs_decode((const uint8_t *)"\2a\0", 3, decoded, 9, &length) == EDGEASR_MALFORMED);
    CHECK(edgeasr_cobs_decode((const uint8_t *)"\4abc", 4, decoded, 2, &length) == EDGEASR_OVERFLOW);
    CHECK(edgeasr_cobs_decode((const uint8_t *)"\1\1", 2, decoded, 0, &length) == EDGEASR_OVERFLOW);

    edgeasr_cobs_writer_t writer;
    CHECK(edgeasr_cobs_begin(NULL, encoded, 1) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_cobs_begin(&writer, encoded, 0) == EDGEASR_OVERFLOW);
    CHECK(edgeasr_cobs_begin(&writer, encoded, 2) == EDGEASR_OK);
    CHECK(edgeasr_cobs_append(&writer, NULL, 1) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_cobs_append(&writer, plain, 2) == EDGEASR_OVERFLOW);
    CHECK(edgeasr_cobs_end(&writer, NULL) == EDGEASR_BAD_ARG);
    memset(plain, 1, 255);
    CHECK(edgeasr_cobs_begin(&writer, encoded, 256) == EDGEASR_OK);
    CHECK(edgeasr_cobs_append(&writer, plain, 255) == EDGEASR_OVERFLOW);
}

void test_crc(void) {
    const uint8_t *digits = (const uint8_t *)"123456789";
    CHECK(edgeasr_crc16(digits, 9) == 0x29B1);
    CHECK(edgeasr_crc32(digits, 9) == 0xCBF43926);
    CHECK(edgeasr_crc16(NULL, 0) == EDGEASR_CRC16_INIT);
    CHECK(edgeasr_crc32(NULL, 0) == EDGEASR_CRC32_INIT);
    CHECK(edgeasr_crc16_update(edgeasr_crc16(digits, 4), digits + 4, 5) == 0x29B1);
    CHECK(edgeasr_crc32_update(edgeasr_crc32(digits, 4), digits + 4, 5) == 0xCBF43926);
}

typedef struct {
    edgeasr_frame_reader_t reader;
    uint8_t buffer[EDGEASR_FRAME_MAX(EDGEASR_MAX_PAYLOAD)];
    edgeasr_frame_t frame;
} receiver_t;

static receiver_t receiver;
static uint8_t wire[2 * EDGEASR_FRAME_MAX(EDGEASR_MAX_PAYLOAD)];
static uint8_t payload[EDGEASR_MAX_PAYLOAD + 1];

static void start(void) {
    CHECK(edgeasr_frame_reader_init(&receiver.reader, receiver.buffer, sizeof receiver.buffer) == EDGEASR_OK);
}

static edgeasr_status_t receive(const uint8_t *bytes, size_t n) {
    size_t used;
    const edgeasr_status_t status = edgeasr_frame_reader_accept(&receiver.reader, bytes, n, &used, &receiver.frame);
    CHECK(used == n);
    return status;
}

static edgeasr_status_t send(uint8_t type, uint8_t sequence, size_t n) {
    size_t length = 0;
    CHECK(edgeasr_frame_encode(type, sequence, 0x01020304, payload, n, wire, sizeof wire, &length) == EDGEASR_OK);
    CHECK(length <= EDGEASR_FRAME_MAX(n) && wire[length - 1] == 0);
    return receive(wire, length);
}

// Any packet, also one that the encoder refuses.
static edgeasr_status_t send_packet(uint8_t *packet, size_t n) {
    size_t length = 0;
    (void)edgeasr_put_u16(packet + n, edgeasr_crc16(packet, n));
    CHECK(edgeasr_cobs_encode(packet, n + 2, wire, sizeof wire - 1, &length) == EDGEASR_OK);
    wire[length] = 0;
    return receive(wire, length + 1);
}

static void test_sizes(void) {
    static const size_t SIZES[] = {0, 1, 240, 640, 1018, 1019, 2000, EDGEASR_MAX_PAYLOAD};
    start();
    for (size_t i = 0; i < sizeof payload; i++) {
        payload[i] = pattern(i);
    }
    for (size_t i = 0; i < sizeof SIZES / sizeof SIZES[0]; i++) {
        CHECK(send(EDGEASR_TYPE_AUDIO, (uint8_t)i, SIZES[i]) == EDGEASR_OK);
        CHECK(receiver.frame.type == EDGEASR_TYPE_AUDIO && receiver.frame.sequence == i);
        CHECK(receiver.frame.time == 0x01020304 && receiver.frame.payload_length == SIZES[i]);
        CHECK(memcmp(receiver.frame.payload, payload, SIZES[i]) == 0);
    }
    size_t length;
    CHECK(edgeasr_frame_encode(3, 0, 0, payload, sizeof payload, wire, sizeof wire, &length) == EDGEASR_BAD_LENGTH);
    CHECK(edgeasr_frame_encode(0, 0, 0, payload, 1, wire, sizeof wire, &length) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_frame_encode(16, 0, 0, payload, 1, wire, sizeof wire, &length) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_frame_encode(3, 0, 0, payload, 1, wire, EDGEASR_FRAME_MAX(1) - 1, &length) == EDGEASR_OVERFLOW);
    CHECK(edgeasr_frame_encode(9, 0, 0, NULL, 0, wire, EDGEASR_FRAME_MAX(0), &length) == EDGEASR_OK);
}

static void test_sequence(void) {
    start();
    CHECK(send(EDGEASR_TYPE_PING, 250, 4) == EDGEASR_OK);
    CHECK(send(EDGEASR_TYPE_PING, 250, 4) == EDGEASR_EMPTY);
    CHECK(receiver.reader.counts.duplicate == 1);
    CHECK(send(EDGEASR_TYPE_PING, 2, 4) == EDGEASR_OK);
    CHECK(receiver.reader.counts.lost == 7);
    CHECK(send(EDGEASR_TYPE_PING, 242, 4) == EDGEASR_EMPTY);
    CHECK(receiver.reader.counts.late == 1);
    CHECK(send(EDGEASR_TYPE_PING, 241, 4) == EDGEASR_OK);
    CHECK(receiver.reader.counts.lost == 7 + 238);
    CHECK(send(EDGEASR_TYPE_HELLO, 100, 12) == EDGEASR_OK);
    CHECK(receiver.reader.counts.lost == 7 + 238 && receiver.reader.counts.frames == 4);
    CHECK(edgeasr_frame_encode(32 + EDGEASR_TYPE_PING, 0, 0, NULL, 0, wire, sizeof wire, &(size_t){0}) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_frame_reader_refuse(&receiver.reader) == EDGEASR_OK);
    CHECK(receiver.reader.counts.frames == 3 && receiver.reader.counts.payload == 1);
    CHECK(edgeasr_frame_reader_refuse(NULL) == EDGEASR_BAD_ARG);
}

static void test_faults(void) {
    uint8_t packet[EDGEASR_CRC16_LIMIT + 8] = {EDGEASR_PROTOCOL_VERSION << 5 | 20};
    start();
    CHECK(send_packet(packet, 6) == EDGEASR_BAD_TYPE);
    packet[0] = 2 << 5 | EDGEASR_TYPE_PING;
    CHECK(send_packet(packet, 6) == EDGEASR_BAD_VERSION);
    packet[0] = EDGEASR_PROTOCOL_VERSION << 5;
    packet[1] = 1;
    CHECK(send_packet(packet, 6) == EDGEASR_BAD_TYPE);
    CHECK(send_packet(packet, 5) == EDGEASR_BAD_LENGTH);
    CHECK(send_packet(packet, EDGEASR_CRC16_LIMIT + 1) == EDGEASR_BAD_LENGTH);
    CHECK(send_packet(packet, EDGEASR_CRC16_LIMIT + 2) == EDGEASR_BAD_LENGTH);
    CHECK(send_packet(packet, EDGEASR_CRC16_LIMIT + 3) == EDGEASR_BAD_CRC);
    CHECK(receive((const uint8_t *)"\7abc", 5) == EDGEASR_MALFORMED);
    CHECK(receive((const uint8_t *)"\0\0", 3) == EDGEASR_EMPTY);
    CHECK(send(EDGEASR_TYPE_PING, 2, 4) == EDGEASR_OK);
    CHECK(receiver.reader.counts.type == 2 && receiver.reader.counts.version == 1 && receiver.reader.counts.crc == 1);
    CHECK(receiver.reader.counts.length == 3 && receiver.reader.counts.cobs == 1);

    // Longer than the buffer: refused at its end, and the next frame is heard.
    CHECK(edgeasr_frame_reader_init(&receiver.reader, receiver.buffer, EDGEASR_FRAME_MAX(8) - 1) == EDGEASR_OK);
    CHECK(send(EDGEASR_TYPE_AUDIO, 0, 20) == EDGEASR_BAD_LENGTH);
    CHECK(send(EDGEASR_TYPE_AUDIO, 0, 8) == EDGEASR_OK);

    size_t used;
    CHECK(edgeasr_frame_reader_init(NULL, receiver.buffer, 1) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_frame_reader_init(&receiver.reader, receiver.buffer, 0) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_frame_reader_accept(NULL, wire, 1, &used, &receiver.frame) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_frame_reader_accept(&receiver.reader, NULL, 1, &used, &receiver.frame) == EDGEASR_BAD_ARG);
}

// After any garbage, of two good frames the second arrives.
static void test_resynchronisation(void) {
    unsigned state = 1;
    uint32_t first_lost = 0;
    start();
    for (unsigned round = 0; round < 2000; round++) {
        size_t length;
        size_t at = check_random(&state) % 300;
        for (size_t i = 0; i < at; i++) {
            wire[i] = (uint8_t)check_random(&state);
        }
        for (uint8_t i = 0; i < 2; i++) {
            const uint8_t sequence = (uint8_t)(2 * round + i);
            CHECK(edgeasr_frame_encode(EDGEASR_TYPE_PING, sequence, i, payload, 4, wire + at, sizeof wire - at,
                                       &length) == EDGEASR_OK);
            at += length;
        }
        uint8_t heard = 0;
        for (size_t done = 0; done < at;) {
            size_t used;
            if (edgeasr_frame_reader_accept(&receiver.reader, wire + done, at - done, &used, &receiver.frame) ==
                EDGEASR_OK) {
                heard = (uint8_t)(heard | 1u << receiver.frame.time);
            }
            done += used;
        }
        first_lost += (heard & 1u) == 0;
        CHECK((heard & 2u) != 0);
    }
    CHECK(first_lost > 1000 && receiver.reader.counts.frames == 4000 - first_lost);
}

void test_frame(void) {
    test_sizes();
    test_sequence();
    test_faults();
    test_resynchronisation();
}
