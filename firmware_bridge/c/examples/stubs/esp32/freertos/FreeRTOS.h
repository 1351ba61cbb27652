// For the compile check only: declarations of what the example calls, and no part of ESP-IDF.
#ifndef STUB_FREERTOS_H
#define STUB_FREERTOS_H

#include <stdint.h>

typedef int BaseType_t;
typedef unsigned int UBaseType_t;
typedef uint32_t TickType_t;

#define portMAX_DELAY 0xFFFFFFFFu

#endif
