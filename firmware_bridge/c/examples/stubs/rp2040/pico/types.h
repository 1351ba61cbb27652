// For the compile check only: declarations of what the example calls, and no part of the Pico SDK.
#ifndef STUB_TYPES_H
#define STUB_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef unsigned int uint;
typedef uint64_t absolute_time_t;

#endif
