// Frames on their way to the host: numbered and encoded, until the line has taken them.
#ifndef OUTBOX_H
#define OUTBOX_H

#include <stdbool.h>

#include "edgeasr.h"

// The longest payload that the firmware sends, and room for two of those and for the small frames that go with them.
#define OUTBOX_MAX_PAYLOAD 2048u
#define OUTBOX_SMALL_PAYLOAD 64u
#define OUTBOX_SIZE (2u * EDGEASR_FRAME_MAX(OUTBOX_MAX_PAYLOAD) + 4u * EDGEASR_FRAME_MAX(OUTBOX_SMALL_PAYLOAD))

typedef struct {
    uint8_t bytes[OUTBOX_SIZE];
    size_t begin;
    size_t end;
    uint8_t sequence;
    uint32_t frames;  // put so far
} outbox_t;

void outbox_init(outbox_t *outbox);

bool outbox_is_empty(const outbox_t *outbox);

// Whether frames with these payloads fit, one of each size.
bool outbox_fits(const outbox_t *outbox, size_t media_payload, size_t num_media, size_t num_small);

// A lone delimiter, which ends whatever garbage the host has received.
void outbox_put_delimiter(outbox_t *outbox);

// Errors of edgeasr_frame_encode; OVERFLOW where outbox_fits was not asked.
edgeasr_status_t outbox_put(outbox_t *outbox, uint8_t type, uint32_t time, const uint8_t *payload, size_t n);

// Hand over what the line takes now; whether it took anything.
bool outbox_flush(outbox_t *outbox);

#endif
