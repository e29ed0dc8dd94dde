/*
 * Runs a fuzz target once over each kept input, without libFuzzer: for make test, under every compiler and sanitizer.
 * usage: NAME FILE...      each file is inputs one behind the other, each behind its length in four bytes, little endian
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

__attribute__((weak)) int LLVMFuzzerInitialize(int *argc, char ***argv); /* not every target has one */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* libFuzzer's, for targets with a mutator of their own, which nobody calls here. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size)
{
    (void)data;
    (void)max_size;
    return size;
}

/* Returns how many inputs there were, or -1. */
static int replay(FILE *file)
{
    unsigned char head[4];
    int count = 0;
    while (fread(head, 1, sizeof head, file) == sizeof head) {
        size_t size = head[0] | (size_t)head[1] << 8 | (size_t)head[2] << 16 | (size_t)head[3] << 24;
        uint8_t *input = malloc(size > 0 ? size : 1);
        if (input == NULL || fread(input, 1, size, file) != size) {
            free(input);
            return -1;
        }
        LLVMFuzzerTestOneInput(input, size);
        free(input);
        count++;
    }
    return count;
}

int main(int argc, char **argv)
{
    if (LLVMFuzzerInitialize != NULL) {
        LLVMFuzzerInitialize(&argc, &argv);
    }
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        int count = file != NULL ? replay(file) : -1;
        if (file != NULL) {
            fclose(file);
        }
        if (count < 0) {
            fprintf(stderr, "%s: cannot be read\n", argv[i]);
            return 1;
        }
        printf("%s: %d inputs\n", argv[i], count);
    }
    return 0;
}
