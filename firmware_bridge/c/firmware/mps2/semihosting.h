// What the emulator, or a debugger, does for the firmware (Arm IHI 0105, "Semihosting for AArch32 and AArch64").
#ifndef SEMIHOSTING_H
#define SEMIHOSTING_H

#include <stdbool.h>
#include <stddef.h>

// What was given as -semihosting-config arg=, separated by spaces; cut to fit, with a terminator. Returns false where
// there is none.
bool semihosting_command_line(char *text, size_t max);

// Up to max bytes of a file of the host, from its beginning. Returns how many, or -1 where it cannot be read.
long semihosting_read_file(const char *path, void *bytes, size_t max);

// A line on the emulator's standard error.
void semihosting_write(const char *text);

// End the emulation with this exit status. Does not return.
void semihosting_exit(int status);

#endif
