#include "board_mps2.h"

#include <stdbool.h>

#include "board.h"
#include "microphone.h"
#include "mps2.h"

#define TICKS_PER_S 1000u
#define SAMPLES_PER_TICK 16u
#define BITS_PER_BYTE 10u  // on the line, with start and stop
#define MIN_DIVIDER 16u
#define RECEIVED_SIZE 1024u  // a power of two
#define CLOCKS_PER_MS (MPS2_CLOCK_HZ / 1000u)

extern const char flash_used, ram_begin, bss_end, stack_top;

static edgeasr_ring_t *ring;
static uint32_t pace;
static uint32_t baud;
static volatile uint32_t ticks;
static volatile bool microphone_on;
static volatile uint32_t line_millibits;  // that the line has room for
static volatile uint8_t received[RECEIVED_SIZE];
static volatile uint32_t received_written;
static volatile uint32_t received_read;
static uint32_t idle_clocks;
static uint32_t second_began;  // tick
static uint16_t busy_permille;

void board_init(edgeasr_ring_t *microphone_ring, const settings_t *settings) {
    ring = microphone_ring;
    pace = settings->pace;
    baud = settings->baud;
    const uint32_t divider = baud > 0 ? MPS2_CLOCK_HZ / baud : MIN_DIVIDER;
    MPS2_UART0->divider = divider > MIN_DIVIDER ? divider : MIN_DIVIDER;
    MPS2_UART0->control = MPS2_UART_TX_ENABLE | MPS2_UART_RX_ENABLE | MPS2_UART_RX_INTERRUPT_ENABLE;
    MPS2_UART1->divider = MPS2_CLOCK_HZ / 115200u;
    MPS2_UART1->control = MPS2_UART_TX_ENABLE;
    MPS2_TIMER0->reload = UINT32_MAX;
    MPS2_TIMER0->value = UINT32_MAX;
    MPS2_TIMER0->control = MPS2_TIMER_ENABLE;
    CORTEX_SYSTICK->reload = CLOCKS_PER_MS - 1u;
    CORTEX_SYSTICK->value = 0;
    CORTEX_SYSTICK->control = CORTEX_SYSTICK_RUN;
    CORTEX_ENABLE_INTERRUPT = (1u << MPS2_UART0_RX_IRQ) | (1u << MPS2_UART0_TX_IRQ);
}

const board_info_t *board_info(void) {
    static board_info_t info;
    info.name = "mps2-an386";
    info.flash_bytes = (uint32_t)(uintptr_t)&flash_used;
    info.ram_bytes = (uint32_t)(&bss_end - &ram_begin);
    info.free_bytes = (uint32_t)(&stack_top - &bss_end);
    return &info;
}

// The emulator's UART takes a byte as soon as it can; a line takes its time. It does so in the time of the microphone.
static void refill_line(void) {
    const uint32_t more = baud * (pace > 0 ? pace : 1u);
    const uint32_t most = 10u * more;
    line_millibits = line_millibits + more < most ? line_millibits + more : most;
}

void board_on_tick(void) {
    ticks++;
    if (baud > 0) {
        refill_line();
    }
    if (microphone_on && pace > 0) {
        microphone_hear(ring, SAMPLES_PER_TICK * pace);
    }
}

void board_on_receive(void) {
    // Before the loop: a byte that comes at its end has to raise the interrupt again.
    MPS2_UART0->interrupt = MPS2_UART_RX_INTERRUPT;
    while ((MPS2_UART0->state & MPS2_UART_RX_FULL) != 0) {
        if (received_written - received_read == RECEIVED_SIZE) {
            // board_read switches it on again; until then the sender has to wait, or what it sends is lost.
            MPS2_UART0->control &= ~MPS2_UART_RX_INTERRUPT_ENABLE;
            break;
        }
        received[received_written % RECEIVED_SIZE] = (uint8_t)MPS2_UART0->data;
        received_written++;
    }
}

// It only ends a sleep.
void board_on_transmit(void) {
    MPS2_UART0->interrupt = MPS2_UART_TX_INTERRUPT;
    MPS2_UART0->control &= ~MPS2_UART_TX_INTERRUPT_ENABLE;
}

size_t board_read(uint8_t *bytes, size_t max) {
    size_t n = 0;
    while (n < max && received_read != received_written) {
        bytes[n++] = received[received_read % RECEIVED_SIZE];
        received_read++;
    }
    if (n > 0 && (MPS2_UART0->control & MPS2_UART_RX_INTERRUPT_ENABLE) == 0) {
        __asm volatile("cpsid i");
        MPS2_UART0->control |= MPS2_UART_RX_INTERRUPT_ENABLE;
        board_on_receive();
        __asm volatile("cpsie i");
    }
    return n;
}

static bool line_takes_byte(void) {
    if (baud == 0) {
        return true;
    }
    __asm volatile("cpsid i");
    const bool takes = line_millibits >= BITS_PER_BYTE * 1000u;
    if (takes) {
        line_millibits -= BITS_PER_BYTE * 1000u;
    }
    __asm volatile("cpsie i");
    return takes;
}

size_t board_write(const uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if ((MPS2_UART0->state & MPS2_UART_TX_FULL) != 0) {
            __asm volatile("cpsid i");
            MPS2_UART0->control |= MPS2_UART_TX_INTERRUPT_ENABLE;
            __asm volatile("cpsie i");
            return i;
        }
        if (!line_takes_byte()) {
            return i;
        }
        MPS2_UART0->data = bytes[i];
    }
    return n;
}

uint32_t board_clock_ms(void) {
    return ticks * 1000u / TICKS_PER_S;
}

uint16_t board_busy_permille(void) {
    return busy_permille;
}

void board_wait(void) {
    if (microphone_on && pace == 0 && !microphone_is_over() && edgeasr_ring_count(ring) < ring->size) {
        microphone_fill(ring);
        return;
    }
    const uint32_t before = MPS2_TIMER0->value;
    __asm volatile("wfi");
    idle_clocks += before - MPS2_TIMER0->value;
    const uint32_t elapsed = ticks - second_began;
    if (elapsed >= TICKS_PER_S) {
        const uint32_t idle_permille = idle_clocks / (elapsed * (CLOCKS_PER_MS / 1000u));
        busy_permille = (uint16_t)(idle_permille < 1000u ? 1000u - idle_permille : 0u);
        idle_clocks = 0;
        second_began = ticks;
    }
}

void board_microphone(bool on) {
    microphone_on = on;
}

static void show(const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) {
        while ((MPS2_UART1->state & MPS2_UART_TX_FULL) != 0) {
        }
        MPS2_UART1->data = (uint8_t)text[i];
    }
}

void board_display(bool final, const char *text, size_t n) {
    show(final ? "> " : "~ ", 2);
    show(text, n);
    show("\n", 1);
}

void board_identify(void) {
    MPS2_LEDS ^= 1u;
    show("* here\n", 7);
}

void board_reset(void) {
    CORTEX_RESET = CORTEX_RESET_KEY;
    for (;;) {
    }
}
