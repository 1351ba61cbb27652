/* CUDA's runtime library as far as edgeasr uses it, with a GPU that is imitated in memory.
 *
 * What is asked of a stream is only done when it is waited for, as late as a real one may do it. Addresses on the
 * device are none of the host's: whoever reads one there dies. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MAX_BUFFERS 256
#define MAX_TASKS 1024
#define DEVICE_BIT ((uintptr_t)1 << 62)

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, LAUNCH_FAILURE = 719 };
enum { TO_DEVICE = 1, TO_HOST = 2 };

typedef struct {
    char *memory;
    size_t size;
} buffer_t;

typedef struct {
    void *to;
    const void *from;
    size_t size;
    void (*run)(void);
} task_t;

static buffer_t buffers[MAX_BUFFERS];
static task_t tasks[MAX_TASKS];
static int num_tasks, num_streams, next_failure, allocations;

/* The memory of `size` bytes at a device's address, null where there is none. */
static char *on_device(const void *address, size_t size)
{
    for (int i = 0; i < MAX_BUFFERS; i++) {
        char *start = (char *)((uintptr_t)address ^ DEVICE_BIT);
        if (buffers[i].memory && start >= buffers[i].memory && start + size <= buffers[i].memory + buffers[i].size) {
            return start;
        }
    }
    return NULL;
}

static int failure(void)
{
    int status = next_failure;
    next_failure = SUCCESS;
    return status;
}

const char *cudaGetErrorString(int status)
{
    return status == OUT_OF_MEMORY ? "out of memory" : status == LAUNCH_FAILURE ? "unspecified launch failure"
                                                                                : "invalid argument";
}

int cudaMalloc(void **address, size_t size)
{
    int status = failure();
    for (int i = 0; status == SUCCESS && i < MAX_BUFFERS; i++) {
        if (!buffers[i].memory) {
            buffers[i] = (buffer_t){malloc(size), size};
            *address = (void *)((uintptr_t)buffers[i].memory ^ DEVICE_BIT);
            allocations++;
            return SUCCESS;
        }
    }
    return status ? status : OUT_OF_MEMORY;
}

int cudaFree(void *address)
{
    char *start = on_device(address, 0);
    for (int i = 0; i < MAX_BUFFERS; i++) {
        if (start && buffers[i].memory == start) {
            free(start);
            buffers[i].memory = NULL;
            return SUCCESS;
        }
    }
    return INVALID_VALUE;
}

int cudaStreamCreate(void **stream)
{
    *stream = (void *)(uintptr_t)(0x5000 + ++num_streams);
    return failure();
}

int cudaStreamDestroy(void *stream)
{
    num_streams--;
    return stream ? SUCCESS : INVALID_VALUE;
}

int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream)
{
    char *device = on_device(kind == TO_DEVICE ? to : from, size);
    if (!device || !stream || num_tasks == MAX_TASKS || (kind != TO_DEVICE && kind != TO_HOST)) {
        return INVALID_VALUE;
    }
    tasks[num_tasks++] = kind == TO_DEVICE ? (task_t){device, from, size, NULL} : (task_t){to, device, size, NULL};
    return failure();
}

int cudaStreamSynchronize(void *stream)
{
    for (int i = 0; i < num_tasks; i++) {
        if (tasks[i].run) {
            tasks[i].run();
        } else {
            memcpy(tasks[i].to, tasks[i].from, tasks[i].size);
        }
    }
    num_tasks = 0;
    return stream ? failure() : INVALID_VALUE;
}

int cudaDeviceGetAttribute(int *value, int attribute, int device)
{
    if (device != 0 || (attribute != 75 && attribute != 76)) {
        return INVALID_VALUE;
    }
    *value = attribute == 75 ? 8 : 7;
    return failure();
}

/* What only the imitation has: for engines, and for tests to look at. */

int imitated_launch(void (*run)(void))
{
    tasks[num_tasks++] = (task_t){NULL, NULL, 0, run};
    return SUCCESS;
}

int imitated_peek(const void *address, void *to, size_t size)
{
    char *device = on_device(address, size);
    if (device) {
        memcpy(to, device, size);
    }
    return device ? SUCCESS : INVALID_VALUE;
}

int imitated_poke(void *address, const void *from, size_t size)
{
    char *device = on_device(address, size);
    if (device) {
        memcpy(device, from, size);
    }
    return device ? SUCCESS : INVALID_VALUE;
}

void imitated_fail(int status)
{
    next_failure = status;
}

int imitated_live(void)
{
    int live = num_streams;
    for (int i = 0; i < MAX_BUFFERS; i++) {
        live += buffers[i].memory != NULL;
    }
    return live;
}

int imitated_allocations(void)
{
    return allocations;
}
