/* What the programs of these tests begin with. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>

#include "edgelstm.h"

/* All names that a kernel may have; no processor has every one. */
#define KERNELS {"avx512", "avx2", "neondot", "neon", "portable"}

static void *aligned(size_t size) {
    void *memory = NULL; /* No byte more than asked for, so that AddressSanitizer sees one too many. */
    if (posix_memalign(&memory, EDGELSTM_ALIGNMENT, size)) exit(2);
    return memory;
}

/* A whole file, with so many bytes of room behind it. */
static unsigned char *read_file(const char *path, size_t *size, size_t room) {
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END)) exit(2);
    *size = (size_t)ftell(file);
    rewind(file);
    unsigned char *bytes = aligned(*size + room);
    if (fread(bytes, 1, *size, file) != *size) exit(2);
    fclose(file);
    return bytes;
}

#endif
