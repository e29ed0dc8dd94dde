#include "server/secret.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <string.h>
#include <sys/stat.h>

#include "core/fileio.h"
#include "core/mem.h"

char *secret_read(const char *path, size_t limit, size_t *size, struct err *e)
{
    struct stat st;
    *size = 0;
    if (stat(path, &st) != 0) {
        err_set(e, "%s: %s", path, strerror(errno));
        return NULL;
    }
    if (st.st_mode & (S_IRWXO | S_IWGRP)) {
        err_set(e, "%s: its mode %03o lets others read or change it; chmod 600 or 640", path,
                (unsigned)st.st_mode & 0777u);
        return NULL;
    }
    return file_read(path, limit, size, e);
}

void secret_free(char *bytes, size_t size)
{
    if (bytes) {
        OPENSSL_cleanse(bytes, size);
        mem_free(bytes);
    }
}
