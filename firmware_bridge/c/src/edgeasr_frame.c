#include "edgeasr_frame.h"

#include <string.h>

#include "edgeasr_crc.h"

#define LONGEST (EDGEASR_HEADER_SIZE + EDGEASR_MAX_PAYLOAD + EDGEASR_CRC32_SIZE)

static bool is_known(uint8_t type) {
    return type < 32u && ((EDGEASR_KNOWN_TYPES >> type) & 1u) != 0;
}

edgeasr_status_t edgeasr_frame_encode(uint8_t type, uint8_t sequence, uint32_t time, const uint8_t *payload, size_t n,
                                      uint8_t *out, size_t out_max, size_t *out_len) {
    if (out == NULL || out_len == NULL || (payload == NULL && n > 0) || !is_known(type)) {
        return EDGEASR_BAD_ARG;
    }
    if (n > EDGEASR_MAX_PAYLOAD) {
        return EDGEASR_BAD_LENGTH;
    }
    if (out_max < EDGEASR_FRAME_MAX(n)) {
        return EDGEASR_OVERFLOW;
    }
    uint8_t header[EDGEASR_HEADER_SIZE];
    header[0] = (uint8_t)((EDGEASR_PROTOCOL_VERSION << 5) | type);
    header[1] = sequence;
    (void)edgeasr_put_u32(&header[2], time);

    uint8_t crc[EDGEASR_CRC32_SIZE];
    size_t crc_size = EDGEASR_CRC16_SIZE;
    if (sizeof header + n <= EDGEASR_CRC16_LIMIT) {
        const uint16_t sum = edgeasr_crc16(header, sizeof header);
        (void)edgeasr_put_u16(crc, edgeasr_crc16_update(sum, payload, n));
    } else {
        const uint32_t sum = edgeasr_crc32(header, sizeof header);
        (void)edgeasr_put_u32(crc, edgeasr_crc32_update(sum, payload, n));
        crc_size = EDGEASR_CRC32_SIZE;
    }

    edgeasr_cobs_writer_t writer;
    (void)edgeasr_cobs_begin(&writer, out, out_max);
    (void)edgeasr_cobs_append(&writer, header, sizeof header);
    (void)edgeasr_cobs_append(&writer, payload, n);
    (void)edgeasr_cobs_append(&writer, crc, crc_size);
    (void)edgeasr_cobs_end(&writer, out_len);
    out[(*out_len)++] = 0;
    return EDGEASR_OK;
}

edgeasr_status_t edgeasr_frame_reader_init(edgeasr_frame_reader_t *reader, uint8_t *buffer, size_t size) {
    if (reader == NULL || buffer == NULL || size == 0) {
        return EDGEASR_BAD_ARG;
    }
    memset(reader, 0, sizeof *reader);
    reader->buffer = buffer;
    reader->size = size;
    return EDGEASR_OK;
}

// Bytes of the checksum of a packet; 0 where no packet has this length.
static size_t checksum_size(size_t length) {
    if (length < EDGEASR_HEADER_SIZE + EDGEASR_CRC16_SIZE || length > LONGEST) {
        return 0;
    }
    if (length <= EDGEASR_CRC16_LIMIT + EDGEASR_CRC16_SIZE) {
        return EDGEASR_CRC16_SIZE;
    }
    return length > EDGEASR_CRC16_LIMIT + EDGEASR_CRC32_SIZE ? EDGEASR_CRC32_SIZE : 0;
}

static bool checksum_fits(const uint8_t *packet, size_t length, size_t size) {
    const uint8_t *crc = packet + length - size;
    return size == EDGEASR_CRC16_SIZE ? edgeasr_crc16(packet, length - size) == edgeasr_get_u16(crc)
                                      : edgeasr_crc32(packet, length - size) == edgeasr_get_u32(crc);
}

