// For the compile check only: declarations of what the example calls, and no part of ESP-IDF.
#ifndef STUB_GPIO_H
#define STUB_GPIO_H

#include <stdint.h>

#include "esp_err.h"

typedef enum { GPIO_NUM_4 = 4, GPIO_NUM_5, GPIO_NUM_6, GPIO_NUM_7, GPIO_NUM_8 } gpio_num_t;
typedef enum { GPIO_MODE_OUTPUT = 2 } gpio_mode_t;

esp_err_t gpio_set_direction(gpio_num_t gpio_num, gpio_mode_t mode);
esp_err_t gpio_set_level(gpio_num_t gpio_num, uint32_t level);

#endif
