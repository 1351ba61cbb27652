// For the compile check only: declarations of what the example calls, and no part of the Pico SDK.
#ifndef STUB_IRQ_H
#define STUB_IRQ_H

#include "pico/types.h"

#define DMA_IRQ_0 11

typedef void (*irq_handler_t)(void);

void irq_set_exclusive_handler(uint number, irq_handler_t handler);
void irq_set_enabled(uint number, bool enabled);

#endif
