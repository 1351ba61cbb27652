#include "stream.h"

#include <string.h>

#define MS_PER_FEATURE_FRAME (EDGEASR_LOGMEL_HOP_LENGTH / STREAM_SAMPLES_PER_MS)

// Longer than the pause that ends a segment: the host hears the end of what was said before the gate closes.
#define HANGOVER_FRAMES 130

// What a step may leave at once: two messages of speech, one cut short by a gap and one full; three GAP, and an EVENT.
#define MEDIA_AT_ONCE 2u
#define SMALL_AT_ONCE 4u

static bool is_gated(const stream_t *stream) {
    return stream->config.vad_mode == EDGEASR_VAD_MODE_GATE;
}

static bool sends_features(const stream_t *stream) {
    return stream->config.codec == EDGEASR_CODEC_FEATURES;
}

static size_t data_size(uint8_t codec, size_t count) {
    switch (codec) {
        case EDGEASR_CODEC_S16:
            return 2u * count;
        case EDGEASR_CODEC_ULAW:
            return count;
        case EDGEASR_CODEC_ADPCM:
            return EDGEASR_ADPCM_SIZE(count);
        default:
            return EDGEASR_FEATURES_MAX(count, EDGEASR_LOGMEL_NUM_MELS);
    }
}

static edgeasr_status_t gate_init(stream_t *stream, uint32_t preroll_ms) {
    edgeasr_vad_config_t config = EDGEASR_VAD_DEFAULTS;
    config.hangover_frames = HANGOVER_FRAMES;
    stream->ended = false;
    return edgeasr_gate_init(&stream->gate, &config, stream->gate_samples, STREAM_GATE_SIZE,
                             preroll_ms * STREAM_SAMPLES_PER_MS);
}

// What waits for the rest of its message or block is not sent; a GAP will tell.
static void begin_signal(stream_t *stream) {
    const uint32_t unit = sends_features(stream) ? EDGEASR_LOGMEL_HOP_LENGTH : 1u;
    stream->told -= (uint32_t)stream->num_pending * unit;
    stream->coded = stream->told;
    stream->num_pending = 0;
    stream->filled = 0;
    memset(&stream->adpcm, 0, sizeof stream->adpcm);
    (void)edgeasr_logmel_init(&stream->logmel);
}

void stream_init(stream_t *stream, edgeasr_ring_t *ring, outbox_t *outbox) {
    const edgeasr_configure_t config = {EDGEASR_CODEC_S16, 20, EDGEASR_VAD_MODE_OFF, 300, 0};
    memset(stream, 0, sizeof *stream);
    stream->ring = ring;
    stream->outbox = outbox;
    (void)stream_configure(stream, &config, OUTBOX_MAX_PAYLOAD);
}

edgeasr_status_t stream_configure(stream_t *stream, const edgeasr_configure_t *config, size_t max_payload) {
    const bool features = config->codec == EDGEASR_CODEC_FEATURES;
    const size_t per_ms = features ? 1u : STREAM_SAMPLES_PER_MS;
    const size_t count = config->frame_ms * per_ms / (features ? MS_PER_FEATURE_FRAME : 1u);
    const size_t longest = features ? STREAM_MAX_FEATURE_FRAMES : STREAM_MAX_AUDIO_MS * STREAM_SAMPLES_PER_MS;
    const size_t payload = data_size(config->codec, count) + (features ? EDGEASR_FEATURES_SIZE : EDGEASR_AUDIO_SIZE);
    if (config->codec > EDGEASR_CODEC_FEATURES || config->vad_mode > EDGEASR_VAD_MODE_GATE || config->flags != 0 ||
        count == 0 || count > longest || payload > OUTBOX_MAX_PAYLOAD || payload > max_payload) {
        return EDGEASR_BAD_ARG;
    }
    const edgeasr_status_t status = gate_init(stream, config->preroll_ms);
    if (status != EDGEASR_OK) {
        (void)gate_init(stream, stream->config.preroll_ms);  // the one that was there
        return status;
    }
    begin_signal(stream);
    stream->config = *config;
    stream->message_max = count;
    stream->payload_max = payload;
    return EDGEASR_OK;
}

void stream_resume(stream_t *stream, uint32_t paused_samples) {
    const uint32_t waiting = edgeasr_ring_count(stream->ring);
    (void)edgeasr_ring_skip(stream->ring, waiting);
    stream->time += waiting + paused_samples;
    begin_signal(stream);
    (void)gate_init(stream, stream->config.preroll_ms);
    stream->lost[EDGEASR_GAP_REASON_RESTART] = stream->time - stream->told;
}

