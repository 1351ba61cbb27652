#include "edgeasr_crc.h"

// Tables of half a byte: 96 bytes of flash in all; those of a whole byte take 1536.

static const uint16_t CRC16_NIBBLE[16] = {
    0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50A5, 0x60C6, 0x70E7,
    0x8108, 0x9129, 0xA14A, 0xB16B, 0xC18C, 0xD1AD, 0xE1CE, 0xF1EF,
};

static const uint32_t CRC32_NIBBLE[16] = {
    0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4, 0x4DB26158, 0x5005713C,
    0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C, 0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C,
};

uint16_t edgeasr_crc16_update(uint16_t crc, const uint8_t *data, size_t n) {
    uint32_t sum = crc;
    for (size_t i = 0; i < n; i++) {
        sum = ((sum << 4) & 0xFFFFu) ^ CRC16_NIBBLE[(sum >> 12) ^ ((uint32_t)data[i] >> 4)];
        sum = ((sum << 4) & 0xFFFFu) ^ CRC16_NIBBLE[(sum >> 12) ^ (data[i] & 15u)];
    }
    return (uint16_t)sum;
}

uint32_t edgeasr_crc32_update(uint32_t crc, const uint8_t *data, size_t n) {
    uint32_t sum = ~crc;
    for (size_t i = 0; i < n; i++) {
        sum = (sum >> 4) ^ CRC32_NIBBLE[(sum ^ data[i]) & 15u];
        sum = (sum >> 4) ^ CRC32_NIBBLE[(sum ^ ((uint32_t)data[i] >> 4)) & 15u];
    }
    return ~sum;
}

uint16_t edgeasr_crc16(const uint8_t *data, size_t n) {
    return edgeasr_crc16_update(EDGEASR_CRC16_INIT, data, n);
}

uint32_t edgeasr_crc32(const uint8_t *data, size_t n) {
    return edgeasr_crc32_update(EDGEASR_CRC32_INIT, data, n);
}
