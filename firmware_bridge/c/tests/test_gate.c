#include <stdlib.h>

#include "check.h"
#include "edgeasr_gate.h"
#include "edgeasr_vad.h"

#define LENGTH EDGEASR_VAD_FRAME_LENGTH
#define RING_SIZE 1024

static const edgeasr_vad_config_t CONFIG = EDGEASR_VAD_DEFAULTS;
static unsigned random_state = 1;

// White noise, uniform up to the amplitude, on top of a constant.
static void noise(int16_t *samples, int32_t amplitude, int32_t constant) {
    for (size_t i = 0; i < LENGTH; i++) {
        const int32_t sample = (int32_t)(check_random(&random_state) % (2u * (unsigned)amplitude + 1u)) - amplitude;
        samples[i] = (int16_t)(sample + constant);
    }
}

static edgeasr_vad_event_t hear(edgeasr_vad_t *vad, int32_t amplitude) {
    int16_t samples[LENGTH];
    edgeasr_vad_event_t event;
    noise(samples, amplitude, 500);
    CHECK(edgeasr_vad_accept(vad, samples, &event) == EDGEASR_OK);
    return event;
}

static void test_level(void) {
    int16_t samples[LENGTH];
    for (size_t i = 0; i < LENGTH; i++) {
        samples[i] = i % 2 == 0 ? INT16_MIN : INT16_MAX;
    }
    CHECK(abs(edgeasr_vad_level(samples, LENGTH)) <= 1);
    for (size_t i = 0; i < LENGTH; i++) {
        samples[i] = (int16_t)(i % 2 == 0 ? -3277 + 1000 : 3277 + 1000);
    }
    CHECK(abs(edgeasr_vad_level(samples, LENGTH) + 20 * EDGEASR_VAD_DB) <= 1);
    for (size_t i = 0; i < LENGTH; i++) {
        samples[i] = 1000;
    }
    CHECK(edgeasr_vad_level(samples, LENGTH) < -102 * EDGEASR_VAD_DB);
    CHECK(edgeasr_vad_level(NULL, 0) == edgeasr_vad_level(samples, LENGTH));
}

void test_vad(void) {
    edgeasr_vad_t vad;
    edgeasr_vad_config_t config = CONFIG;
    test_level();
    CHECK(edgeasr_vad_init(&vad, &CONFIG) == EDGEASR_OK);
    for (unsigned i = 0; i < 100; i++) {
        CHECK(hear(&vad, 50) == EDGEASR_VAD_NONE);
    }
    // Two loud frames are a click, three are an onset.
    CHECK(hear(&vad, 2000) == EDGEASR_VAD_NONE && hear(&vad, 2000) == EDGEASR_VAD_NONE);
    CHECK(hear(&vad, 50) == EDGEASR_VAD_NONE && !vad.speech);
    CHECK(hear(&vad, 2000) == EDGEASR_VAD_NONE && hear(&vad, 2000) == EDGEASR_VAD_NONE);
    CHECK(hear(&vad, 2000) == EDGEASR_VAD_START && vad.speech);
    for (unsigned i = 1; i < CONFIG.hangover_frames; i++) {
        CHECK(hear(&vad, 50) == EDGEASR_VAD_NONE);
    }
    CHECK(hear(&vad, 50) == EDGEASR_VAD_END && !vad.speech);

    // A noise that sets in counts as speech at first, and after half a minute as noise.
    unsigned frames = 0;
    while (hear(&vad, 500) != EDGEASR_VAD_START) {
        frames++;
    }
    CHECK(frames < 5);
    while (hear(&vad, 500) != EDGEASR_VAD_END && frames < 5000) {
        frames++;
    }
    CHECK(frames > 500 && frames < 3000);

    // Loud from the first frame on.
    CHECK(edgeasr_vad_init(&vad, &CONFIG) == EDGEASR_OK);
    (void)hear(&vad, 8000);
    (void)hear(&vad, 8000);
    CHECK(hear(&vad, 8000) == EDGEASR_VAD_START);

    int16_t samples[LENGTH];
    edgeasr_vad_event_t event;
    CHECK(edgeasr_vad_accept(NULL, samples, &event) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_vad_init(&vad, NULL) == EDGEASR_BAD_ARG);
    config.hangover_frames = 0;
    CHECK(edgeasr_vad_init(&vad, &config) == EDGEASR_BAD_ARG);
}

static edgeasr_gate_t gate;
static int16_t storage[RING_SIZE];
static uint32_t now;
static uint32_t next_read;

