// What is measured: each call handles 20 ms of sound, and may be made any number of times.
#ifndef CALLS_H
#define CALLS_H

#define BENCH_SAMPLES 320
#define BENCH_PAYLOAD (2 * BENCH_SAMPLES)
#define BENCH_NUM_CALLS 10

typedef struct {
    const char *name;
    void (*run)(void);
} bench_call_t;

extern const bench_call_t BENCH_CALLS[BENCH_NUM_CALLS];
extern unsigned bench_failures;  // calls that did not give what they should

void bench_prepare(void);

#endif
