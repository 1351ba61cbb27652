#include "edgeasr_ring.h"

#include <string.h>

edgeasr_status_t edgeasr_ring_init(edgeasr_ring_t *ring, int16_t *samples, uint32_t size) {
    if (ring == NULL || samples == NULL || size == 0 || (size & (size - 1u)) != 0 || size > (1u << 30)) {
        return EDGEASR_BAD_ARG;
    }
    memset(ring, 0, sizeof *ring);
    ring->samples = samples;
    ring->size = size;
    return EDGEASR_OK;
}

uint32_t edgeasr_ring_count(const edgeasr_ring_t *ring) {
    return ring->written - ring->read;
}

// Whether samples may follow those that were dropped: the consumer must have passed the gap before.
static int gap_announced(edgeasr_ring_t *ring) {
    if (ring->dropping == 0) {
        return 1;
    }
    if (ring->gaps_written != ring->gaps_read) {
        return 0;
    }
    ring->gap_at = ring->written;
    ring->gap_lost = ring->dropping;
    ring->dropping = 0;
    EDGEASR_BARRIER();
    ring->gaps_written = ring->gaps_written + 1u;
    return 1;
}

edgeasr_status_t edgeasr_ring_write(edgeasr_ring_t *ring, const int16_t *samples, size_t n) {
    if (ring == NULL || (samples == NULL && n > 0)) {
        return EDGEASR_BAD_ARG;
    }
    uint32_t room = ring->size - edgeasr_ring_count(ring);
    EDGEASR_BARRIER();
    if (n == 0) {
        return EDGEASR_OK;
    }
    if (room > 0 && !gap_announced(ring)) {
        room = 0;
    }
    const uint32_t fitting = n < room ? (uint32_t)n : room;
    for (uint32_t i = 0; i < fitting; i++) {
        ring->samples[(ring->written + i) & (ring->size - 1u)] = samples[i];
    }
    EDGEASR_BARRIER();
    ring->written = ring->written + fitting;
    if (fitting == n) {
        return EDGEASR_OK;
    }
    ring->dropping += (uint32_t)(n - fitting);
    ring->overruns = ring->overruns + (uint32_t)(n - fitting);
    return EDGEASR_OVERFLOW;
}

edgeasr_status_t edgeasr_ring_read(edgeasr_ring_t *ring, int16_t *out, size_t n, size_t *got, uint32_t *lost) {
    if (ring == NULL || out == NULL || got == NULL || lost == NULL) {
        return EDGEASR_BAD_ARG;
    }
    *got = 0;
    *lost = 0;
    // The gap is announced before the samples that follow it: looked for later, it cannot be missed. It is passed even
    // where no samples wait: the producer writes none before that.
    uint32_t count = edgeasr_ring_count(ring);
    EDGEASR_BARRIER();
    if (ring->gaps_written != ring->gaps_read) {
        EDGEASR_BARRIER();
        const uint32_t before_gap = ring->gap_at - ring->read;
        // Beyond the size: the consumer has skipped over it.
        if (before_gap == 0 || before_gap > ring->size) {
            ring->passed_lost += ring->gap_lost;
            EDGEASR_BARRIER();
            ring->gaps_read = ring->gaps_read + 1u;
        } else if (before_gap < count) {
            count = before_gap;
        }
    }
    if (count == 0 || n == 0) {
        return EDGEASR_EMPTY;
    }
    *lost = ring->passed_lost;
    ring->passed_lost = 0;
    const uint32_t taken = n < count ? (uint32_t)n : count;
    for (uint32_t i = 0; i < taken; i++) {
        out[i] = ring->samples[(ring->read + i) & (ring->size - 1u)];
    }
    EDGEASR_BARRIER();
    ring->read = ring->read + taken;
    *got = taken;
    return EDGEASR_OK;
}

edgeasr_status_t edgeasr_ring_skip(edgeasr_ring_t *ring, uint32_t n) {
    if (ring == NULL) {
        return EDGEASR_BAD_ARG;
    }
    if (edgeasr_ring_count(ring) < n) {
        return EDGEASR_EMPTY;
    }
    ring->read = ring->read + n;
    return EDGEASR_OK;
}
