// Where speech starts and ends, from the level of the sound over that of the noise.
#ifndef EDGEASR_VAD_H
#define EDGEASR_VAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edgeasr_status.h"

#ifdef __cplusplus
extern "C" {
#endif

#define EDGEASR_VAD_FRAME_LENGTH 160  // samples, 10 ms at 16 kHz
#define EDGEASR_VAD_DB 256            // 1 dB; levels are relative to full scale

typedef enum {
    EDGEASR_VAD_NONE = 0,
    EDGEASR_VAD_START,
    EDGEASR_VAD_END
} edgeasr_vad_event_t;

typedef struct {
    int16_t onset_margin;    // over the noise, for speech to start
    int16_t release_margin;  // over the noise, for speech to go on
    int16_t quietest;        // nothing below this level is speech
    uint16_t onset_frames;   // that many loud frames in a row start speech
    uint16_t hangover_frames;  // that many quiet frames in a row end it
} edgeasr_vad_config_t;

// 9 dB to start, 5 dB to go on, -60 dB at least, 30 ms, 500 ms.
#define EDGEASR_VAD_DEFAULTS {9 * EDGEASR_VAD_DB, 5 * EDGEASR_VAD_DB, -60 * EDGEASR_VAD_DB, 3, 50}

typedef struct {
    edgeasr_vad_config_t config;
    int32_t noise_q8;  // level of the noise, with 8 more bits
    int16_t level;     // of the last frame
    bool started;      // the noise has been heard
    bool speech;
    uint16_t run;      // frames in a row that speak for the other state
} edgeasr_vad_t;

// BAD_ARG: null pointer, a margin below 0, or a number of frames that is 0.
edgeasr_status_t edgeasr_vad_init(edgeasr_vad_t *vad, const edgeasr_vad_config_t *config);

// Judge the next EDGEASR_VAD_FRAME_LENGTH samples. START comes with the last frame of the onset, END with the last of
// the hangover. BAD_ARG: null pointer.
edgeasr_status_t edgeasr_vad_accept(edgeasr_vad_t *vad, const int16_t *samples, edgeasr_vad_event_t *event);

// The level of up to 65536 samples without their mean, from -103 dB to 0 dB in 1/256 dB; samples may be null where n
// is 0. No errors.
int16_t edgeasr_vad_level(const int16_t *samples, size_t n);

#ifdef __cplusplus
}
#endif

#endif
