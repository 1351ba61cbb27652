// The smallest test framework that will do: a failed check is printed and counted, and the run goes on.
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>

extern int check_count;
extern int check_failures;

#define CHECK(condition)                                                    \
    do {                                                                    \
        check_count++;                                                      \
        if (!(condition)) {                                                 \
            check_failures++;                                               \
            printf("%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
        }                                                                   \
    } while (0)

// A generator of the tests' own, the same numbers everywhere (Marsaglia 2003, xorshift).
static inline unsigned check_random(unsigned *state) {
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

void test_cobs(void);
void test_crc(void);
void test_frame(void);
void test_ring(void);
void test_codecs(void);
void test_features(void);
void test_logmel(void);
void test_vad(void);
void test_gate(void);
void test_messages(void);

#endif
