/* server/version.h: the version that `recalld --version`, /model and the build_info metric say. */
#ifndef SERVER_VERSION_H
#define SERVER_VERSION_H

#define RECALLD_VERSION "0.1.0"

#endif
