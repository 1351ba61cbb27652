// For the compile check only: declarations of what the example calls, and no part of the Pico SDK.
#ifndef STUB_UART_H
#define STUB_UART_H

#include "pico/types.h"

typedef struct uart_inst uart_inst_t;

extern uart_inst_t uart0_inst;
#define uart0 (&uart0_inst)

uint uart_init(uart_inst_t *uart, uint baudrate);
void uart_write_blocking(uart_inst_t *uart, const uint8_t *src, size_t len);

#endif
