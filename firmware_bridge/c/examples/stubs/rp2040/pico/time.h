// For the compile check only: declarations of what the example calls, and no part of the Pico SDK.
#ifndef STUB_TIME_H
#define STUB_TIME_H

#include "pico/types.h"

absolute_time_t get_absolute_time(void);
uint32_t to_ms_since_boot(absolute_time_t t);
uint64_t time_us_64(void);

#endif
