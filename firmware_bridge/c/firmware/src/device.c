#include "device.h"

#include <string.h>

#include "board.h"

#define CAPABILITIES                                                                                       \
    (EDGEASR_CAPABILITY_S16 | EDGEASR_CAPABILITY_ULAW | EDGEASR_CAPABILITY_ADPCM | EDGEASR_CAPABILITY_FEATURES | \
     EDGEASR_CAPABILITY_VAD | EDGEASR_CAPABILITY_DISPLAY | EDGEASR_CAPABILITY_COMMANDS)

void device_init(device_t *device, edgeasr_ring_t *ring) {
    memset(device, 0, sizeof *device);
    outbox_init(&device->outbox);
    stream_init(&device->stream, ring, &device->outbox);
    (void)edgeasr_frame_reader_init(&device->reader, device->reader_buffer, sizeof device->reader_buffer);
    device->host_max_payload = EDGEASR_MAX_PAYLOAD;
}

static void put(device_t *device, uint8_t type, const uint8_t *payload, size_t n) {
    (void)outbox_put(&device->outbox, type, device->stream.time, payload, n);
}

void device_start(device_t *device) {
    if (device->running) {
        return;
    }
    const uint32_t paused_ms = device->has_run ? board_clock_ms() - device->stopped_ms : 0;
    stream_resume(&device->stream, paused_ms * STREAM_SAMPLES_PER_MS);
    device->running = true;
    device->has_run = true;
    board_microphone(true);
}

static void stop(device_t *device) {
    if (device->running) {
        board_microphone(false);
        device->running = false;
        device->stopped_ms = board_clock_ms();
    }
}

static void acknowledge(device_t *device, const edgeasr_frame_t *frame, edgeasr_status_t status) {
    const edgeasr_ack_t message = {frame->type, frame->sequence, (uint8_t)status};
    uint8_t payload[EDGEASR_ACK_SIZE];
    size_t length;
    (void)edgeasr_ack_pack(&message, payload, sizeof payload, &length);
    put(device, EDGEASR_TYPE_ACK, payload, length);
}

static edgeasr_status_t on_hello(device_t *device, const edgeasr_frame_t *frame) {
    edgeasr_hello_t host;
    const edgeasr_status_t status = edgeasr_hello_unpack(frame->payload, frame->payload_length, &host);
    if (status != EDGEASR_OK) {
        return status;
    }
    stop(device);
    device->host_max_payload = host.max_payload;
    device->greeted = true;
    const edgeasr_hello_t message = {EDGEASR_PROTOCOL_VERSION,
                                     EDGEASR_LOGMEL_SAMPLE_RATE_HZ,
                                     DEVICE_MAX_INPUT,
                                     CAPABILITIES,
                                     EDGEASR_LOGMEL_NUM_MELS,
                                     DEVICE_NAME,
                                     sizeof DEVICE_NAME - 1u};
    uint8_t payload[OUTBOX_SMALL_PAYLOAD];
    size_t length;
    (void)edgeasr_hello_pack(&message, payload, sizeof payload, &length);
    outbox_put_delimiter(&device->outbox);
    put(device, EDGEASR_TYPE_HELLO, payload, length);
    return EDGEASR_OK;
}

static bool is_same(const edgeasr_configure_t *a, const edgeasr_configure_t *b) {
    return a->codec == b->codec && a->frame_ms == b->frame_ms && a->vad_mode == b->vad_mode &&
           a->preroll_ms == b->preroll_ms && a->flags == b->flags;
}

static edgeasr_status_t on_configure(device_t *device, const edgeasr_frame_t *frame) {
    edgeasr_configure_t config;
    edgeasr_status_t status = edgeasr_configure_unpack(frame->payload, frame->payload_length, &config);
    if (status != EDGEASR_OK) {
        acknowledge(device, frame, status);
        return status;
    }
    // A host that missed the answer asks again: what runs already is left alone.
    if (!(device->running && is_same(&config, &device->stream.config))) {
        const bool was_running = device->running;
        stop(device);
        status = stream_configure(&device->stream, &config, device->host_max_payload);
        if (was_running) {
            device_start(device);
        }
    }
    acknowledge(device, frame, status);
    return EDGEASR_OK;
}

static void send_info(device_t *device) {
    const board_info_t *board = board_info();
    const size_t longest = OUTBOX_SMALL_PAYLOAD - EDGEASR_INFO_SIZE;
    const size_t name_size = strlen(board->name);
    const edgeasr_info_t message = {DEVICE_VERSION_MAJOR, DEVICE_VERSION_MINOR, DEVICE_VERSION_PATCH,
                                    board->flash_bytes,   board->ram_bytes,     board->name,
                                    name_size < longest ? name_size : longest};
    uint8_t payload[OUTBOX_SMALL_PAYLOAD];
    size_t length;
    (void)edgeasr_info_pack(&message, payload, sizeof payload, &length);
    put(device, EDGEASR_TYPE_INFO, payload, length);
}

