// Vectors of the messages: each is unpacked, compared field by field, and packed again.
#include <stdlib.h>
#include <string.h>

#include "edgeasr_messages.h"
#include "vectors.h"

#define ROOM 4096

// Visits the fields of every message: I for an integer, T for a tail.
#define HELLO_FIELDS(I, T) \
    I(protocol_version) I(sample_rate_hz) I(max_payload) I(capabilities) I(num_mels) T(name)
#define CONFIGURE_FIELDS(I, T) I(codec) I(frame_ms) I(vad_mode) I(preroll_ms) I(flags)
#define AUDIO_FIELDS(I, T) I(codec) I(num_samples) T(data)
#define FEATURES_FIELDS(I, T) I(num_mels) I(num_frames) I(coding) I(step) I(offset) T(data)
#define EVENT_FIELDS(I, T) I(kind) I(value) I(level)
#define GAP_FIELDS(I, T) I(lost_samples) I(reason)
#define LOG_FIELDS(I, T) I(level) T(text)
#define STATS_FIELDS(I, T) \
    I(frames_sent) I(frames_received) I(receive_errors) I(overruns) I(uptime_ms) I(cpu_permille) I(free_bytes)
#define PING_FIELDS(I, T) I(token)
#define PONG_FIELDS(I, T) I(token)
#define TRANSCRIPT_FIELDS(I, T) I(kind) I(segment) I(stable_bytes) T(text)
#define COMMAND_FIELDS(I, T) I(command) I(argument)
#define RESET_FIELDS(I, T) I(reason)
#define INFO_FIELDS(I, T) I(major) I(minor) I(patch) I(flash_bytes) I(ram_bytes) T(board)
#define ACK_FIELDS(I, T) I(type) I(sequence) I(status)

#define EACH_MESSAGE(M)                                                                                              \
    M(HELLO, hello) M(CONFIGURE, configure) M(AUDIO, audio) M(FEATURES, features) M(EVENT, event) M(GAP, gap)        \
    M(LOG, log) M(STATS, stats) M(PING, ping) M(PONG, pong) M(TRANSCRIPT, transcript) M(COMMAND, command)            \
    M(RESET, reset) M(INFO, info) M(ACK, ack)

#define INTEGER_EQUAL(name) good = good && (long)message.name == vector_number(vector, field++);
#define TAIL_EQUAL(name) good = good && bytes_equal(vector_bytes(vector, field++), message.name, message.name##_size);

// Too little room, which must be refused, and enough.
#define CHECK_MESSAGE(TYPE, noun)                                                                       \
    static bool check_##noun(const vector_t *vector, bytes_t payload) {                                 \
        edgeasr_##noun##_t message;                                                                     \
        size_t length = 0;                                                                              \
        size_t field = 3;                                                                               \
        bool good = edgeasr_##noun##_unpack(payload.data, payload.size, &message) == EDGEASR_OK;        \
        if (!good) {                                                                                    \
            return false;                                                                               \
        }                                                                                               \
        TYPE##_FIELDS(INTEGER_EQUAL, TAIL_EQUAL) uint8_t *out = malloc(ROOM);                           \
        good = good && field == vector->count;                                                          \
        good = good && edgeasr_##noun##_pack(&message, out, payload.size - 1, &length) == EDGEASR_OVERFLOW; \
        good = good && edgeasr_##noun##_pack(&message, NULL, ROOM, &length) == EDGEASR_BAD_ARG;         \
        good = good && edgeasr_##noun##_unpack(payload.data, payload.size, NULL) == EDGEASR_BAD_ARG;    \
        good = good && edgeasr_##noun##_pack(&message, out, ROOM, &length) == EDGEASR_OK;               \
        good = good && bytes_equal(payload, out, length);                                               \
        free(out);                                                                                      \
        return good;                                                                                    \
    }
EACH_MESSAGE(CHECK_MESSAGE)

// name type payload fields...
bool vector_message(const vector_t *vector) {
    const bytes_t payload = vector_bytes(vector, 2);
#define CHECK_CASE(TYPE, noun) \
    case EDGEASR_TYPE_##TYPE:  \
        return check_##noun(vector, payload);
    switch (vector_number(vector, 1)) {
        EACH_MESSAGE(CHECK_CASE)
        default:
            return false;
    }
}

edgeasr_status_t message_unpack(uint8_t type, const uint8_t *payload, size_t n) {
#define UNPACK_CASE(TYPE, noun)                                 \
    case EDGEASR_TYPE_##TYPE: {                                 \
        edgeasr_##noun##_t message;                             \
        return edgeasr_##noun##_unpack(payload, n, &message);   \
    }
    switch (type) {
        EACH_MESSAGE(UNPACK_CASE)
        default:
            return EDGEASR_BAD_TYPE;
    }
}

// name type payload status
bool vector_message_malformed(const vector_t *vector) {
    const bytes_t payload = vector_bytes(vector, 2);
    return message_unpack((uint8_t)vector_number(vector, 1), payload.data, payload.size) == vector_status(vector, 3);
}
