#include "train/progress.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/clock.h"
#include "core/log.h"

enum { BAR = 24 };

void progress_begin(struct progress *p, const char *label, const char *unit, double total)
{
    double now = monotonic_seconds();
    *p = (struct progress){label, unit, total, 0, now, now, isatty(STDERR_FILENO) != 0, false};
}

/* 1234567 -> "1.2M" */
static void put_rate(char *out, size_t size, double x)
{
    const char *const units[] = {"", "k", "M", "G"};
    int i = 0;
    while (x >= 1000 && i < 3) {
        x /= 1000;
        i++;
    }
    snprintf(out, size, x < 10 && i > 0 ? "%.1f%s" : "%.0f%s", x, units[i]);
}

static void draw_bar(struct progress *p, double share, const char *rate, double left)
{
    char line[160];
    char bar[BAR + 1];
    int filled = (int)(share * BAR);
    for (int i = 0; i < BAR; i++) {
        bar[i] = i < filled ? '#' : '.';
    }
    bar[BAR] = '\0';
    int n = snprintf(line, sizeof line, "\r%-18.18s [%s] %3.0f%%  %s %s/s  %d:%02d left\033[K", p->label, bar,
                     100 * share, rate, p->unit, (int)left / 60, (int)left % 60);
    if (n > 0 && write(STDERR_FILENO, line, (size_t)n) > 0) {
        p->drawn = true;
    }
}

void progress_update(struct progress *p, double done)
{
    double now = monotonic_seconds();
    double wait = p->terminal ? 0.1 : 10.0;
    if (now - p->last_shown < wait || p->total <= 0) {
        return;
    }
    p->last_shown = now;
    char rate[32];
    double elapsed = now - p->started;
    double share = done < p->total ? done / p->total : 1.0;
    double speed = (done - p->skipped) / elapsed;
    double left = speed > 0 && share < 1 ? (p->total - done) / speed : 0;
    put_rate(rate, sizeof rate, speed);
    if (p->terminal) {
        draw_bar(p, share, rate, left);
    } else {
        log_info("%s: %.0f%%, %s %s/s, %d:%02d left", p->label, 100 * share, rate, p->unit, (int)left / 60,
                 (int)left % 60);
    }
}

void progress_end(struct progress *p)
{
    static const char erase[] = "\r\033[K";
    if (p->drawn && write(STDERR_FILENO, erase, sizeof erase - 1) < 0) {
        return; /* a terminal that went away */
    }
    p->drawn = false;
}
