// For the compile check only: declarations of what the example calls, and no part of ESP-IDF.
#ifndef STUB_ESP_SYSTEM_H
#define STUB_ESP_SYSTEM_H

#include <stdint.h>

void esp_restart(void) __attribute__((noreturn));
uint32_t esp_get_free_heap_size(void);

#endif
