// Runs all tests and prints a line for each suite; the exit status is 1 where a check failed.
#include "check.h"

int check_count;
int check_failures;

typedef struct {
    const char *name;
    void (*run)(void);
} suite_t;

int main(void) {
    static const suite_t SUITES[] = {
        {"cobs", test_cobs},         {"crc", test_crc},       {"frame", test_frame}, {"messages", test_messages},
        {"ring", test_ring},         {"codecs", test_codecs}, {"features", test_features},
        {"logmel", test_logmel},     {"vad", test_vad},       {"gate", test_gate},
    };
    for (size_t i = 0; i < sizeof SUITES / sizeof SUITES[0]; i++) {
        const int checks = check_count;
        const int failures = check_failures;
        SUITES[i].run();
        printf("%-9s %5d checks, %d failed\n", SUITES[i].name, check_count - checks, check_failures - failures);
    }
    return check_failures == 0 ? 0 : 1;
}
