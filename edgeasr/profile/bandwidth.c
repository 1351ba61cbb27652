// Loops that move memory, after STREAM (McCalpin 1995): the rate of each on arrays of any size, by any number of
// threads. Each thread works on a part of its own of every array.

#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define EDGEASR_MAX_THREADS 256

typedef enum {
    EDGEASR_OK = 0,
    EDGEASR_BAD_ARG = 1,
    EDGEASR_NO_THREAD = 2
} edgeasr_status_t;

typedef enum { EDGEASR_READ, EDGEASR_COPY, EDGEASR_SCALE, EDGEASR_ADD, EDGEASR_TRIAD, EDGEASR_KERNELS } edgeasr_kernel_t;

// Threads spin here until all have come: waking sleepers takes longer than small arrays do.
typedef struct {
    int arrived;
    int opened; // 1: go, -1: go home
} edgeasr_gate_t;

typedef struct {
    edgeasr_kernel_t kernel;
    double *a, *b, *c;
    size_t n, passes;
    edgeasr_gate_t *gate;
    uint64_t sum; // of what was read: stored, so that no compiler leaves the reading out
    double began_s, ended_s;
} edgeasr_part_t;

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

// Integers, since compilers may reorder their sums into vectors; floats they may not.
static uint64_t read_all(const uint64_t *restrict a, size_t n)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += a[i];
    return sum;
}

static void copy(const double *restrict a, double *restrict c, size_t n)
{
    for (size_t i = 0; i < n; i++)
        c[i] = a[i];
}

static void scale(double *restrict b, const double *restrict c, size_t n)
{
    for (size_t i = 0; i < n; i++)
        b[i] = 3.0 * c[i];
}

static void add(const double *restrict a, const double *restrict b, double *restrict c, size_t n)
{
    for (size_t i = 0; i < n; i++)
        c[i] = a[i] + b[i];
}

static void triad(double *restrict a, const double *restrict b, const double *restrict c, size_t n)
{
    for (size_t i = 0; i < n; i++)
        a[i] = b[i] + 3.0 * c[i];
}

static void run_pass(edgeasr_part_t *part)
{
    switch (part->kernel) {
    case EDGEASR_READ: part->sum = read_all((const uint64_t *)(const void *)part->a, part->n); break;
    case EDGEASR_COPY: copy(part->a, part->c, part->n); break;
    case EDGEASR_SCALE: scale(part->b, part->c, part->n); break;
    case EDGEASR_ADD: add(part->a, part->b, part->c, part->n); break;
    default: triad(part->a, part->b, part->c, part->n); break;
    }
}

static void *run_part(void *argument)
{
    edgeasr_part_t *part = argument;
    int opened;

    __atomic_add_fetch(&part->gate->arrived, 1, __ATOMIC_ACQ_REL);
    while ((opened = __atomic_load_n(&part->gate->opened, __ATOMIC_ACQUIRE)) == 0)
        sched_yield();
    if (opened < 0)
        return NULL;
    part->began_s = now_s();
    for (size_t pass = 0; pass < part->passes; pass++) {
        run_pass(part);
        __asm__ volatile("" ::: "memory"); // no pass may be merged with the next
    }
    part->ended_s = now_s();
    return NULL;
}

static double *after(double *array, size_t n)
{
    return array == NULL ? NULL : array + n;
}

// Seconds from the first thread's start to the last one's end.
// a, b, c: n doubles each; those that the kernel does not use may be null.
// BAD_ARG: an unknown kernel, no seconds, no thread or more than EDGEASR_MAX_THREADS.
// NO_THREAD: the system gives no more.
edgeasr_status_t edgeasr_bandwidth_run(int kernel, double *a, double *b, double *c, size_t n, int threads,
                                       size_t passes, double *seconds)
{
    pthread_t handles[EDGEASR_MAX_THREADS];
    edgeasr_part_t parts[EDGEASR_MAX_THREADS];
    edgeasr_gate_t gate = {0, 0};
    double began_s, ended_s;
    int started = 1; // the caller's own

    if (kernel < 0 || kernel >= EDGEASR_KERNELS || seconds == NULL || threads < 1 || threads > EDGEASR_MAX_THREADS)
        return EDGEASR_BAD_ARG;
    for (int i = 0; i < threads; i++) {
        size_t first = n * (size_t)i / (size_t)threads, last = n * (size_t)(i + 1) / (size_t)threads;
        parts[i] = (edgeasr_part_t){(edgeasr_kernel_t)kernel, after(a, first), after(b, first), after(c, first),
                                    last - first, passes, &gate, 0, 0.0, 0.0};
    }
    while (started < threads && pthread_create(&handles[started], NULL, run_part, &parts[started]) == 0)
        started++;
    while (__atomic_load_n(&gate.arrived, __ATOMIC_ACQUIRE) < started - 1)
        sched_yield();
    __atomic_store_n(&gate.opened, started < threads ? -1 : 1, __ATOMIC_RELEASE);
    run_part(&parts[0]);
    for (int i = 1; i < started; i++)
        pthread_join(handles[i], NULL);
    if (started < threads)
        return EDGEASR_NO_THREAD;
    began_s = parts[0].began_s;
    ended_s = parts[0].ended_s;
    for (int i = 1; i < threads; i++) {
        began_s = parts[i].began_s < began_s ? parts[i].began_s : began_s;
        ended_s = parts[i].ended_s > ended_s ? parts[i].ended_s : ended_s;
    }
    *seconds = ended_s - began_s;
    return EDGEASR_OK;
}
