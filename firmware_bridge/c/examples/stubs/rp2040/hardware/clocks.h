// For the compile check only: declarations of what the example calls, and no part of the Pico SDK.
#ifndef STUB_CLOCKS_H
#define STUB_CLOCKS_H

#include "pico/types.h"

enum clock_index { clk_sys = 5 };

uint32_t clock_get_hz(enum clock_index clock);

#endif
