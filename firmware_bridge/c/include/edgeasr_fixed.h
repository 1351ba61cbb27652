// Arithmetic that several modules share.
#ifndef EDGEASR_FIXED_H
#define EDGEASR_FIXED_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// The right shift of a negative number is left to the compiler by C99: all that are meant here keep the sign.
typedef char edgeasr_shifts_keep_the_sign[(-1 >> 1) == -1 ? 1 : -1];

// x * y / 2^16, rounded towards minus infinity. Both bodies give the same bits; the second needs no 64-bit product,
// which an M0+ has no instruction for.
static inline int32_t edgeasr_multiply_q16(int32_t x, int16_t y) {
#if defined(__ARM_ARCH_6M__) || defined(EDGEASR_SHORT_MULTIPLY)
    return (x >> 16) * y + (((x & 0xFFFF) * y) >> 16);
#else
    return (int32_t)(((int64_t)x * y) >> 16);
#endif
}

// Logarithm to base 2 in Q15, within 0.0001; that of 0 is given as 0. No errors.
uint32_t edgeasr_log2_q15(uint64_t value);

#ifdef __cplusplus
}
#endif

#endif