void stream_calibrate(stream_t *stream) {
    const edgeasr_vad_config_t config = stream->gate.vad.config;
    (void)edgeasr_vad_init(&stream->gate.vad, &config);
}

static size_t encode_audio(stream_t *stream, uint8_t *data, size_t max) {
    const int16_t *samples = stream->pending.samples;
    const size_t n = stream->num_pending;
    size_t length = data_size(stream->config.codec, n);
    if (stream->config.codec == EDGEASR_CODEC_ULAW) {
        (void)edgeasr_ulaw_encode(samples, n, data);
    } else if (stream->config.codec == EDGEASR_CODEC_ADPCM) {
        (void)edgeasr_adpcm_encode(&stream->adpcm, samples, n, data, max, &length);
    } else {
        for (size_t i = 0; i < n; i++) {
            (void)edgeasr_put_i16(&data[2 * i], samples[i]);
        }
    }
    return length;
}

// The message that waits, full or cut short.
static void send_pending(stream_t *stream) {
    static uint8_t data[OUTBOX_MAX_PAYLOAD];
    static uint8_t payload[OUTBOX_MAX_PAYLOAD];
    const size_t count = stream->num_pending;
    if (count == 0) {
        return;
    }
    uint32_t time = stream->told;
    size_t length = 0;
    if (sends_features(stream)) {
        size_t size = 0;
        (void)edgeasr_features_encode(stream->pending.features, (uint8_t)count, EDGEASR_LOGMEL_NUM_MELS, data,
                                      sizeof data, &size);
        const edgeasr_features_t message = {EDGEASR_LOGMEL_NUM_MELS,
                                            (uint8_t)count,
                                            EDGEASR_FEATURE_CODING_RICE,
                                            EDGEASR_DEFAULT_FEATURE_STEP,
                                            EDGEASR_DEFAULT_FEATURE_OFFSET,
                                            data,
                                            size};
        (void)edgeasr_features_pack(&message, payload, sizeof payload, &length);
        time -= (uint32_t)count * EDGEASR_LOGMEL_HOP_LENGTH;
        (void)outbox_put(stream->outbox, EDGEASR_TYPE_FEATURES, time, payload, length);
    } else {
        const size_t size = encode_audio(stream, data, sizeof data);
        const edgeasr_audio_t message = {stream->config.codec, (uint16_t)count, data, size};
        (void)edgeasr_audio_pack(&message, payload, sizeof payload, &length);
        time -= (uint32_t)count;
        (void)outbox_put(stream->outbox, EDGEASR_TYPE_AUDIO, time, payload, length);
    }
    stream->num_pending = 0;
}

static void send_gap(stream_t *stream, uint32_t lost, uint8_t reason) {
    if (lost == 0) {
        return;
    }
    const edgeasr_gap_t message = {lost, reason};
    uint8_t payload[EDGEASR_GAP_SIZE];
    size_t length;
    (void)edgeasr_gap_pack(&message, payload, sizeof payload, &length);
    (void)outbox_put(stream->outbox, EDGEASR_TYPE_GAP, stream->told, payload, length);
    stream->told += lost;
}

// Up to sample `time` nothing comes any more: say why. What no reason has claimed was silence kept back by the gate.
static void send_gaps(stream_t *stream, uint32_t time) {
    static const uint8_t REASONS[] = {EDGEASR_GAP_REASON_RESTART, EDGEASR_GAP_REASON_OVERRUN};
    for (size_t i = 0; i < sizeof REASONS; i++) {
        const uint32_t missing = time - stream->told;
        uint32_t lost = stream->lost[REASONS[i]];
        // Without a gate whatever is missing has this reason; windows of features begin before it.
        if (lost > missing || (lost > 0 && !is_gated(stream))) {
            lost = missing;
        }
        send_gap(stream, lost, REASONS[i]);
        stream->lost[REASONS[i]] = 0;
    }
    send_gap(stream, time - stream->told, is_gated(stream) ? EDGEASR_GAP_REASON_GATED : EDGEASR_GAP_REASON_RESTART);
}

static void code_audio(stream_t *stream, const int16_t *samples, size_t n) {
    while (n > 0) {
        const size_t room = stream->message_max - stream->num_pending;
        const size_t taken = n < room ? n : room;
        memcpy(&stream->pending.samples[stream->num_pending], samples, taken * sizeof *samples);
        stream->num_pending += taken;
        stream->told += (uint32_t)taken;
        samples += taken;
        n -= taken;
        if (stream->num_pending == stream->message_max) {
            send_pending(stream);
        }
    }
}

