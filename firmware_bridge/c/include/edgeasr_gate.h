// Lets speech through and keeps silence back: a VAD with a pre-roll, so that the first word is not cut.
//
//     edgeasr_gate_accept(&gate, time, frame, &event);
//     while (edgeasr_gate_read(&gate, out, max, &got, &out_time) == EDGEASR_OK) { ... }
#ifndef EDGEASR_GATE_H
#define EDGEASR_GATE_H

#include <stddef.h>
#include <stdint.h>

#include "edgeasr_ring.h"
#include "edgeasr_status.h"
#include "edgeasr_vad.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct {
    edgeasr_vad_t vad;
    edgeasr_ring_t ring;
    uint32_t kept;     // samples kept back in silence: the pre-roll and what may become an onset
    uint32_t open;     // samples that may be read
    uint32_t next;     // the clock after the newest sample
} edgeasr_gate_t;

// size: of samples, a power of two that holds the pre-roll, the onset and a frame.
// BAD_ARG: null pointer, no power of two, or what edgeasr_vad_init refuses. OVERFLOW: size is too small.
edgeasr_status_t edgeasr_gate_init(edgeasr_gate_t *gate, const edgeasr_vad_config_t *config, int16_t *samples,
                                   uint32_t size, uint32_t preroll_samples);

// The next EDGEASR_VAD_FRAME_LENGTH samples, of which the first is number `time` of the sample clock. After a jump of
// the clock what was kept back is forgotten, so that what is read never spans a gap.
// BAD_ARG: null pointer. OVERFLOW: the caller did not read what may be read; the frame is lost.
edgeasr_status_t edgeasr_gate_accept(edgeasr_gate_t *gate, uint32_t time, const int16_t *samples,
                                     edgeasr_vad_event_t *event);

// Up to n samples of speech, pre-roll and hangover. time: number of the first; where it is not the one after the last
// sample read, silence was kept back between. Read until EMPTY after each frame.
// EMPTY: there is none. BAD_ARG: null pointer.
edgeasr_status_t edgeasr_gate_read(edgeasr_gate_t *gate, int16_t *out, size_t n, size_t *got, uint32_t *time);

#ifdef __cplusplus
}
#endif

#endif
