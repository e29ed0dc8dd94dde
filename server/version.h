/* server/version.h: the versions that `recalld --version`, the log, /model and the build_info metric say. */
#ifndef SERVER_VERSION_H
#define SERVER_VERSION_H

#define RECALLD_VERSION "0.1.0"

/* Of the libraries that are loaded, which need not be those of the build. */
const char *version_of_libevent(void);
const char *version_of_openssl(void);
const char *version_of_zlib(void);

/* "libevent 2.1.12-stable, OpenSSL 3.0.19, ..." into `out`, which is returned. */
enum { VERSION_LIBRARIES_MAX = 160 };
const char *version_libraries(char out[VERSION_LIBRARIES_MAX]);

#endif
