// For the compile check only: declarations of what the example calls, and no part of the Pico SDK.
#ifndef STUB_STDIO_USB_H
#define STUB_STDIO_USB_H

#include "pico/stdio.h"

extern stdio_driver_t stdio_usb;

bool stdio_usb_init(void);

#endif
