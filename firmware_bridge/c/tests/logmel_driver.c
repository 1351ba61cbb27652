// int16 samples on standard input, log-mel frames as int16 in 1/1024 nats on standard output, in the machine's order.
#include <stdio.h>

#include "edgeasr_logmel.h"

int main(void) {
    static edgeasr_logmel_t state;
    int16_t samples[1000];
    int16_t log_mel[EDGEASR_LOGMEL_NUM_MELS];
    if (edgeasr_logmel_init(&state) != EDGEASR_OK) {
        return 1;
    }
    for (size_t got; (got = fread(samples, sizeof samples[0], 1000, stdin)) > 0;) {
        for (size_t at = 0; at < got;) {
            size_t used;
            if (edgeasr_logmel_accept(&state, samples + at, got - at, &used, log_mel) == EDGEASR_OK) {
                if (fwrite(log_mel, sizeof log_mel, 1, stdout) != 1) {
                    return 1;
                }
            }
            at += used;
        }
    }
    return 0;
}
