// Packets to the bytes of a link and back: header, checksum, byte stuffing, and a zero at the end.
#ifndef EDGEASR_FRAME_H
#define EDGEASR_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edgeasr_cobs.h"
#include "edgeasr_messages.h"
#include "edgeasr_status.h"

#ifdef __cplusplus
extern "C" {
#endif

// Bytes on the wire of a frame with n bytes of payload, at most.
#define EDGEASR_FRAME_MAX(n) (EDGEASR_COBS_MAX((n) + EDGEASR_HEADER_SIZE + EDGEASR_CRC32_SIZE) + 1u)

// A frame that arrived; the payload lies in the reader's buffer until the next call.
typedef struct {
    uint8_t type;
    uint8_t sequence;
    uint32_t time;  // the sender's sample clock
    const uint8_t *payload;
    size_t payload_length;
} edgeasr_frame_t;

// What became of the frames of a stream; every frame is in one of all but the last.
typedef struct {
    uint32_t frames;     // handed on
    uint32_t cobs;       // malformed stuffing
    uint32_t crc;
    uint32_t length;     // too short, too long for the buffer or the protocol
    uint32_t version;    // another version of the protocol
    uint32_t type;       // a type that this version does not know
    uint32_t payload;    // refused by the caller: the fields do not fit
    uint32_t duplicate;  // the last frame once more, dropped
    uint32_t late;       // overtaken by a later one, dropped
    uint32_t lost;       // never arrived, or arrived broken
} edgeasr_frame_counts_t;

typedef struct {
    uint8_t *buffer;
    size_t size;
    size_t fill;
    bool skipping;      // the frame is too long: nothing is kept until its end
    bool started;       // a sequence number is expected
    bool after_late;    // the frame before was dropped as late, which its time does not say
    uint8_t expected;
    uint8_t next_late;  // the number after that frame's
    uint32_t time;      // of the last frame that was not dropped
    edgeasr_frame_counts_t counts;
} edgeasr_frame_reader_t;

// A whole frame with its final zero, out of payload bytes that do not overlap out.
// BAD_ARG: null pointer (payload may be null where n is 0), unknown type. BAD_LENGTH: n > EDGEASR_MAX_PAYLOAD.
// OVERFLOW: out_max < EDGEASR_FRAME_MAX(n).
edgeasr_status_t edgeasr_frame_encode(uint8_t type, uint8_t sequence, uint32_t time, const uint8_t *payload, size_t n,
                                      uint8_t *out, size_t out_max, size_t *out_len);

// buffer: EDGEASR_FRAME_MAX(n) - 1 bytes hold frames with n bytes of payload; it stays in use.
// BAD_ARG: null pointer or size 0.
edgeasr_status_t edgeasr_frame_reader_init(edgeasr_frame_reader_t *reader, uint8_t *buffer, size_t size);

// Take bytes up to the end of the next frame; used says how many, and the caller comes again with the rest.
// OK: a frame. EMPTY: all n bytes are used, more are needed. BAD_ARG: null pointer (bytes may be null where n is 0).
// Errors of one frame, counted, after which the reader goes on with the next: MALFORMED, BAD_LENGTH, BAD_CRC,
// BAD_VERSION, BAD_TYPE.
edgeasr_status_t edgeasr_frame_reader_accept(edgeasr_frame_reader_t *reader, const uint8_t *bytes, size_t n,
                                             size_t *used, edgeasr_frame_t *frame);

// Count the frame that came last as an error of its payload after all: the caller could not unpack it.
// BAD_ARG: null pointer.
edgeasr_status_t edgeasr_frame_reader_refuse(edgeasr_frame_reader_t *reader);

#ifdef __cplusplus
}
#endif

#endif
