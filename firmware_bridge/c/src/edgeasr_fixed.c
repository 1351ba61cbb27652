#include "edgeasr_fixed.h"

#include "edgeasr_tables.h"

#define INTERVAL_BITS 6  // of a fraction's 63, those that choose among EDGEASR_LOGMEL_LOG2_INTERVALS

typedef char intervals_fit[EDGEASR_LOGMEL_LOG2_INTERVALS == (1 << INTERVAL_BITS) ? 1 : -1];

uint32_t edgeasr_log2_q15(uint64_t value) {
    if (value == 0) {
        return 0;
    }
    uint32_t exponent = 63;
    for (uint32_t shift = 32; shift > 0; shift >>= 1) {
        if (value >> (64u - shift) == 0) {
            value <<= shift;
            exponent -= shift;
        }
    }
    // The leading one is known: the fraction begins below it.
    const uint32_t fraction = (uint32_t)((value << 1) >> 32);
    const uint32_t interval = fraction >> (32 - INTERVAL_BITS);
    const uint32_t within = (fraction >> (32 - INTERVAL_BITS - 15)) & 0x7FFFu;
    const uint32_t low = edgeasr_log2_q15_table[interval];
    const uint32_t rise = edgeasr_log2_q15_table[interval + 1u] - low;
    return (exponent << 15) + low + ((rise * within + (1u << 14)) >> 15);
}
