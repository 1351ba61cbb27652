#include "edgeasr_gate.h"

#include <string.h>

edgeasr_status_t edgeasr_gate_init(edgeasr_gate_t *gate, const edgeasr_vad_config_t *config, int16_t *samples,
                                   uint32_t size, uint32_t preroll_samples) {
    if (gate == NULL) {
        return EDGEASR_BAD_ARG;
    }
    memset(gate, 0, sizeof *gate);
    if (edgeasr_vad_init(&gate->vad, config) != EDGEASR_OK ||
        edgeasr_ring_init(&gate->ring, samples, size) != EDGEASR_OK) {
        return EDGEASR_BAD_ARG;
    }
    // Before the frame that ends an onset lie the rest of it and the pre-roll.
    const uint32_t onset = (config->onset_frames - 1u) * EDGEASR_VAD_FRAME_LENGTH;
    if (size < onset + EDGEASR_VAD_FRAME_LENGTH || preroll_samples > size - onset - EDGEASR_VAD_FRAME_LENGTH) {
        return EDGEASR_OVERFLOW;
    }
    gate->kept = onset + preroll_samples;
    return EDGEASR_OK;
}

// Samples beyond those that an onset needs go; those that may be read stay.
static void drop_silence(edgeasr_gate_t *gate, uint32_t kept) {
    const uint32_t count = edgeasr_ring_count(&gate->ring);
    if (!gate->vad.speech && gate->open == 0 && count > kept) {
        (void)edgeasr_ring_skip(&gate->ring, count - kept);
    }
}

edgeasr_status_t edgeasr_gate_accept(edgeasr_gate_t *gate, uint32_t time, const int16_t *samples,
                                     edgeasr_vad_event_t *event) {
    if (gate == NULL || samples == NULL || event == NULL) {
        return EDGEASR_BAD_ARG;
    }
    *event = EDGEASR_VAD_NONE;
    drop_silence(gate, time == gate->next ? gate->kept : 0);
    const uint32_t count = edgeasr_ring_count(&gate->ring);
    if (gate->ring.size - count < EDGEASR_VAD_FRAME_LENGTH || (time != gate->next && count > 0)) {
        return EDGEASR_OVERFLOW;
    }
    (void)edgeasr_ring_write(&gate->ring, samples, EDGEASR_VAD_FRAME_LENGTH);
    gate->next = time + EDGEASR_VAD_FRAME_LENGTH;
    (void)edgeasr_vad_accept(&gate->vad, samples, event);
    if (gate->vad.speech || *event == EDGEASR_VAD_END) {
        gate->open = edgeasr_ring_count(&gate->ring);
    }
    return EDGEASR_OK;
}

edgeasr_status_t edgeasr_gate_read(edgeasr_gate_t *gate, int16_t *out, size_t n, size_t *got, uint32_t *time) {
    if (gate == NULL || out == NULL || got == NULL || time == NULL) {
        return EDGEASR_BAD_ARG;
    }
    *got = 0;
    *time = gate->next - edgeasr_ring_count(&gate->ring);
    if (gate->open == 0) {
        return EDGEASR_EMPTY;
    }
    uint32_t lost;  // none: accept writes only what fits
    const edgeasr_status_t status = edgeasr_ring_read(&gate->ring, out, n < gate->open ? n : gate->open, got, &lost);
    gate->open -= (uint32_t)*got;
    return status;
}
