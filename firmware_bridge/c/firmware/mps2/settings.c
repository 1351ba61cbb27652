#include "settings.h"

#include <stddef.h>
#include <string.h>

#include "semihosting.h"

#define MAX_DIGITS 9

typedef struct {
    const char *name;  // with its =
    size_t offset;
} number_t;

static const number_t NUMBERS[] = {
    {"pace=", offsetof(settings_t, pace)},       {"baud=", offsetof(settings_t, baud)},
    {"tail_ms=", offsetof(settings_t, tail_ms)}, {"finals=", offsetof(settings_t, finals)},
    {"quiet_ms=", offsetof(settings_t, quiet_ms)}, {"unasked=", offsetof(settings_t, unasked)},
};

static bool read_number(const char *text, uint32_t *value) {
    size_t n = 0;
    for (*value = 0; text[n] >= '0' && text[n] <= '9' && n < MAX_DIGITS; n++) {
        *value = 10u * *value + (uint32_t)(text[n] - '0');
    }
    return n > 0 && text[n] == '\0';
}

static bool read_word(settings_t *settings, const char *word) {
    for (size_t i = 0; i < sizeof NUMBERS / sizeof NUMBERS[0]; i++) {
        const size_t length = strlen(NUMBERS[i].name);
        if (strncmp(word, NUMBERS[i].name, length) == 0) {
            uint32_t value;
            if (!read_number(word + length, &value)) {
                return false;
            }
            memcpy((char *)settings + NUMBERS[i].offset, &value, sizeof value);
            return true;
        }
    }
    return false;
}

bool settings_read(settings_t *settings) {
    memset(settings, 0, sizeof *settings);
    settings->pace = 1;
    settings->tail_ms = 2000;
    settings->quiet_ms = 3000;
    if (!semihosting_command_line(settings->line, sizeof settings->line)) {
        return true;
    }
    char *word = strchr(settings->line, ' ');  // the first is the firmware itself
    while (word != NULL) {
        *word++ = '\0';
        if (strncmp(word, "pcm=", 4) == 0) {
            settings->pcm = word + 4;
            return true;
        }
        char *next = strchr(word, ' ');
        if (next != NULL) {
            *next = '\0';
        }
        if (*word != '\0' && !read_word(settings, word)) {
            semihosting_write("got ");
            semihosting_write(word);
            semihosting_write(", want pace=N, baud=N, tail_ms=N, finals=N, quiet_ms=N, unasked=1 or last pcm=FILE\n");
            return false;
        }
        word = next;
    }
    return true;
}
