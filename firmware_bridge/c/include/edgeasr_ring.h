// A ring of samples between one producer (an interrupt) and one consumer (the main loop), without locks.
//
// What does not fit is dropped and counted, and the ring remembers where: a read never joins samples over a gap.
#ifndef EDGEASR_RING_H
#define EDGEASR_RING_H

#include <stddef.h>
#include <stdint.h>

#include "edgeasr_status.h"

#ifdef __cplusplus
extern "C" {
#endif

// Orders the samples before the counter that publishes them, also between two cores.
#ifndef EDGEASR_BARRIER
#ifdef __GNUC__
#define EDGEASR_BARRIER() __atomic_thread_fence(__ATOMIC_ACQ_REL)
#else
#error "define EDGEASR_BARRIER() as a memory barrier of this compiler"
#endif
#endif

typedef struct {
    int16_t *samples;
    uint32_t size;  // a power of two
    // The producer's; the counters run freely and wrap.
    volatile uint32_t written;
    volatile uint32_t overruns;  // samples dropped in all
    volatile uint32_t gaps_written;
    uint32_t gap_at;    // value of `written` at the gap that the consumer has yet to pass
    uint32_t gap_lost;  // samples dropped there
    uint32_t dropping;  // samples dropped since the last one that fitted
    // The consumer's.
    volatile uint32_t read;
    volatile uint32_t gaps_read;
    uint32_t passed_lost;  // samples dropped at gaps that it has passed, to be told with the next samples
} edgeasr_ring_t;

// BAD_ARG: null pointer, or size is no power of two up to 2^30.
edgeasr_status_t edgeasr_ring_init(edgeasr_ring_t *ring, int16_t *samples, uint32_t size);

// The producer's side. OVERFLOW: what did not fit is lost and counted. BAD_ARG: null pointer (samples may be null where
// n is 0).
edgeasr_status_t edgeasr_ring_write(edgeasr_ring_t *ring, const int16_t *samples, size_t n);

// The consumer's side: up to n samples that follow one another.
// got: how many; lost: samples dropped right before them, so that the clock goes on by lost + got.
// EMPTY: there is none. BAD_ARG: null pointer.
edgeasr_status_t edgeasr_ring_read(edgeasr_ring_t *ring, int16_t *out, size_t n, size_t *got, uint32_t *lost);

// The consumer's side: forget the n oldest samples. BAD_ARG: null pointer. EMPTY: there are fewer, and all stay.
edgeasr_status_t edgeasr_ring_skip(edgeasr_ring_t *ring, uint32_t n);

// Samples that wait, on either side. No errors.
uint32_t edgeasr_ring_count(const edgeasr_ring_t *ring);

#ifdef __cplusplus
}
#endif

#endif
