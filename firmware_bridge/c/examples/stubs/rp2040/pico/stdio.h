// For the compile check only: declarations of what the example calls, and no part of the Pico SDK.
#ifndef STUB_STDIO_H
#define STUB_STDIO_H

#include "pico/types.h"

typedef struct stdio_driver stdio_driver_t;

int putchar_raw(int c);
int getchar_timeout_us(uint32_t timeout_us);
void stdio_set_translate_crlf(stdio_driver_t *driver, bool translate);

#endif
