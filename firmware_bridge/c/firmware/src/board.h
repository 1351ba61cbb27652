// What the firmware asks of a board; to port it, write these functions.
#ifndef BOARD_H
#define BOARD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *name;
    uint32_t flash_bytes;  // taken by the firmware
    uint32_t ram_bytes;
    uint32_t free_bytes;  // of RAM
} board_info_t;

const board_info_t *board_info(void);

// The link to the host. Neither waits: they move what there is, or room for, and return the number of bytes.
size_t board_read(uint8_t *bytes, size_t max);
size_t board_write(const uint8_t *bytes, size_t n);

// Since the start; wraps.
uint32_t board_clock_ms(void);

// Busy time of the last second.
uint16_t board_busy_permille(void);

// From here on the microphone writes into the ring of samples, or no longer.
void board_microphone(bool on);

// Show the words of a segment: a partial is replaced by the next one, a final stays. The text has no terminator.
void board_display(bool final, const char *text, size_t n);

// Let somebody see which of several boards this is.
void board_identify(void);

// Start anew. Does not return.
void board_reset(void);

#endif
