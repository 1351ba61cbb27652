// The MPS2 board: UART0 is the link, UART1 the display, SysTick the clock of the microphone.
#ifndef BOARD_MPS2_H
#define BOARD_MPS2_H

#include "edgeasr_ring.h"
#include "settings.h"

// Clock, UARTs and interrupts; the microphone writes into ring from board_microphone(true) on.
void board_init(edgeasr_ring_t *ring, const settings_t *settings);

// Sleep until an interrupt, at most a millisecond.
void board_wait(void);

// Interrupts.
void board_on_tick(void);
void board_on_receive(void);
void board_on_transmit(void);

#endif