// The next frame, with its number as a constant; returns the samples that came through.
static uint32_t pass(int32_t amplitude, edgeasr_vad_event_t *event) {
    int16_t samples[LENGTH];
    int16_t out[100];
    size_t got;
    uint32_t time;
    uint32_t total = 0;
    noise(samples, amplitude, 0);
    CHECK(edgeasr_gate_accept(&gate, now, samples, event) == EDGEASR_OK);
    now += LENGTH;
    while (edgeasr_gate_read(&gate, out, 100, &got, &time) == EDGEASR_OK) {
        CHECK(total == 0 || time == next_read);
        next_read = time + (uint32_t)got;
        total += (uint32_t)got;
    }
    return total;
}

static void test_preroll(void) {
    edgeasr_vad_event_t event;
    now = UINT32_MAX - 3000;  // the clock wraps on the way
    CHECK(edgeasr_gate_init(&gate, &CONFIG, storage, RING_SIZE, 480) == EDGEASR_OK);
    for (unsigned i = 0; i < 20; i++) {
        CHECK(pass(50, &event) == 0);
    }
    const uint32_t onset = now;
    CHECK(pass(2000, &event) == 0 && pass(2000, &event) == 0);
    CHECK(pass(2000, &event) == 480 + 3 * LENGTH && event == EDGEASR_VAD_START);
    CHECK(next_read == onset + 3 * LENGTH);
    for (unsigned i = 0; i < CONFIG.hangover_frames; i++) {
        CHECK(pass(50, &event) == LENGTH);
    }
    CHECK(event == EDGEASR_VAD_END && pass(50, &event) == 0);
    // Speech again before the pre-roll is full: nothing twice.
    CHECK(pass(2000, &event) == 0 && pass(2000, &event) == 0 && pass(2000, &event) == 4 * LENGTH);
}

static void test_jumps(void) {
    edgeasr_vad_event_t event;
    int16_t samples[LENGTH] = {0};
    CHECK(edgeasr_gate_init(&gate, &CONFIG, storage, RING_SIZE, 480) == EDGEASR_OK);
    for (unsigned i = 0; i < 20; i++) {
        CHECK(pass(50, &event) == 0);
    }
    now += 1000;  // what lies before the gap is no pre-roll of what lies after it
    CHECK(pass(2000, &event) == 0 && pass(2000, &event) == 0 && pass(2000, &event) == 3 * LENGTH);

    // Speech that nobody reads: the frame is lost, and the next one comes after a jump.
    for (unsigned i = 0; i < RING_SIZE / LENGTH; i++) {
        CHECK(edgeasr_gate_accept(&gate, now, samples, &event) == EDGEASR_OK);
        now += LENGTH;
    }
    CHECK(edgeasr_gate_accept(&gate, now, samples, &event) == EDGEASR_OVERFLOW);
    now += LENGTH;
    CHECK(edgeasr_gate_accept(&gate, now, samples, &event) == EDGEASR_OVERFLOW);
    static int16_t out[RING_SIZE];
    size_t got;
    uint32_t time;
    CHECK(edgeasr_gate_read(&gate, out, RING_SIZE, &got, &time) == EDGEASR_OK && got == RING_SIZE / LENGTH * LENGTH);
    CHECK(edgeasr_gate_accept(&gate, now, samples, &event) == EDGEASR_OK);
    CHECK(edgeasr_gate_read(&gate, out, RING_SIZE, &got, &time) == EDGEASR_OK && got == LENGTH && time == now);
}

void test_gate(void) {
    edgeasr_vad_event_t event;
    size_t got;
    uint32_t time;
    int16_t samples[LENGTH];
    test_preroll();
    test_jumps();
    CHECK(edgeasr_gate_init(NULL, &CONFIG, storage, RING_SIZE, 0) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_gate_init(&gate, NULL, storage, RING_SIZE, 0) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_gate_init(&gate, &CONFIG, storage, 1000, 0) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_gate_init(&gate, &CONFIG, storage, 256, 0) == EDGEASR_OVERFLOW);
    CHECK(edgeasr_gate_init(&gate, &CONFIG, storage, 1024, 545) == EDGEASR_OVERFLOW);
    CHECK(edgeasr_gate_init(&gate, &CONFIG, storage, 1024, 544) == EDGEASR_OK);
    CHECK(edgeasr_gate_accept(&gate, 0, NULL, &event) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_gate_read(&gate, NULL, 1, &got, &time) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_gate_read(&gate, samples, 1, &got, &time) == EDGEASR_EMPTY);
}
