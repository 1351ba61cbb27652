// For the compile check only: declarations of what the example calls, and no part of the Pico SDK.
#ifndef STUB_WATCHDOG_H
#define STUB_WATCHDOG_H

#include "pico/types.h"

void watchdog_reboot(uint32_t pc, uint32_t sp, uint32_t delay_ms);

#endif
