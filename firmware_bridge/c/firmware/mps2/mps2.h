// Registers of the MPS2 with the AN386 image (Arm DAI0386): a Cortex-M4 with CMSDK peripherals.
#ifndef MPS2_H
#define MPS2_H

#include <stdint.h>

#define MPS2_CLOCK_HZ 25000000u

typedef struct {
    volatile uint32_t data;
    volatile uint32_t state;
    volatile uint32_t control;
    volatile uint32_t interrupt;  // read: which are pending; write: clear those
    volatile uint32_t divider;
} mps2_uart_t;

#define MPS2_UART0 ((mps2_uart_t *)0x40004000u)
#define MPS2_UART1 ((mps2_uart_t *)0x40005000u)
#define MPS2_UART_TX_FULL 1u
#define MPS2_UART_RX_FULL 2u
#define MPS2_UART_TX_ENABLE 1u
#define MPS2_UART_RX_ENABLE 2u
#define MPS2_UART_TX_INTERRUPT_ENABLE 4u
#define MPS2_UART_RX_INTERRUPT_ENABLE 8u
#define MPS2_UART_TX_INTERRUPT 1u
#define MPS2_UART_RX_INTERRUPT 2u

typedef struct {
    volatile uint32_t control;
    volatile uint32_t value;  // counts down
    volatile uint32_t reload;
    volatile uint32_t interrupt;
} mps2_timer_t;

#define MPS2_TIMER0 ((mps2_timer_t *)0x40000000u)
#define MPS2_TIMER_ENABLE 1u

#define MPS2_LEDS (*(volatile uint32_t *)0x40028000u)

typedef struct {
    volatile uint32_t control;
    volatile uint32_t reload;
    volatile uint32_t value;
} cortex_systick_t;

#define CORTEX_SYSTICK ((cortex_systick_t *)0xE000E010u)
#define CORTEX_SYSTICK_RUN 7u  // enabled, with interrupt, at the clock of the core
#define CORTEX_ENABLE_INTERRUPT (*(volatile uint32_t *)0xE000E100u)
#define CORTEX_RESET (*(volatile uint32_t *)0xE000ED0Cu)
#define CORTEX_RESET_KEY 0x05FA0004u

#define MPS2_UART0_RX_IRQ 0u
#define MPS2_UART0_TX_IRQ 1u

#endif
