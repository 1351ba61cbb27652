// For the compile check only: declarations of what the example calls, and no part of the Pico SDK.
#ifndef STUB_GPIO_H
#define STUB_GPIO_H

#include "pico/types.h"

enum gpio_function { GPIO_FUNC_UART = 2 };

void gpio_init(uint gpio);
void gpio_set_dir(uint gpio, bool out);
void gpio_set_function(uint gpio, enum gpio_function function);
void gpio_put(uint gpio, bool value);
bool gpio_get(uint gpio);

#endif
