// For the compile check only: declarations of what the example calls, and no part of TinyUSB.
#ifndef STUB_TUSB_H
#define STUB_TUSB_H

#include <stdint.h>

uint32_t tud_cdc_write_available(void);

#endif
