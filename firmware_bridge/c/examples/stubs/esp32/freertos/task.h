// For the compile check only: declarations of what the example calls, and no part of ESP-IDF.
#ifndef STUB_TASK_H
#define STUB_TASK_H

#include "freertos/FreeRTOS.h"

typedef struct tskTaskControlBlock *TaskHandle_t;
typedef void (*TaskFunction_t)(void *);

BaseType_t xTaskCreate(TaskFunction_t code, const char *name, uint32_t stack_bytes, void *parameters,
                       UBaseType_t priority, TaskHandle_t *task);
void vTaskDelay(TickType_t ticks);

#endif
