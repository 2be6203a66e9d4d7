// clock.c: see clock.h.
#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <time.h>

static double read_clock(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double clock_now(void) { return read_clock(CLOCK_MONOTONIC); }
void clock_sleep_until(double time) {
    const struct timespec t = {(time_t)time, (long)(1e9 * (time - (double)(time_t)time))};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR) continue;
}

double clock_unix(void) { return read_clock(CLOCK_REALTIME); }

char *clock_iso(char out[32]) {
    time_t now = time(NULL);
    struct tm tm;
    gmtime_r(&now, &tm);
    strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm);
    return out;
}

double clock_deadline(double started, double max_hours) {
    static const char *const names[] = {"SLURM_JOB_END_TIME", "DSCHAT_END_TIME"};
    double end = max_hours > 0 ? started + 3600 * max_hours : 0;
    for (int i = 0; i < DS_COUNT(names); i++) {
        const char *s = getenv(names[i]);
        double t = s ? strtod(s, NULL) : 0;
        if (t > 0) return end > 0 && end < t ? end : t;
    }
    return end;
}
