#include "calls.h"

#include "edgeasr.h"

#define SAMPLES BENCH_SAMPLES
#define PAYLOAD BENCH_PAYLOAD
#define MELS EDGEASR_LOGMEL_NUM_MELS

static int16_t samples[SAMPLES];
static int16_t decoded[SAMPLES];
static uint8_t payload[PAYLOAD];
static uint8_t wire[EDGEASR_FRAME_MAX(PAYLOAD)];
static uint8_t received[EDGEASR_FRAME_MAX(PAYLOAD)];
static uint8_t block[EDGEASR_ADPCM_SIZE(SAMPLES)];
static uint8_t buffer[EDGEASR_FRAME_MAX(PAYLOAD)];
static int16_t log_mel[2 * MELS];
static int8_t q[2 * MELS];
static uint8_t rice[EDGEASR_FEATURES_MAX(2, MELS)];
static size_t length;
static size_t rice_length;
static uint8_t sequence;
static edgeasr_frame_reader_t reader;
static edgeasr_adpcm_t adpcm;
static edgeasr_logmel_t logmel;
static edgeasr_gate_t gate;
static int16_t gate_samples[4096];
static uint32_t now;

unsigned bench_failures;

static void expect(int condition) {
    bench_failures += condition == 0;
}

static void encode_frame(void) {
    expect(edgeasr_frame_encode(EDGEASR_TYPE_AUDIO, sequence++, now, payload, PAYLOAD, wire, sizeof wire, &length) ==
           EDGEASR_OK);
}

static void decode_frame(void) {
    size_t used;
    edgeasr_frame_t frame;
    expect(edgeasr_frame_reader_accept(&reader, received, length, &used, &frame) == EDGEASR_OK);
}

static void encode_ulaw(void) {
    expect(edgeasr_ulaw_encode(samples, SAMPLES, wire) == EDGEASR_OK);
}

static void decode_ulaw(void) {
    expect(edgeasr_ulaw_decode(payload, SAMPLES, decoded) == EDGEASR_OK);
}

static void encode_adpcm(void) {
    size_t used;
    expect(edgeasr_adpcm_encode(&adpcm, samples, SAMPLES, wire, sizeof wire, &used) == EDGEASR_OK);
}

static void decode_adpcm(void) {
    expect(edgeasr_adpcm_decode(block, sizeof block, decoded, SAMPLES) == EDGEASR_OK);
}

static void run_logmel(void) {
    size_t used;
    for (size_t at = 0; at < SAMPLES; at += used) {
        (void)edgeasr_logmel_accept(&logmel, samples + at, SAMPLES - at, &used, log_mel);
    }
}

static void encode_features(void) {
    expect(edgeasr_features_quantize(log_mel, 2 * MELS, EDGEASR_DEFAULT_FEATURE_STEP, EDGEASR_DEFAULT_FEATURE_OFFSET,
                                     q) == EDGEASR_OK);
    expect(edgeasr_features_encode(q, 2, MELS, rice, sizeof rice, &rice_length) == EDGEASR_OK);
}

static void decode_features(void) {
    expect(edgeasr_features_decode(rice, rice_length, 2, MELS, q) == EDGEASR_OK);
}

static void run_gate(void) {
    for (size_t at = 0; at < SAMPLES; at += EDGEASR_VAD_FRAME_LENGTH) {
        edgeasr_vad_event_t event;
        size_t got;
        uint32_t time;
        expect(edgeasr_gate_accept(&gate, now, samples + at, &event) == EDGEASR_OK);
        now += EDGEASR_VAD_FRAME_LENGTH;
        (void)edgeasr_gate_read(&gate, decoded, SAMPLES, &got, &time);
    }
}

const bench_call_t BENCH_CALLS[BENCH_NUM_CALLS] = {
    {"frame_encode", encode_frame},       {"frame_decode", decode_frame},       {"ulaw_encode", encode_ulaw},
    {"ulaw_decode", decode_ulaw},         {"adpcm_encode", encode_adpcm},       {"adpcm_decode", decode_adpcm},
    {"logmel", run_logmel},               {"features_encode", encode_features}, {"features_decode", decode_features},
    {"vad_gate", run_gate},
};

void bench_prepare(void) {
    const edgeasr_vad_config_t config = EDGEASR_VAD_DEFAULTS;
    uint32_t state = 1;
    for (size_t i = 0; i < SAMPLES; i++) {
        state = state * 1664525u + 1013904223u;
        samples[i] = (int16_t)((int32_t)(state >> 20) - 2048);
        (void)edgeasr_put_i16(payload + 2 * i, samples[i]);
    }
    // The same frame over and over: only a HELLO is no duplicate then.
    expect(edgeasr_frame_encode(EDGEASR_TYPE_HELLO, 0, 0, payload, PAYLOAD, received, sizeof received, &length) ==
           EDGEASR_OK);
    (void)edgeasr_frame_reader_init(&reader, buffer, sizeof buffer);
    (void)edgeasr_logmel_init(&logmel);
    (void)edgeasr_gate_init(&gate, &config, gate_samples, 4096, 3200);
    for (size_t mel = 0; mel < MELS; mel++) {
        log_mel[mel] = log_mel[MELS + mel] = (int16_t)(-2000 - 40 * (int32_t)mel + samples[mel] / 2);
    }
    encode_features();
}
