// From reset to main: vectors, initialised data, zeroed data.
#include <stdint.h>

#include "board_mps2.h"
#include "semihosting.h"

typedef void (*handler_t)(void);

extern uint32_t data_begin, data_end, bss_begin, bss_end, stack_top;
extern const uint32_t data_image;

int main(void);
void reset(void);

// An exception that nobody expects ends the firmware, so that a test sees it.
static void fault(void) {
    semihosting_write("fault\n");
    semihosting_exit(2);
}

void reset(void) {
    const uint32_t *from = &data_image;
    for (uint32_t *to = &data_begin; to < &data_end;) {
        *to++ = *from++;
    }
    for (uint32_t *to = &bss_begin; to < &bss_end;) {
        *to++ = 0;
    }
    semihosting_exit(main());
}

typedef struct {
    const uint32_t *stack;
    handler_t exceptions[15];
    handler_t interrupts[32];
} vectors_t;

__attribute__((section(".vectors"), used)) static const vectors_t VECTORS = {
    &stack_top,
    // reset, NMI, hard fault, memory fault, bus fault, usage fault, 4 reserved, SVC, debug, reserved, PendSV, SysTick
    {reset, fault, fault, fault, fault, fault, 0, 0, 0, 0, fault, fault, 0, fault, board_on_tick},
    {board_on_receive, board_on_transmit},
};