// Whether the frame goes to the caller. A HELLO begins a session, whatever its number. Two frames in a row that look
// late, one number after the other and neither before the last one in time, are new: the numbers went around.
static bool follows(edgeasr_frame_reader_t *reader, const edgeasr_frame_t *frame) {
    const uint8_t ahead = (uint8_t)(frame->sequence - reader->expected);
    const uint8_t next = (uint8_t)(frame->sequence + 1u);
    const bool is_new_time = frame->time - reader->time <= INT32_MAX;
    const bool goes_on = reader->after_late && frame->sequence == reader->next_late && is_new_time;
    reader->after_late = false;
    if (reader->started && frame->type != EDGEASR_TYPE_HELLO) {
        if (ahead == UINT8_MAX && !goes_on) {
            reader->counts.duplicate++;
            return false;
        }
        if (ahead >= UINT8_MAX - EDGEASR_LATE_FRAMES && !goes_on) {
            reader->counts.late++;
            reader->after_late = is_new_time;
            reader->next_late = next;
            return false;
        }
        reader->counts.lost += ahead;
    }
    reader->started = true;
    reader->expected = next;
    reader->time = frame->time;
    return true;
}

// The frame in the buffer; EMPTY where it is dropped without an error.
static edgeasr_status_t finish(edgeasr_frame_reader_t *reader, edgeasr_frame_t *frame) {
    uint8_t *packet = reader->buffer;
    size_t length;
    if (edgeasr_cobs_decode(packet, reader->fill, packet, reader->fill, &length) != EDGEASR_OK) {
        reader->counts.cobs++;
        return EDGEASR_MALFORMED;
    }
    const size_t crc_size = checksum_size(length);
    if (crc_size == 0) {
        reader->counts.length++;
        return EDGEASR_BAD_LENGTH;
    }
    if (!checksum_fits(packet, length, crc_size)) {
        reader->counts.crc++;
        return EDGEASR_BAD_CRC;
    }
    if (packet[0] >> 5 != EDGEASR_PROTOCOL_VERSION) {
        reader->counts.version++;
        return EDGEASR_BAD_VERSION;
    }
    frame->type = packet[0] & 0x1Fu;
    frame->sequence = packet[1];
    frame->time = edgeasr_get_u32(&packet[2]);
    frame->payload = packet + EDGEASR_HEADER_SIZE;
    frame->payload_length = length - crc_size - EDGEASR_HEADER_SIZE;
    if (!follows(reader, frame)) {
        return EDGEASR_EMPTY;
    }
    if (!is_known(frame->type)) {
        reader->counts.type++;
        return EDGEASR_BAD_TYPE;
    }
    reader->counts.frames++;
    return EDGEASR_OK;
}

edgeasr_status_t edgeasr_frame_reader_accept(edgeasr_frame_reader_t *reader, const uint8_t *bytes, size_t n,
                                             size_t *used, edgeasr_frame_t *frame) {
    if (reader == NULL || used == NULL || frame == NULL || (bytes == NULL && n > 0)) {
        return EDGEASR_BAD_ARG;
    }
    for (*used = 0; *used < n;) {
        const uint8_t byte = bytes[(*used)++];
        if (byte != 0) {
            if (reader->fill < reader->size) {
                reader->buffer[reader->fill++] = byte;
            } else {
                reader->skipping = true;
            }
            continue;
        }
        edgeasr_status_t status = EDGEASR_EMPTY;
        if (reader->skipping) {
            reader->counts.length++;
            status = EDGEASR_BAD_LENGTH;
        } else if (reader->fill > 0) {
            status = finish(reader, frame);
        }
        reader->fill = 0;
        reader->skipping = false;
        if (status != EDGEASR_EMPTY) {
            return status;
        }
    }
    return EDGEASR_EMPTY;
}

edgeasr_status_t edgeasr_frame_reader_refuse(edgeasr_frame_reader_t *reader) {
    if (reader == NULL) {
        return EDGEASR_BAD_ARG;
    }
    reader->counts.frames--;
    reader->counts.payload++;
    return EDGEASR_OK;
}
