// Test vectors: a case a line, its fields separated by a space; the first is its name, bytes are in hex ("-" for none).
#ifndef VECTORS_H
#define VECTORS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "edgeasr_status.h"

#define VECTORS_MAX_FIELDS 16
#define VECTORS_MAX_LINE 300000

typedef struct {
    uint8_t *data;
    size_t size;
} bytes_t;

typedef struct {
    size_t count;
    const char *fields[VECTORS_MAX_FIELDS];
} vector_t;

// A field as bytes, in memory of its own of just that size, which lives until the next case; a fault ends the program.
bytes_t vector_bytes(const vector_t *vector, size_t field);

// A field as samples, two bytes each.
int16_t *vector_samples(const vector_t *vector, size_t field, size_t *n);

// A field as a number, and one in hex; a fault ends the program.
long vector_number(const vector_t *vector, size_t field);
unsigned long vector_hex(const vector_t *vector, size_t field);

// The status that a field names; a fault ends the program.
edgeasr_status_t vector_status(const vector_t *vector, size_t field);

bool bytes_equal(bytes_t wanted, const void *got, size_t size);

// Each says whether the library does what a case wants.
bool vector_crc16(const vector_t *vector);
bool vector_crc32(const vector_t *vector);
bool vector_cobs(const vector_t *vector);
bool vector_cobs_malformed(const vector_t *vector);
bool vector_message(const vector_t *vector);
bool vector_message_malformed(const vector_t *vector);
bool vector_frame(const vector_t *vector);
bool vector_frame_malformed(const vector_t *vector);
bool vector_stream(const vector_t *vector);
bool vector_ulaw(const vector_t *vector);
bool vector_adpcm(const vector_t *vector);
bool vector_adpcm_malformed(const vector_t *vector);
bool vector_rice(const vector_t *vector);
bool vector_rice_malformed(const vector_t *vector);
bool vector_logmel(const vector_t *vector);

// Status of unpacking a payload as a message of a type.
edgeasr_status_t message_unpack(uint8_t type, const uint8_t *payload, size_t n);

#endif
