// For the compile check only: declarations of what the example calls, and no part of the Pico SDK.
#ifndef STUB_PIO_H
#define STUB_PIO_H

#include "pico/types.h"

typedef struct {
    uint32_t txf[4];
    volatile uint32_t rxf[4];
} pio_hw_t;

typedef pio_hw_t *PIO;

extern pio_hw_t pio0_hw;
#define pio0 (&pio0_hw)

typedef struct {
    const uint16_t *instructions;
    uint8_t length;
    int8_t origin;
} pio_program_t;

typedef struct {
    uint32_t clkdiv;
} pio_sm_config;

enum pio_src_dest { pio_pins = 0 };
enum pio_fifo_join { PIO_FIFO_JOIN_NONE, PIO_FIFO_JOIN_TX, PIO_FIFO_JOIN_RX };

uint pio_encode_in(enum pio_src_dest src, uint count);
uint pio_encode_nop(void);
uint pio_encode_sideset(uint sideset_bit_count, uint value);
int pio_add_program(PIO pio, const pio_program_t *program);
int pio_claim_unused_sm(PIO pio, bool required);
void pio_gpio_init(PIO pio, uint pin);
int pio_sm_set_consecutive_pindirs(PIO pio, uint sm, uint pin_base, uint pin_count, bool is_out);
pio_sm_config pio_get_default_sm_config(void);
void sm_config_set_wrap(pio_sm_config *c, uint wrap_target, uint wrap);
void sm_config_set_sideset(pio_sm_config *c, uint bit_count, bool optional, bool pindirs);
void sm_config_set_sideset_pins(pio_sm_config *c, uint sideset_base);
void sm_config_set_in_pins(pio_sm_config *c, uint in_base);
void sm_config_set_in_shift(pio_sm_config *c, bool shift_right, bool autopush, uint push_threshold);
void sm_config_set_fifo_join(pio_sm_config *c, enum pio_fifo_join join);
void sm_config_set_clkdiv(pio_sm_config *c, float div);
int pio_sm_init(PIO pio, uint sm, uint initial_pc, const pio_sm_config *config);
void pio_sm_set_enabled(PIO pio, uint sm, bool enabled);
uint pio_get_dreq(PIO pio, uint sm, bool is_tx);

#endif
