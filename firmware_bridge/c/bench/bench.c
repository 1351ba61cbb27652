// Speed on one core, or one call many times for a counter of instructions: bench [NAME CALLS], bench list
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "calls.h"

static double seconds(void (*run)(void), uint32_t calls) {
    const clock_t start = clock();
    for (uint32_t i = 0; i < calls; i++) {
        run();
    }
    return (double)(clock() - start) / CLOCKS_PER_SEC;
}

// The best of five, as others may be using the machine.
static void measure(size_t which) {
    uint32_t calls = 1;
    while (seconds(BENCH_CALLS[which].run, calls) < 0.02) {
        calls *= 2;
    }
    double best = 1e9;
    for (int round = 0; round < 5; round++) {
        const double taken = seconds(BENCH_CALLS[which].run, calls);
        best = taken < best ? taken : best;
    }
    printf("%-16s %8.1f MB/s of PCM, %7.2f us for 20 ms\n", BENCH_CALLS[which].name, BENCH_PAYLOAD * calls / best / 1e6,
           best / calls * 1e6);
}

int main(int count, char **arguments) {
    bench_prepare();
    for (size_t i = 0; i < BENCH_NUM_CALLS; i++) {
        if (count == 1) {
            measure(i);
        } else if (strcmp(arguments[1], BENCH_CALLS[i].name) == 0) {
            (void)seconds(BENCH_CALLS[i].run, count > 2 ? (uint32_t)strtoul(arguments[2], NULL, 10) : 1);
        } else if (strcmp(arguments[1], "list") == 0) {
            printf("%s\n", BENCH_CALLS[i].name);
        }
    }
    return bench_failures == 0 ? 0 : 1;
}
