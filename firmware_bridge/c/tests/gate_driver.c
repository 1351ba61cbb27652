// int16 samples on standard input; on standard output a line for each event and each run of samples that the gate lets
// through: "start TIME", "end TIME", "speech TIME SAMPLES CHECKSUM". Argument: the pre-roll in samples.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "edgeasr_crc.h"
#include "edgeasr_gate.h"

#define RING_SIZE 8192

static void print_speech(edgeasr_gate_t *gate) {
    static int16_t out[RING_SIZE];
    size_t got;
    uint32_t time;
    while (edgeasr_gate_read(gate, out, RING_SIZE, &got, &time) == EDGEASR_OK) {
        printf("speech %" PRIu32 " %zu %" PRIu32 "\n", time, got,
               edgeasr_crc32((const uint8_t *)out, got * sizeof out[0]));
    }
}

int main(int count, char **arguments) {
    static int16_t samples[RING_SIZE];
    const edgeasr_vad_config_t config = EDGEASR_VAD_DEFAULTS;
    edgeasr_gate_t gate;
    const uint32_t preroll = count == 2 ? (uint32_t)atoi(arguments[1]) : 0;
    if (count != 2 || edgeasr_gate_init(&gate, &config, samples, RING_SIZE, preroll) != EDGEASR_OK) {
        return 1;
    }
    int16_t frame[EDGEASR_VAD_FRAME_LENGTH];
    for (uint32_t time = 0; fread(frame, sizeof frame, 1, stdin) == 1; time += EDGEASR_VAD_FRAME_LENGTH) {
        edgeasr_vad_event_t event;
        if (edgeasr_gate_accept(&gate, time, frame, &event) != EDGEASR_OK) {
            return 1;
        }
        if (event != EDGEASR_VAD_NONE) {
            printf("%s %" PRIu32 "\n", event == EDGEASR_VAD_START ? "start" : "end", time);
        }
        print_speech(&gate);
    }
    return 0;
}
