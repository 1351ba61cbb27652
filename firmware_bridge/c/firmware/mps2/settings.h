// What a run is told on the command line: words such as pace=20, and last pcm=FILE, whose name may hold spaces.
#ifndef SETTINGS_H
#define SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#define SETTINGS_MAX_LINE 512

typedef struct {
    char line[SETTINGS_MAX_LINE];
    const char *pcm;     // file of raw 16-bit samples at 16 kHz, or null for the built-in clip
    uint32_t pace;       // times as fast as real time; 0: as fast as the link takes it, and nothing is lost
    uint32_t baud;       // of the link; 0: no limit but the emulator's
    uint32_t tail_ms;    // silence after the clip
    uint32_t finals;     // segments after which to end; 0: when the host has been silent for quiet_ms
    uint32_t quiet_ms;
    uint32_t unasked;    // 1: stream without waiting for a host
} settings_t;

// Returns false, after saying why, for what it does not know.
bool settings_read(settings_t *settings);

#endif
