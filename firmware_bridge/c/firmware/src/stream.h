// From the ring of samples to AUDIO or FEATURES in the outbox, with GAP and EVENT where they belong.
//
// Nothing is dropped here: while the outbox is full, samples wait in the ring, and what does not fit there is lost at the
// microphone, counted by the ring and announced as a GAP.
#ifndef STREAM_H
#define STREAM_H

#include <stdbool.h>

#include "edgeasr.h"
#include "outbox.h"

#define STREAM_MAX_AUDIO_MS 60
#define STREAM_MAX_FEATURE_FRAMES 18  // fit into OUTBOX_MAX_PAYLOAD whatever they hold
#define STREAM_GATE_SIZE 8192u        // samples, 512 ms: a power of two
#define STREAM_SAMPLES_PER_MS (EDGEASR_LOGMEL_SAMPLE_RATE_HZ / 1000)
#define STREAM_NUM_REASONS 4

// Samples of one message that wait until it is full: those of the microphone, or frames of features.
typedef union {
    int16_t samples[STREAM_MAX_AUDIO_MS * STREAM_SAMPLES_PER_MS];
    int8_t features[STREAM_MAX_FEATURE_FRAMES * EDGEASR_LOGMEL_NUM_MELS];
} stream_pending_t;

typedef struct {
    edgeasr_ring_t *ring;
    outbox_t *outbox;
    edgeasr_configure_t config;
    size_t message_max;  // samples or frames of a message
    size_t payload_max;  // bytes that such a message takes at most
    // Clock: number of the next sample out of the ring, of the next one to be coded, and of the first one that no
    // message speaks of; the last two differ for features, whose windows overlap.
    uint32_t time;
    uint32_t coded;
    uint32_t told;
    uint32_t lost[STREAM_NUM_REASONS];  // samples by edgeasr_gap_reason_t, to be announced
    int16_t block[EDGEASR_VAD_FRAME_LENGTH];
    size_t filled;
    edgeasr_gate_t gate;
    bool ended;  // the gate closed: an EVENT says so behind the speech before it
    int16_t gate_samples[STREAM_GATE_SIZE];
    edgeasr_adpcm_t adpcm;
    edgeasr_logmel_t logmel;
    stream_pending_t pending;
    size_t num_pending;
} stream_t;

void stream_init(stream_t *stream, edgeasr_ring_t *ring, outbox_t *outbox);

// What to send from now on. max_payload: of the host.
// BAD_ARG: a codec, mode or flag that is not known, or a message that would be too long or empty.
// OVERFLOW: a pre-roll that does not fit.
edgeasr_status_t stream_configure(stream_t *stream, const edgeasr_configure_t *config, size_t max_payload);

// Go on after a pause of so many samples, which are announced as a GAP.
void stream_resume(stream_t *stream, uint32_t paused_samples);

// Learn the level of the noise anew.
void stream_calibrate(stream_t *stream);

// Move up to 10 ms of samples on; whether there was something to do and room for it.
bool stream_step(stream_t *stream);

#endif
