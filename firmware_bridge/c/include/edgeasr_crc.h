// The checksums of a frame.
#ifndef EDGEASR_CRC_H
#define EDGEASR_CRC_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// What a sum over several pieces begins with.
#define EDGEASR_CRC16_INIT 0xFFFFu
#define EDGEASR_CRC32_INIT 0u

// CRC-16/CCITT-FALSE: polynomial 0x1021, begins with 0xFFFF, not reflected. "123456789" gives 0x29B1.
// data may be null where n is 0. No errors.
uint16_t edgeasr_crc16(const uint8_t *data, size_t n);

// CRC-32 of IEEE 802.3, that of zlib. "123456789" gives 0xCBF43926. data may be null where n is 0. No errors.
uint32_t edgeasr_crc32(const uint8_t *data, size_t n);

// The same, going on from the sum of what came before. No errors.
uint16_t edgeasr_crc16_update(uint16_t crc, const uint8_t *data, size_t n);
uint32_t edgeasr_crc32_update(uint32_t crc, const uint8_t *data, size_t n);

#ifdef __cplusplus
}
#endif

#endif
