#include "outbox.h"

#include <string.h>

#include "board.h"

void outbox_init(outbox_t *outbox) {
    outbox->begin = 0;
    outbox->end = 0;
    outbox->sequence = 0;
    outbox->frames = 0;
}

bool outbox_is_empty(const outbox_t *outbox) {
    return outbox->begin == outbox->end;
}

static size_t room(const outbox_t *outbox) {
    return OUTBOX_SIZE - (outbox->end - outbox->begin);
}

bool outbox_fits(const outbox_t *outbox, size_t media_payload, size_t num_media, size_t num_small) {
    const size_t wanted = num_media * EDGEASR_FRAME_MAX(media_payload) + num_small * EDGEASR_FRAME_MAX(OUTBOX_SMALL_PAYLOAD);
    return wanted <= room(outbox);
}

static void move_to_front(outbox_t *outbox) {
    if (outbox->begin > 0) {
        memmove(outbox->bytes, &outbox->bytes[outbox->begin], outbox->end - outbox->begin);
        outbox->end -= outbox->begin;
        outbox->begin = 0;
    }
}

void outbox_put_delimiter(outbox_t *outbox) {
    move_to_front(outbox);
    if (outbox->end < OUTBOX_SIZE) {
        outbox->bytes[outbox->end++] = 0;
    }
}

edgeasr_status_t outbox_put(outbox_t *outbox, uint8_t type, uint32_t time, const uint8_t *payload, size_t n) {
    move_to_front(outbox);
    size_t length;
    const edgeasr_status_t status = edgeasr_frame_encode(type, outbox->sequence, time, payload, n,
                                                         &outbox->bytes[outbox->end], OUTBOX_SIZE - outbox->end, &length);
    if (status == EDGEASR_OK) {
        outbox->end += length;
        outbox->sequence++;
        outbox->frames++;
    }
    return status;
}

bool outbox_flush(outbox_t *outbox) {
    if (outbox_is_empty(outbox)) {
        return false;
    }
    const size_t taken = board_write(&outbox->bytes[outbox->begin], outbox->end - outbox->begin);
    outbox->begin += taken;
    if (outbox->begin == outbox->end) {
        outbox->begin = 0;
        outbox->end = 0;
    }
    return taken > 0;
}