static void code_features(stream_t *stream, const int16_t *samples, size_t n) {
    int16_t log_mel[EDGEASR_LOGMEL_NUM_MELS];
    while (n > 0) {
        size_t used;
        const edgeasr_status_t status = edgeasr_logmel_accept(&stream->logmel, samples, n, &used, log_mel);
        samples += used;
        n -= used;
        if (status != EDGEASR_OK) {
            continue;
        }
        (void)edgeasr_features_quantize(log_mel, EDGEASR_LOGMEL_NUM_MELS, EDGEASR_DEFAULT_FEATURE_STEP,
                                        EDGEASR_DEFAULT_FEATURE_OFFSET,
                                        &stream->pending.features[stream->num_pending * EDGEASR_LOGMEL_NUM_MELS]);
        stream->num_pending++;
        stream->told += EDGEASR_LOGMEL_HOP_LENGTH;
        if (stream->num_pending == stream->message_max) {
            send_pending(stream);
        }
    }
}

// Samples that go to the host, of which the first is number `time`.
static void code(stream_t *stream, const int16_t *samples, size_t n, uint32_t time) {
    if (time != stream->coded) {
        send_pending(stream);
        send_gaps(stream, time);
        memset(&stream->adpcm, 0, sizeof stream->adpcm);
        (void)edgeasr_logmel_init(&stream->logmel);
    }
    stream->coded = time + (uint32_t)n;
    if (sends_features(stream)) {
        code_features(stream, samples, n);
    } else {
        code_audio(stream, samples, n);
    }
}

static void send_event(stream_t *stream, uint8_t kind) {
    const edgeasr_event_t message = {kind, 0, stream->gate.vad.level};
    uint8_t payload[EDGEASR_EVENT_SIZE];
    size_t length;
    (void)edgeasr_event_pack(&message, payload, sizeof payload, &length);
    (void)outbox_put(stream->outbox, EDGEASR_TYPE_EVENT, stream->time, payload, length);
}

// Samples of the ring until the block is full. A block that a gap cuts is lost with the gap.
static bool fill_block(stream_t *stream) {
    size_t got = 0;
    uint32_t lost = 0;
    (void)edgeasr_ring_read(stream->ring, &stream->block[stream->filled], EDGEASR_VAD_FRAME_LENGTH - stream->filled, &got,
                            &lost);
    if (lost > 0) {
        memmove(stream->block, &stream->block[stream->filled], got * sizeof *stream->block);
        stream->lost[EDGEASR_GAP_REASON_OVERRUN] += lost + (uint32_t)stream->filled;
        stream->filled = 0;
        stream->time += lost;
    }
    stream->filled += got;
    stream->time += (uint32_t)got;
    return got > 0;
}

bool stream_step(stream_t *stream) {
    if (!outbox_fits(stream->outbox, stream->payload_max, MEDIA_AT_ONCE, SMALL_AT_ONCE)) {
        return false;
    }
    if (is_gated(stream)) {
        int16_t speech[EDGEASR_VAD_FRAME_LENGTH];
        size_t got;
        uint32_t time;
        if (edgeasr_gate_read(&stream->gate, speech, EDGEASR_VAD_FRAME_LENGTH, &got, &time) == EDGEASR_OK) {
            code(stream, speech, got, time);
            return true;
        }
        if (stream->ended) {
            stream->ended = false;
            send_pending(stream);
            send_event(stream, EDGEASR_EVENT_KIND_SPEECH_END);
            return true;
        }
    }
    if (!fill_block(stream)) {
        return false;
    }
    if (stream->filled < EDGEASR_VAD_FRAME_LENGTH) {
        return true;
    }
    stream->filled = 0;
    const uint32_t time = stream->time - EDGEASR_VAD_FRAME_LENGTH;
    if (is_gated(stream)) {
        edgeasr_vad_event_t event;
        (void)edgeasr_gate_accept(&stream->gate, time, stream->block, &event);
        if (event == EDGEASR_VAD_START) {
            send_event(stream, EDGEASR_EVENT_KIND_SPEECH_START);
        }
        stream->ended = event == EDGEASR_VAD_END;
    } else {
        code(stream, stream->block, EDGEASR_VAD_FRAME_LENGTH, time);
    }
    return true;
}
