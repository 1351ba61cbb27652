// Runs a program of the native backend on inputs from a file, for processors that are only emulated: see
// test_native_arm.py.
//
// All numbers are int64. The file has the words of the program, its constants, the bytes of scratch memory, the sizes
// of its inputs and those of its outputs in bytes, and the number of runs; then of each run what its inputs hold. What
// the outputs hold goes to another file. Arrays have their length before them.

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_ROOTS 256

int edgeasr_native_run(const int64_t *program, int64_t length, char *const *roots, const int64_t *sizes, int64_t *times);

static void *room(int64_t bytes)
{
    void *found = NULL;
    if (posix_memalign(&found, 64, (size_t)(bytes > 0 ? bytes : 1)))
        exit(3);
    return found;
}

static void read_all(FILE *file, void *to, int64_t bytes)
{
    if (fread(to, 1, (size_t)bytes, file) != (size_t)bytes)
        exit(4);
}

static int64_t number(FILE *file)
{
    int64_t found;
    read_all(file, &found, sizeof found);
    return found;
}

// An array and how many elements of so many bytes it has.
static void *array(FILE *file, int64_t element, int64_t *length)
{
    *length = number(file);
    void *found = room(*length * element);
    read_all(file, found, *length * element);
    return found;
}

int main(int argc, char **argv)
{
    FILE *from = argc == 3 ? fopen(argv[1], "rb") : NULL, *to = argc == 3 ? fopen(argv[2], "wb") : NULL;
    if (!from || !to)
        return 2;
    int64_t words, bytes, inputs, outputs;
    const int64_t *program = array(from, 8, &words);
    char *roots[MAX_ROOTS] = {array(from, 1, &bytes)};
    roots[1] = room(number(from));
    const int64_t *read = array(from, 8, &inputs), *given = array(from, 8, &outputs);
    if (2 + inputs + outputs > MAX_ROOTS)
        return 5;
    for (int64_t i = 0; i < inputs; i++)
        roots[2 + i] = room(read[i]);
    for (int64_t i = 0; i < outputs; i++)
        roots[2 + inputs + i] = room(given[i]);
    for (int64_t runs = number(from); runs > 0; runs--) {
        int64_t varying;
        const int64_t *sizes = array(from, 8, &varying);
        for (int64_t i = 0; i < inputs; i++) {
            const int64_t held = number(from);
            if (held > read[i])
                return 6;
            read_all(from, roots[2 + i], held);
        }
        if (edgeasr_native_run(program, words, roots, sizes, NULL))
            return 7;
        for (int64_t i = 0; i < outputs; i++)
            if (fwrite(roots[2 + inputs + i], 1, (size_t)given[i], to) != (size_t)given[i])
                return 8;
    }
    return fclose(to) ? 9 : 0;
}
