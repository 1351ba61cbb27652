// What the fuzz targets share: each stops, and says how far it came, after FUZZ_BYTES bytes of input.
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// A promise that the compiler cannot remove, unlike assert.
#define PROMISE(condition)                                              \
    do {                                                                \
        if (!(condition)) {                                             \
            fprintf(stderr, "broken promise: %s\n", #condition);        \
            abort();                                                    \
        }                                                               \
    } while (0)

static inline void fuzz_count(const char *name, size_t size) {
    static unsigned long long runs;
    static unsigned long long bytes;
    static unsigned long long limit;
    if (limit == 0) {
        const char *text = getenv("FUZZ_BYTES");
        limit = text == NULL ? 0 : strtoull(text, NULL, 10);
        limit = limit == 0 ? 10000000 : limit;
    }
    runs++;
    bytes += size;
    if (bytes >= limit) {
        printf("%-8s %llu runs, %llu bytes, no fault\n", name, runs, bytes);
        fflush(stdout);
        _Exit(0);  // exit would be taken for a crash
    }
}

#endif
