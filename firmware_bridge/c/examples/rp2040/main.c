// A Raspberry Pi Pico with a PDM microphone, on USB: the state machine of PIO makes the clock and takes the bits, two
// DMA channels take turns, and the display is a terminal on UART0.
#include "board.h"
#include "device.h"
#include "hardware/clocks.h"
#include "hardware/dma.h"
#include "hardware/gpio.h"
#include "hardware/irq.h"
#include "hardware/pio.h"
#include "hardware/sync.h"
#include "hardware/uart.h"
#include "hardware/watchdog.h"
#include "pdm.h"
#include "pico/stdio.h"
#include "pico/stdio_usb.h"
#include "pico/time.h"
#include "tusb.h"

#define LED_PIN 25u
#define CLOCK_PIN 2u
#define DATA_PIN 3u
#define DISPLAY_TX_PIN 0u
#define DISPLAY_BAUD 115200u

#define SAMPLE_RATE_HZ 16000u
#define PIO_CYCLES_PER_BIT 2u
#define BLOCK_SAMPLES 160u  // 10 ms
#define BLOCK_WORDS (BLOCK_SAMPLES * PDM_WORDS_PER_SAMPLE)
#define RING_SIZE 4096u
#define BYTES_AT_ONCE 64u

static int16_t ring_samples[RING_SIZE];
static edgeasr_ring_t ring;
static device_t device;
static pdm_t pdm;
static uint32_t blocks[2][BLOCK_WORDS];
static uint channels[2];
static volatile bool microphone_on;

// Linker symbols of the SDK.
extern char __flash_binary_start, __flash_binary_end, __data_start__, __bss_end__, __StackLimit;

// A block is full; the other channel has begun to fill its own.
static void on_block(void) {
    for (uint32_t i = 0; i < 2; i++) {
        if (!dma_channel_get_irq0_status(channels[i])) {
            continue;
        }
        dma_channel_acknowledge_irq0(channels[i]);
        dma_channel_set_write_addr(channels[i], blocks[i], false);
        int16_t samples[BLOCK_SAMPLES];
        pdm_decimate(&pdm, blocks[i], BLOCK_SAMPLES, samples);
        if (microphone_on) {
            (void)edgeasr_ring_write(&ring, samples, BLOCK_SAMPLES);
        }
    }
}

// .side_set 1: in pins, 1 with the clock low, nop with the clock high.
static void start_pio(PIO pio, uint machine) {
    static uint16_t instructions[2];
    instructions[0] = (uint16_t)(pio_encode_in(pio_pins, 1) | pio_encode_sideset(1, 0));
    instructions[1] = (uint16_t)(pio_encode_nop() | pio_encode_sideset(1, 1));
    const pio_program_t program = {.instructions = instructions, .length = 2, .origin = -1};
    const uint offset = (uint)pio_add_program(pio, &program);
    pio_gpio_init(pio, CLOCK_PIN);
    pio_gpio_init(pio, DATA_PIN);
    pio_sm_set_consecutive_pindirs(pio, machine, CLOCK_PIN, 1, true);
    pio_sm_set_consecutive_pindirs(pio, machine, DATA_PIN, 1, false);
    pio_sm_config config = pio_get_default_sm_config();
    sm_config_set_wrap(&config, offset, offset + 1);
    sm_config_set_sideset(&config, 1, false, false);
    sm_config_set_sideset_pins(&config, CLOCK_PIN);
    sm_config_set_in_pins(&config, DATA_PIN);
    sm_config_set_in_shift(&config, false, true, 32);  // the first bit becomes the highest
    sm_config_set_fifo_join(&config, PIO_FIFO_JOIN_RX);
    const uint32_t bit_rate = SAMPLE_RATE_HZ * PDM_BITS_PER_SAMPLE;
    sm_config_set_clkdiv(&config, (float)clock_get_hz(clk_sys) / (float)(bit_rate * PIO_CYCLES_PER_BIT));
    pio_sm_init(pio, machine, offset, &config);
    pio_sm_set_enabled(pio, machine, true);
}