static void send_stats(device_t *device) {
    const edgeasr_frame_counts_t *counts = &device->reader.counts;
    const uint32_t errors =
        counts->cobs + counts->crc + counts->length + counts->version + counts->type + counts->payload;
    const uint32_t free_bytes = board_info()->free_bytes;
    const edgeasr_stats_t message = {device->outbox.frames,
                                     counts->frames,
                                     errors,
                                     device->stream.ring->overruns,
                                     board_clock_ms(),
                                     board_busy_permille(),
                                     (uint16_t)(free_bytes < UINT16_MAX ? free_bytes : UINT16_MAX)};
    uint8_t payload[EDGEASR_STATS_SIZE];
    size_t length;
    (void)edgeasr_stats_pack(&message, payload, sizeof payload, &length);
    put(device, EDGEASR_TYPE_STATS, payload, length);
}

static edgeasr_status_t on_command(device_t *device, const edgeasr_frame_t *frame) {
    edgeasr_command_t command;
    const edgeasr_status_t status = edgeasr_command_unpack(frame->payload, frame->payload_length, &command);
    if (status != EDGEASR_OK) {
        acknowledge(device, frame, status);
        return status;
    }
    switch (command.command) {
        case EDGEASR_COMMAND_CODE_GET_INFO:
            send_info(device);
            return EDGEASR_OK;
        case EDGEASR_COMMAND_CODE_GET_STATS:
            send_stats(device);
            return EDGEASR_OK;
        case EDGEASR_COMMAND_CODE_START:
            acknowledge(device, frame, EDGEASR_OK);
            device_start(device);
            return EDGEASR_OK;
        case EDGEASR_COMMAND_CODE_STOP:
            stop(device);
            break;
        case EDGEASR_COMMAND_CODE_IDENTIFY:
            board_identify();
            break;
        case EDGEASR_COMMAND_CODE_CALIBRATE:
            stream_calibrate(&device->stream);
            break;
        default:
            acknowledge(device, frame, EDGEASR_BAD_ARG);
            return EDGEASR_OK;
    }
    acknowledge(device, frame, EDGEASR_OK);
    return EDGEASR_OK;
}

static edgeasr_status_t on_ping(device_t *device, const edgeasr_frame_t *frame) {
    edgeasr_ping_t ping;
    const edgeasr_status_t status = edgeasr_ping_unpack(frame->payload, frame->payload_length, &ping);
    if (status == EDGEASR_OK) {
        const edgeasr_pong_t message = {ping.token};
        uint8_t payload[EDGEASR_PONG_SIZE];
        size_t length;
        (void)edgeasr_pong_pack(&message, payload, sizeof payload, &length);
        put(device, EDGEASR_TYPE_PONG, payload, length);
    }
    return status;
}

static edgeasr_status_t on_transcript(device_t *device, const edgeasr_frame_t *frame) {
    edgeasr_transcript_t transcript;
    const edgeasr_status_t status = edgeasr_transcript_unpack(frame->payload, frame->payload_length, &transcript);
    if (status == EDGEASR_OK) {
        const bool final = transcript.kind == EDGEASR_TRANSCRIPT_KIND_FINAL;
        board_display(final, transcript.text, transcript.text_size);
        device->finals += final ? 1u : 0u;
    }
    return status;
}

static edgeasr_status_t on_reset(const edgeasr_frame_t *frame) {
    edgeasr_reset_t reset;
    const edgeasr_status_t status = edgeasr_reset_unpack(frame->payload, frame->payload_length, &reset);
    if (status == EDGEASR_OK) {
        board_reset();
    }
    return status;
}

// At most one answer to a frame.
static void on_frame(device_t *device, const edgeasr_frame_t *frame) {
    edgeasr_status_t status = EDGEASR_OK;
    if (frame->type != EDGEASR_TYPE_PING) {
        device->last_heard_ms = board_clock_ms();
    }
    switch (frame->type) {
        case EDGEASR_TYPE_HELLO:
            status = on_hello(device, frame);
            break;
        case EDGEASR_TYPE_CONFIGURE:
            status = on_configure(device, frame);
            break;
        case EDGEASR_TYPE_COMMAND:
            status = on_command(device, frame);
            break;
        case EDGEASR_TYPE_PING:
            status = on_ping(device, frame);
            break;
        case EDGEASR_TYPE_TRANSCRIPT:
            status = on_transcript(device, frame);
            break;
        case EDGEASR_TYPE_RESET:
            status = on_reset(frame);
            break;
        default:  // PONG and ACK answer nothing that was asked, the others are not for devices
            break;
    }
    if (status != EDGEASR_OK) {
        (void)edgeasr_frame_reader_refuse(&device->reader);
    }
}

// Frames of the host, one at a time and only while there is room for an answer.
static bool listen(device_t *device) {
    if (!outbox_fits(&device->outbox, 0, 0, 2)) {
        return false;
    }
    if (device->chunk_begin == device->chunk_end) {
        device->chunk_begin = 0;
        device->chunk_end = board_read(device->chunk, sizeof device->chunk);
    }
    if (device->chunk_begin == device->chunk_end) {
        return false;
    }
    edgeasr_frame_t frame;
    size_t used;
    const edgeasr_status_t status = edgeasr_frame_reader_accept(
        &device->reader, &device->chunk[device->chunk_begin], device->chunk_end - device->chunk_begin, &used, &frame);
    device->chunk_begin += used;
    if (status == EDGEASR_OK) {
        on_frame(device, &frame);
    }
    return true;
}

bool device_step(device_t *device) {
    const bool sent = outbox_flush(&device->outbox);
    const bool heard = listen(device);
    const bool streamed = device->running && stream_step(&device->stream);
    return sent || heard || streamed;
}
