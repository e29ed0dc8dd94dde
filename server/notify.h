/*
 * server/notify.h: what the service manager wants to know (sd_notify's protocol, without libsystemd).
 *
 * One datagram to the socket that NOTIFY_SOCKET names; nothing happens without it. Failures are ignored: the daemon
 * serves whether or not somebody listens. Call on the control thread.
 */
#ifndef SERVER_NOTIFY_H
#define SERVER_NOTIFY_H

/* Lines such as "READY=1\nSTATUS=serving". */
void notify_send(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* RELOADING=1 with the MONOTONIC_USEC that Type=notify-reload asks for. */
void notify_reloading(void);

#endif
