// An ESP32 (here a C3) with an I2S microphone such as the INMP441, on UART1; the display is the console.
#include <stdio.h>

#include "board.h"
#include "device.h"
#include "driver/gpio.h"
#include "driver/i2s_std.h"
#include "driver/uart.h"
#include "esp_err.h"
#include "esp_system.h"
#include "esp_timer.h"
#include "freertos/FreeRTOS.h"
#include "freertos/task.h"

#define MICROPHONE_CLOCK_PIN GPIO_NUM_4
#define MICROPHONE_WORD_PIN GPIO_NUM_5
#define MICROPHONE_DATA_PIN GPIO_NUM_6
#define LED_PIN GPIO_NUM_8
#define LINK_PORT UART_NUM_1
#define LINK_TX_PIN 7
#define LINK_RX_PIN 10
#define LINK_BAUD 921600
#define LINK_BUFFER_BYTES 2048

#define SAMPLE_RATE_HZ 16000
#define BLOCK_SAMPLES 160
#define SAMPLE_SHIFT 14  // of 24 bits at the top of 32: speech at arm's length comes 12 dB up, what is louder is cut off
#define RING_SIZE 4096u
#define MICROPHONE_STACK_BYTES 4096
#define MICROPHONE_PRIORITY 10  // above the main task's

static int16_t ring_samples[RING_SIZE];
static edgeasr_ring_t ring;
static device_t device;
static i2s_chan_handle_t microphone;
static volatile bool microphone_on;
static bool led_on;

static int16_t sample_of(int32_t slot) {
    const int32_t value = slot >> SAMPLE_SHIFT;
    return (int16_t)(value < INT16_MIN ? INT16_MIN : value > INT16_MAX ? INT16_MAX : value);
}

static void hear(void *unused) {
    static int32_t slots[BLOCK_SAMPLES];
    static int16_t samples[BLOCK_SAMPLES];
    (void)unused;
    for (;;) {
        size_t num_bytes = 0;
        if (i2s_channel_read(microphone, slots, sizeof slots, &num_bytes, portMAX_DELAY) != ESP_OK) {
            continue;
        }
        const size_t n = num_bytes / sizeof *slots;
        for (size_t i = 0; i < n; i++) {
            samples[i] = sample_of(slots[i]);
        }
        if (microphone_on) {
            (void)edgeasr_ring_write(&ring, samples, n);
        }
    }
}

static void start_microphone(void) {
    const i2s_chan_config_t channel = I2S_CHANNEL_DEFAULT_CONFIG(I2S_NUM_AUTO, I2S_ROLE_MASTER);
    ESP_ERROR_CHECK(i2s_new_channel(&channel, NULL, &microphone));
    const i2s_std_config_t config = {
        .clk_cfg = I2S_STD_CLK_DEFAULT_CONFIG(SAMPLE_RATE_HZ),
        .slot_cfg = I2S_STD_PHILIPS_SLOT_DEFAULT_CONFIG(I2S_DATA_BIT_WIDTH_32BIT, I2S_SLOT_MODE_MONO),
        .gpio_cfg = {.mclk = I2S_GPIO_UNUSED,
                     .bclk = MICROPHONE_CLOCK_PIN,
                     .ws = MICROPHONE_WORD_PIN,
                     .dout = I2S_GPIO_UNUSED,
                     .din = MICROPHONE_DATA_PIN},
    };
    ESP_ERROR_CHECK(i2s_channel_init_std_mode(microphone, &config));
    ESP_ERROR_CHECK(i2s_channel_enable(microphone));
    (void)xTaskCreate(hear, "microphone", MICROPHONE_STACK_BYTES, NULL, MICROPHONE_PRIORITY, NULL);
}

static void start_link(void) {
    const uart_config_t config = {
        .baud_rate = LINK_BAUD,
        .data_bits = UART_DATA_8_BITS,
        .parity = UART_PARITY_DISABLE,
        .stop_bits = UART_STOP_BITS_1,
        .flow_ctrl = UART_HW_FLOWCTRL_DISABLE,
        .source_clk = UART_SCLK_DEFAULT,
    };
    // Without a buffer for sending: uart_tx_chars then takes what fits into the FIFO, and does not wait.
    ESP_ERROR_CHECK(uart_driver_install(LINK_PORT, LINK_BUFFER_BYTES, 0, 0, NULL, 0));
    ESP_ERROR_CHECK(uart_param_config(LINK_PORT, &config));
    ESP_ERROR_CHECK(uart_set_pin(LINK_PORT, LINK_TX_PIN, LINK_RX_PIN, UART_PIN_NO_CHANGE, UART_PIN_NO_CHANGE));
}

// The size of the firmware in flash is known to `idf.py size` only.
const board_info_t *board_info(void) {
    static board_info_t info;
    info.name = "esp32";
    info.free_bytes = esp_get_free_heap_size();
    return &info;
}

size_t board_read(uint8_t *bytes, size_t max) {
    const int n = uart_read_bytes(LINK_PORT, bytes, (uint32_t)max, 0);
    return n > 0 ? (size_t)n : 0;
}

size_t board_write(const uint8_t *bytes, size_t n) {
    const int taken = uart_tx_chars(LINK_PORT, (const char *)bytes, (uint32_t)n);
    return taken > 0 ? (size_t)taken : 0;
}

uint32_t board_clock_ms(void) {
    return (uint32_t)(esp_timer_get_time() / 1000);
}

static int64_t idle_us;
static int64_t second_began_us;
static uint16_t busy_permille;

static void board_wait(void) {
    const int64_t before = esp_timer_get_time();
    vTaskDelay(1);
    const int64_t now = esp_timer_get_time();
    idle_us += now - before;
    if (now - second_began_us >= 1000000) {
        const int64_t idle_permille = idle_us * 1000 / (now - second_began_us);
        busy_permille = (uint16_t)(idle_permille < 1000 ? 1000 - idle_permille : 0);
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
    printf("%c %.*s\n", final ? '>' : '~', (int)n, text);
}

void board_identify(void) {
    led_on = !led_on;
    (void)gpio_set_level(LED_PIN, led_on ? 1 : 0);
}

void board_reset(void) {
    esp_restart();
}

void app_main(void);  // called by ESP-IDF, declared nowhere

void app_main(void) {
    (void)gpio_set_direction(LED_PIN, GPIO_MODE_OUTPUT);
    (void)edgeasr_ring_init(&ring, ring_samples, RING_SIZE);
    device_init(&device, &ring);
    start_link();
    start_microphone();
    for (;;) {
        if (!device_step(&device)) {
            board_wait();
        }
    }
}
