// For the compile check only: declarations of what the example calls, and no part of the Pico SDK.
#ifndef STUB_SYNC_H
#define STUB_SYNC_H

void __wfi(void);

#endif
