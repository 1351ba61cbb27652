// The device's side of a session: answers the host, streams when asked to, shows transcripts.
#ifndef DEVICE_H
#define DEVICE_H

#include <stdbool.h>

#include "edgeasr.h"
#include "outbox.h"
#include "stream.h"

#define DEVICE_VERSION_MAJOR 0
#define DEVICE_VERSION_MINOR 1
#define DEVICE_VERSION_PATCH 0
#define DEVICE_NAME "edgeasr reference firmware"
#define DEVICE_MAX_INPUT 512u  // the longest payload that it can receive: a transcript
#define DEVICE_CHUNK 64u       // bytes that are read at once

typedef struct {
    outbox_t outbox;
    stream_t stream;
    edgeasr_frame_reader_t reader;
    uint8_t reader_buffer[EDGEASR_FRAME_MAX(DEVICE_MAX_INPUT)];
    uint8_t chunk[DEVICE_CHUNK];  // read, not yet understood
    size_t chunk_begin;
    size_t chunk_end;
    size_t host_max_payload;
    bool greeted;  // a host has said HELLO
    bool running;
    bool has_run;
    uint32_t stopped_ms;     // when it stopped
    uint32_t last_heard_ms;  // when the host's last frame came that was no PING
    uint32_t finals;         // that the host has sent
} device_t;

void device_init(device_t *device, edgeasr_ring_t *ring);

// Stream to a host that has not asked: one that cannot speak, on a line with one direction.
void device_start(device_t *device);

// Do the next bit of work; false where there is nothing to do until an interrupt.
bool device_step(device_t *device);

#endif
