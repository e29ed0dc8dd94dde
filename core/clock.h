/* core/clock.h: how long things take. Thread-safe. */
#ifndef CORE_CLOCK_H
#define CORE_CLOCK_H

/* Seconds since some moment before, by a clock that nobody sets. */
double monotonic_seconds(void);

#endif
