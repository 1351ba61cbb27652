#include "check.h"
#include "edgeasr_ring.h"

static int16_t storage[8];
static const int16_t COUNTING[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};

static void test_wrapping(void) {
    edgeasr_ring_t ring;
    int16_t out[8];
    size_t got;
    uint32_t lost;
    int16_t next = 0;
    int16_t wanted = 0;
    unsigned state = 1;
    CHECK(edgeasr_ring_init(&ring, storage, 8) == EDGEASR_OK);
    ring.written = ring.read = UINT32_MAX - 100;  // the counters wrap on the way
    for (unsigned round = 0; round < 300; round++) {
        int16_t in[8];
        const uint32_t n = check_random(&state) % (9u - edgeasr_ring_count(&ring));
        for (uint32_t i = 0; i < n; i++) {
            in[i] = next++;
        }
        CHECK(edgeasr_ring_write(&ring, in, n) == EDGEASR_OK);
        const edgeasr_status_t status = edgeasr_ring_read(&ring, out, check_random(&state) % 9u, &got, &lost);
        CHECK((status == EDGEASR_EMPTY) == (got == 0) && lost == 0);
        for (size_t i = 0; i < got; i++) {
            CHECK(out[i] == wanted++);
        }
    }
}

static void test_gaps(void) {
    edgeasr_ring_t ring;
    int16_t out[8];
    size_t got;
    uint32_t lost;
    CHECK(edgeasr_ring_init(&ring, storage, 8) == EDGEASR_OK);
    CHECK(edgeasr_ring_write(&ring, COUNTING, 10) == EDGEASR_OVERFLOW && ring.overruns == 2);
    CHECK(edgeasr_ring_write(&ring, COUNTING, 1) == EDGEASR_OVERFLOW && ring.overruns == 3);
    CHECK(edgeasr_ring_read(&ring, out, 2, &got, &lost) == EDGEASR_OK && got == 2 && lost == 0);
    CHECK(edgeasr_ring_write(&ring, COUNTING, 3) == EDGEASR_OVERFLOW && ring.overruns == 4);
    CHECK(edgeasr_ring_read(&ring, out, 2, &got, &lost) == EDGEASR_OK && got == 2 && lost == 0);
    // The second gap waits for the consumer to pass the first: what comes until then is lost.
    CHECK(edgeasr_ring_write(&ring, COUNTING, 1) == EDGEASR_OVERFLOW && ring.overruns == 5);
    CHECK(edgeasr_ring_read(&ring, out, 8, &got, &lost) == EDGEASR_OK && got == 4 && lost == 0 && out[3] == 8);
    CHECK(edgeasr_ring_read(&ring, out, 8, &got, &lost) == EDGEASR_OK && got == 2 && lost == 3 && out[0] == 1);
    CHECK(edgeasr_ring_write(&ring, COUNTING + 5, 2) == EDGEASR_OK);
    CHECK(edgeasr_ring_read(&ring, out, 8, &got, &lost) == EDGEASR_OK && got == 2 && lost == 2 && out[0] == 6);
    CHECK(edgeasr_ring_read(&ring, out, 8, &got, &lost) == EDGEASR_EMPTY && got == 0);
}

static void test_skipping(void) {
    edgeasr_ring_t ring;
    int16_t out[8];
    size_t got;
    uint32_t lost;
    CHECK(edgeasr_ring_init(&ring, storage, 8) == EDGEASR_OK);
    CHECK(edgeasr_ring_write(&ring, COUNTING, 9) == EDGEASR_OVERFLOW);
    CHECK(edgeasr_ring_skip(&ring, 9) == EDGEASR_EMPTY && edgeasr_ring_count(&ring) == 8);
    CHECK(edgeasr_ring_skip(&ring, 4) == EDGEASR_OK && edgeasr_ring_count(&ring) == 4);
    CHECK(edgeasr_ring_write(&ring, COUNTING, 2) == EDGEASR_OK);
    CHECK(edgeasr_ring_skip(&ring, 5) == EDGEASR_OK);
    CHECK(edgeasr_ring_read(&ring, out, 8, &got, &lost) == EDGEASR_OK && got == 1 && lost == 1 && out[0] == 2);
    CHECK(edgeasr_ring_skip(NULL, 0) == EDGEASR_BAD_ARG);
    // All are skipped, the gap among them, while the producer has a second one to announce.
    CHECK(edgeasr_ring_write(&ring, COUNTING, 9) == EDGEASR_OVERFLOW);
    CHECK(edgeasr_ring_skip(&ring, 1) == EDGEASR_OK);
    CHECK(edgeasr_ring_write(&ring, COUNTING, 3) == EDGEASR_OVERFLOW);
    CHECK(edgeasr_ring_skip(&ring, 8) == EDGEASR_OK);
    CHECK(edgeasr_ring_read(&ring, out, 8, &got, &lost) == EDGEASR_EMPTY && got == 0 && lost == 0);
    CHECK(edgeasr_ring_write(&ring, COUNTING, 1) == EDGEASR_OK);
    CHECK(edgeasr_ring_read(&ring, out, 8, &got, &lost) == EDGEASR_OK && got == 1 && lost == 3 && out[0] == 1);
}

// Whatever is written and read: lost and got together are the clock, and every sample is where the clock says.
static void test_clock(void) {
    edgeasr_ring_t ring;
    unsigned state = 7;
    int16_t written = 0;
    int16_t clock = 0;
    CHECK(edgeasr_ring_init(&ring, storage, 8) == EDGEASR_OK);
    for (unsigned round = 0; round < 2000; round++) {
        int16_t in[11];
        int16_t out[8];
        size_t got;
        uint32_t lost;
        const size_t n = check_random(&state) % 12u;
        for (size_t i = 0; i < n; i++) {
            in[i] = written++;
        }
        (void)edgeasr_ring_write(&ring, in, n);
        (void)edgeasr_ring_read(&ring, out, check_random(&state) % 9u, &got, &lost);
        clock = (int16_t)(clock + (int16_t)lost);
        for (size_t i = 0; i < got; i++) {
            CHECK(out[i] == clock++);
        }
    }
    CHECK(ring.overruns > 100);
}

void test_ring(void) {
    edgeasr_ring_t ring;
    int16_t out[1];
    size_t got;
    uint32_t lost;
    test_wrapping();
    test_gaps();
    test_skipping();
    test_clock();
    CHECK(edgeasr_ring_init(&ring, storage, 7) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_ring_init(&ring, storage, 0) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_ring_init(&ring, NULL, 8) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_ring_init(&ring, storage, 8) == EDGEASR_OK);
    CHECK(edgeasr_ring_write(&ring, NULL, 1) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_ring_write(&ring, NULL, 0) == EDGEASR_OK);
    CHECK(edgeasr_ring_read(&ring, NULL, 1, &got, &lost) == EDGEASR_BAD_ARG);
    CHECK(edgeasr_ring_read(&ring, out, 1, &got, &lost) == EDGEASR_EMPTY);
}