static void start_dma(PIO pio, uint machine) {
    channels[0] = (uint)dma_claim_unused_channel(true);
    channels[1] = (uint)dma_claim_unused_channel(true);
    irq_set_exclusive_handler(DMA_IRQ_0, on_block);
    irq_set_enabled(DMA_IRQ_0, true);
    for (uint32_t i = 0; i < 2; i++) {
        dma_channel_config config = dma_channel_get_default_config(channels[i]);
        channel_config_set_transfer_data_size(&config, DMA_SIZE_32);
        channel_config_set_read_increment(&config, false);
        channel_config_set_write_increment(&config, true);
        channel_config_set_dreq(&config, pio_get_dreq(pio, machine, false));
        channel_config_set_chain_to(&config, channels[1u - i]);
        dma_channel_configure(channels[i], &config, blocks[i], &pio->rxf[machine], BLOCK_WORDS, false);
        dma_channel_set_irq0_enabled(channels[i], true);
    }
    dma_channel_start(channels[0]);
}

const board_info_t *board_info(void) {
    static board_info_t info;
    info.name = "rp2040";
    info.flash_bytes = (uint32_t)(&__flash_binary_end - &__flash_binary_start);
    info.ram_bytes = (uint32_t)(&__bss_end__ - &__data_start__);
    info.free_bytes = (uint32_t)(&__StackLimit - &__bss_end__);
    return &info;
}

size_t board_read(uint8_t *bytes, size_t max) {
    size_t n = 0;
    while (n < max) {
        const int byte = getchar_timeout_us(0);
        if (byte < 0) {
            break;
        }
        bytes[n++] = (uint8_t)byte;
    }
    return n;
}

size_t board_write(const uint8_t *bytes, size_t n) {
    const size_t room = tud_cdc_write_available();
    size_t taken = n < room ? n : room;
    taken = taken < BYTES_AT_ONCE ? taken : BYTES_AT_ONCE;
    for (size_t i = 0; i < taken; i++) {
        (void)putchar_raw(bytes[i]);
    }
    return taken;
}

uint32_t board_clock_ms(void) {
    return to_ms_since_boot(get_absolute_time());
}

static uint64_t idle_us;
static uint64_t second_began_us;
static uint16_t busy_permille;

static void board_wait(void) {
    const uint64_t before = time_us_64();
    __wfi();
    const uint64_t now = time_us_64();
    idle_us += now - before;
    if (now - second_began_us >= 1000000u) {
        const uint64_t idle_permille = idle_us * 1000u / (now - second_began_us);
        busy_permille = (uint16_t)(idle_permille < 1000u ? 1000u - idle_permille : 0u);
        idle_us = 0;
        second_began_us = now;
    }
}

uint16_t board_busy_permille(void) {
    return busy_permille;
}

void board_microphone(bool on) {
    microphone_on = on;
}

void board_display(bool final, const char *text, size_t n) {
    uart_write_blocking(uart0, (const uint8_t *)(final ? "> " : "~ "), 2);
    uart_write_blocking(uart0, (const uint8_t *)text, n);
    uart_write_blocking(uart0, (const uint8_t *)"\r\n", 2);
}

void board_identify(void) {
    gpio_put(LED_PIN, !gpio_get(LED_PIN));
}

void board_reset(void) {
    watchdog_reboot(0, 0, 0);
    for (;;) {
    }
}

int main(void) {
    (void)stdio_usb_init();
    stdio_set_translate_crlf(&stdio_usb, false);
    (void)uart_init(uart0, DISPLAY_BAUD);
    gpio_set_function(DISPLAY_TX_PIN, GPIO_FUNC_UART);
    gpio_init(LED_PIN);
    gpio_set_dir(LED_PIN, true);
    (void)edgeasr_ring_init(&ring, ring_samples, RING_SIZE);
    device_init(&device, &ring);
    pdm_init(&pdm);
    const uint machine = (uint)pio_claim_unused_sm(pio0, true);
    start_dma(pio0, machine);
    start_pio(pio0, machine);
    for (;;) {
        if (!device_step(&device)) {
            board_wait();
        }
    }
}
