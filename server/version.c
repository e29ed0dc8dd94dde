#include "server/version.h"

#include <event2/event.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <zlib.h>

const char *version_of_openssl(void)
{
    return OpenSSL_version(OPENSSL_VERSION_STRING);
}

const char *version_of_zlib(void)
{
    return zlibVersion();
}

const char *version_of_libevent(void)
{
    return event_get_version();
}

const char *version_libraries(char out[VERSION_LIBRARIES_MAX])
{
    snprintf(out, VERSION_LIBRARIES_MAX, "libevent %s, OpenSSL %s, zlib %s, jansson %s", version_of_libevent(),
             version_of_openssl(), version_of_zlib(), jansson_version_str());
    return out;
}
