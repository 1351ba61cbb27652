// Counts instructions on a Cortex-M in QEMU, where with -icount each takes a nanosecond of the emulated clock: prints
// the name of each call and ticks of SysTick for CALLS of them, through semihosting.
#include <stddef.h>
#include <stdint.h>

#include "calls.h"

#define CALLS 20
#define REGISTER(address) (*(volatile uint32_t *)(address))
#define SYSTICK_CONTROL REGISTER(0xE000E010u)
#define SYSTICK_RELOAD REGISTER(0xE000E014u)
#define SYSTICK_VALUE REGISTER(0xE000E018u)
#define COPROCESSORS REGISTER(0xE000ED88u)
#define LONGEST 0xFFFFFFu
#define SEMIHOSTING_WRITE0 0x04u
#define SEMIHOSTING_EXIT 0x18u
#define EXIT_SUCCESS_REASON 0x20026u
#define EXIT_FAILURE_REASON 0x20024u

extern uint32_t stack_top[];
void start(void);

static void semihosting(uint32_t operation, const void *argument) {
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
}

static void print_number(uint32_t value) {
    char text[12] = {0};
    size_t at = sizeof text - 1;
    do {
        text[--at] = (char)('0' + value % 10u);
        value /= 10u;
    } while (value > 0);
    semihosting(SEMIHOSTING_WRITE0, text + at);
}

void start(void) {
    COPROCESSORS |= 0xFu << 20;  // the floating-point registers, which a copy may use
    SYSTICK_RELOAD = LONGEST;
    SYSTICK_VALUE = 0;
    SYSTICK_CONTROL = 5;  // on, at the processor's clock
    bench_prepare();
    for (size_t i = 0; i < BENCH_NUM_CALLS; i++) {
        const uint32_t before = SYSTICK_VALUE;
        for (uint32_t call = 0; call < CALLS; call++) {
            BENCH_CALLS[i].run();
        }
        const uint32_t ticks = (before - SYSTICK_VALUE) & LONGEST;
        semihosting(SEMIHOSTING_WRITE0, BENCH_CALLS[i].name);
        semihosting(SEMIHOSTING_WRITE0, " ");
        print_number(ticks);
        semihosting(SEMIHOSTING_WRITE0, " ");
        print_number(CALLS);
        semihosting(SEMIHOSTING_WRITE0, "\n");
    }
    // The reason is the argument itself, not a pointer to it.
    semihosting(SEMIHOSTING_EXIT, (const void *)(bench_failures == 0 ? EXIT_SUCCESS_REASON : EXIT_FAILURE_REASON));
    for (;;) {
    }
}

typedef struct {
    const uint32_t *stack;
    void (*reset)(void);
} vectors_t;

extern const vectors_t VECTORS;
__attribute__((section(".vectors"), used)) const vectors_t VECTORS = {stack_top, start};
