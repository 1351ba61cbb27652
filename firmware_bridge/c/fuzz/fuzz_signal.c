// Any samples into the log-mel front end and the gate, with jumps of the clock: no overflow, and the clock stays true.
#include "edgeasr_gate.h"
#include "edgeasr_logmel.h"
#include "fuzz.h"

#define FRAME (EDGEASR_VAD_FRAME_LENGTH * sizeof(int16_t))

static void check_frame(edgeasr_logmel_t *logmel, edgeasr_gate_t *gate, const int16_t *frame, uint32_t time) {
    int16_t log_mel[EDGEASR_LOGMEL_NUM_MELS];
    int16_t out[100];
    size_t used;
    uint32_t first;
    uint32_t next = 0;
    edgeasr_vad_event_t event;
    for (size_t at = 0; at < EDGEASR_VAD_FRAME_LENGTH; at += used) {
        if (edgeasr_logmel_accept(logmel, frame + at, EDGEASR_VAD_FRAME_LENGTH - at, &used, log_mel) == EDGEASR_OK) {
            for (size_t mel = 0; mel < EDGEASR_LOGMEL_NUM_MELS; mel++) {
                PROMISE(log_mel[mel] >= -17 * EDGEASR_LOGMEL_UNIT && log_mel[mel] <= 8 * EDGEASR_LOGMEL_UNIT);
            }
        }
    }
    PROMISE(edgeasr_gate_accept(gate, time, frame, &event) == EDGEASR_OK);
    for (size_t total = 0; edgeasr_gate_read(gate, out, 100, &used, &first) == EDGEASR_OK; total += used) {
        PROMISE(total == 0 || first == next);
        next = first + (uint32_t)used;
    }
    PROMISE(next == 0 || next == time + EDGEASR_VAD_FRAME_LENGTH);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static edgeasr_logmel_t logmel;
    static int16_t storage[2048];
    edgeasr_gate_t gate;
    int16_t frame[EDGEASR_VAD_FRAME_LENGTH];
    const edgeasr_vad_config_t config = {6 * EDGEASR_VAD_DB, 3 * EDGEASR_VAD_DB, -80 * EDGEASR_VAD_DB, 2, 3};
    uint32_t time = 0;
    (void)edgeasr_logmel_init(&logmel);
    PROMISE(edgeasr_gate_init(&gate, &config, storage, 2048, 480) == EDGEASR_OK);
    for (size_t at = 0; at < size; at += FRAME) {
        // What is missing of the last frame is as loud as can be.
        memset(frame, 0x7F, sizeof frame);
        memcpy(frame, data + at, size - at < FRAME ? size - at : FRAME);
        time += data[at] == 0x55 ? 1000 : 0;
        check_frame(&logmel, &gate, frame, time);
        time += EDGEASR_VAD_FRAME_LENGTH;
    }
    fuzz_count("signal", size);
    return 0;
}
