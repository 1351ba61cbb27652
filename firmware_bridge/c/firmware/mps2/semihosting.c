#include "semihosting.h"

#include <stdint.h>
#include <string.h>

#define SYS_OPEN 0x01u
#define SYS_CLOSE 0x02u
#define SYS_WRITE0 0x04u
#define SYS_READ 0x06u
#define SYS_GET_CMDLINE 0x15u
#define SYS_EXIT_EXTENDED 0x20u
#define OPEN_READ_BINARY 1u
#define STOPPED_APPLICATION_EXIT 0x20026u

static int32_t call(uint32_t operation, const void *argument) {
    register uint32_t r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = argument;
    __asm volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return (int32_t)r0;
}

static uint32_t address(const void *pointer) {
    return (uint32_t)(uintptr_t)pointer;
}

bool semihosting_command_line(char *text, size_t max) {
    const uint32_t block[2] = {address(text), (uint32_t)max};
    text[0] = '\0';
    if (call(SYS_GET_CMDLINE, block) != 0) {
        return false;
    }
    text[max - 1] = '\0';
    return true;
}

long semihosting_read_file(const char *path, void *bytes, size_t max) {
    const uint32_t open_block[3] = {address(path), OPEN_READ_BINARY, (uint32_t)strlen(path)};
    const int32_t file = call(SYS_OPEN, open_block);
    if (file < 0) {
        return -1;
    }
    const uint32_t read_block[3] = {(uint32_t)file, address(bytes), (uint32_t)max};
    const int32_t unread = call(SYS_READ, read_block);
    const uint32_t close_block[1] = {(uint32_t)file};
    (void)call(SYS_CLOSE, close_block);
    return unread < 0 || (size_t)unread > max ? -1 : (long)(max - (size_t)unread);
}

void semihosting_write(const char *text) {
    (void)call(SYS_WRITE0, text);
}

void semihosting_exit(int status) {
    const uint32_t block[2] = {STOPPED_APPLICATION_EXIT, (uint32_t)status};
    for (;;) {
        (void)call(SYS_EXIT_EXTENDED, block);
    }
}
