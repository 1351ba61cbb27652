// Any bytes as an encoding: decoded or refused, into exact room and into too little; and any bytes there and back.
#include "edgeasr_cobs.h"
#include "fuzz.h"

#define LARGEST 2048

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t length = 0;
    size_t back = 0;
    size_t n = size < LARGEST ? size : LARGEST;
    // On the heap and of exact size, where the sanitizer sees each byte too far.
    uint8_t *encoded = malloc(EDGEASR_COBS_MAX(n));
    uint8_t *decoded = malloc(n > 0 ? n : 1);
    PROMISE(encoded != NULL && decoded != NULL);

    const edgeasr_status_t status = edgeasr_cobs_decode(data, n, decoded, n, &length);
    PROMISE(status == EDGEASR_OK || status == EDGEASR_MALFORMED);
    if (status == EDGEASR_OK) {
        PROMISE(length < n);
        PROMISE(length == 0 || edgeasr_cobs_decode(data, n, decoded, length - 1, &back) == EDGEASR_OVERFLOW);
    }
    PROMISE(edgeasr_cobs_encode(data, n, encoded, EDGEASR_COBS_MAX(n), &length) == EDGEASR_OK);
    PROMISE(memchr(encoded, 0, length) == NULL);
    PROMISE(edgeasr_cobs_decode(encoded, length, decoded, n, &back) == EDGEASR_OK);
    PROMISE(back == n && memcmp(decoded, data, n) == 0);
    free(encoded);
    free(decoded);
    fuzz_count("cobs", size);
    return 0;
}
