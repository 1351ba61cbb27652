// A microphone that hears a clip and then silence: a file of the host, or two tones that are built in.
#ifndef MICROPHONE_H
#define MICROPHONE_H

#include <stdbool.h>
#include <stdint.h>

#include "edgeasr_ring.h"

// path: null for the tones. Returns false where the file cannot be read, is empty or holds half a sample.
bool microphone_load(const char *path, uint32_t tail_ms);

// n samples go into the ring, where they may not fit; none after the end.
void microphone_hear(edgeasr_ring_t *ring, uint32_t n);

// As many as fit.
void microphone_fill(edgeasr_ring_t *ring);

// Whether clip and silence have been heard.
bool microphone_is_over(void);

#endif
