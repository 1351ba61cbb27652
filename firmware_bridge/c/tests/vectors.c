// Runs the vectors in the folder that the argument names and prints a line for each suite; the exit status is 1 where a
// case failed, and 2 where a file cannot be read.
#include "vectors.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const char *name;
    bool (*run)(const vector_t *vector);
} suite_t;

static const suite_t SUITES[] = {
    {"crc16", vector_crc16}, {"crc32", vector_crc32}, {"cobs", vector_cobs},
    {"cobs_malformed", vector_cobs_malformed}, {"message", vector_message},
    {"message_malformed", vector_message_malformed}, {"frame", vector_frame},
    {"frame_malformed", vector_frame_malformed}, {"stream", vector_stream}, {"ulaw", vector_ulaw},
    {"adpcm", vector_adpcm}, {"adpcm_malformed", vector_adpcm_malformed}, {"rice", vector_rice},
    {"rice_malformed", vector_rice_malformed}, {"logmel", vector_logmel},
};

static void *owned[2 * VECTORS_MAX_FIELDS];
static size_t num_owned;

static void fail(const char *what, const char *where) {
    fprintf(stderr, "%s: %.60s\n", what, where);
    exit(2);
}

static void *own(size_t size) {
    void *memory = malloc(size > 0 ? size : 1);
    if (memory == NULL || num_owned == sizeof owned / sizeof owned[0]) {
        fail("no memory for a case", "");
    }
    owned[num_owned++] = memory;
    return memory;
}

static void release(void) {
    while (num_owned > 0) {
        free(owned[--num_owned]);
    }
}

static const char *field_of(const vector_t *vector, size_t field) {
    if (field >= vector->count) {
        fail("a case with too few fields", vector->fields[0]);
    }
    return vector->fields[field];
}

bytes_t vector_bytes(const vector_t *vector, size_t field) {
    const char *text = field_of(vector, field);
    const size_t length = strcmp(text, "-") == 0 ? 0 : strlen(text);
    bytes_t bytes = {own(length / 2), length / 2};
    for (size_t i = 0; i < bytes.size; i++) {
        const char pair[3] = {text[2 * i], text[2 * i + 1], 0};
        char *end;
        bytes.data[i] = (uint8_t)strtoul(pair, &end, 16);
        if (end != pair + 2) {
            fail("no hex", text);
        }
    }
    if (length % 2 != 0) {
        fail("half a byte", text);
    }
    return bytes;
}

int16_t *vector_samples(const vector_t *vector, size_t field, size_t *n) {
    const bytes_t bytes = vector_bytes(vector, field);
    int16_t *samples = own(bytes.size);
    *n = bytes.size / 2;
    for (size_t i = 0; i < *n; i++) {
        const long value = bytes.data[2 * i] | (long)bytes.data[2 * i + 1] << 8;
        samples[i] = (int16_t)(value < 32768 ? value : value - 65536);
    }
    return samples;
}

long vector_number(const vector_t *vector, size_t field) {
    char *end;
    const char *text = field_of(vector, field);
    const long value = strtol(text, &end, 10);
    if (*end != 0 || end == text) {
        fail("no number", text);
    }
    return value;
}

unsigned long vector_hex(const vector_t *vector, size_t field) {
    char *end;
    const char *text = field_of(vector, field);
    const unsigned long value = strtoul(text, &end, 16);
    if (*end != 0 || end == text) {
        fail("no number in hex", text);
    }
    return value;
}

edgeasr_status_t vector_status(const vector_t *vector, size_t field) {
    static const char *const NAMES[] = {
        [EDGEASR_OK] = "OK",
        [EDGEASR_BAD_ARG] = "BAD_ARG",
        [EDGEASR_OVERFLOW] = "OVERFLOW",
        [EDGEASR_EMPTY] = "EMPTY",
        [EDGEASR_MALFORMED] = "MALFORMED",
        [EDGEASR_BAD_CRC] = "BAD_CRC",
        [EDGEASR_BAD_LENGTH] = "BAD_LENGTH",
        [EDGEASR_BAD_VERSION] = "BAD_VERSION",
        [EDGEASR_BAD_TYPE] = "BAD_TYPE",
        [EDGEASR_TRUNCATED] = "TRUNCATED",
    };
    const char *text = field_of(vector, field);
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        if (strcmp(text, NAMES[i]) == 0) {
            return (edgeasr_status_t)i;
        }
    }
    fail("no status", text);
    return EDGEASR_BAD_ARG;
}

bool bytes_equal(bytes_t wanted, const void *got, size_t size) {
    return wanted.size == size && memcmp(wanted.data, got, size) == 0;
}

static vector_t parse(char *line) {
    vector_t vector = {0};
    line[strcspn(line, "\r\n")] = 0;
    for (char *field = strtok(line, " "); field != NULL; field = strtok(NULL, " ")) {
        if (vector.count == VECTORS_MAX_FIELDS) {
            fail("a case with too many fields", vector.fields[0]);
        }
        vector.fields[vector.count++] = field;
    }
    return vector;
}

static unsigned run_suite(const suite_t *suite, const char *folder) {
    static char line[VECTORS_MAX_LINE];
    char path[1000];
    unsigned cases = 0;
    unsigned failures = 0;
    (void)snprintf(path, sizeof path, "%s/%s.txt", folder, suite->name);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        fail("cannot read", path);
    }
    for (unsigned number = 1; fgets(line, sizeof line, file) != NULL; number++) {
        if (line[0] == '#' || line[strspn(line, " \r\n")] == 0) {
            continue;
        }
        const vector_t vector = parse(line);
        cases++;
        if (!suite->run(&vector)) {
            failures++;
            printf("%s:%u: %s failed\n", path, number, vector.fields[0]);
        }
        release();
    }
    fclose(file);
    if (cases == 0) {
        fail("no cases", path);
    }
    printf("%-21s %4u cases, %u failed\n", path + strlen(folder) + 1, cases, failures);
    return failures;
}

int main(int count, char **arguments) {
    unsigned failures = 0;
    if (count != 2) {
        fail("usage", "vectors FOLDER");
    }
    for (size_t i = 0; i < sizeof SUITES / sizeof SUITES[0]; i++) {
        failures += run_suite(&SUITES[i], arguments[1]);
    }
    return failures == 0 ? 0 : 1;
}
