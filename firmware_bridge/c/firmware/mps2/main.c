// The reference firmware: hears a clip, streams it over UART0, shows on UART1 what the host understood, and ends.
#include "board.h"
#include "board_mps2.h"
#include "device.h"
#include "microphone.h"
#include "semihosting.h"
#include "settings.h"

#define RING_SIZE 4096u  // samples, 256 ms

static int16_t samples[RING_SIZE];
static edgeasr_ring_t ring;
static device_t device;
static settings_t settings;

// Everything heard is sent, and the host has said what it has to say.
static bool is_done(uint32_t *sent_ms) {
    const uint32_t now_ms = board_clock_ms();
    if (!microphone_is_over() || edgeasr_ring_count(&ring) > 0 || !outbox_is_empty(&device.outbox)) {
        *sent_ms = now_ms;
        return false;
    }
    if (settings.finals > 0 && device.finals >= settings.finals) {
        return true;
    }
    return now_ms - *sent_ms >= settings.quiet_ms && now_ms - device.last_heard_ms >= settings.quiet_ms;
}

int main(void) {
    if (!settings_read(&settings)) {
        return 2;
    }
    if (!microphone_load(settings.pcm, settings.tail_ms)) {
        semihosting_write("cannot read the file of pcm=, want 16-bit samples at 16 kHz without a header\n");
        return 2;
    }
    (void)edgeasr_ring_init(&ring, samples, RING_SIZE);
    board_init(&ring, &settings);
    device_init(&device, &ring);
    if (settings.unasked > 0) {
        device_start(&device);
    }
    uint32_t sent_ms = 0;
    while (!is_done(&sent_ms)) {
        if (!device_step(&device)) {
            board_wait();
        }
    }
    return 0;
}
