// clock.h: time. Not collective.
#ifndef DS_CLOCK_H
#define DS_CLOCK_H

#include "base/types.h"

// Seconds of a monotonic clock.
double clock_now(void);

// Sleeps until clock_now() is this, whatever signals come.
void clock_sleep_until(double time);

// Seconds since 1970.
double clock_unix(void);

// "2026-11-24T00:25:10Z" into out[32]; returns out.
char *clock_iso(char out[32]);

// The Unix time at which this job will be killed: SLURM_JOB_END_TIME, else DSCHAT_END_TIME, else `started` + max_hours
// (max_hours <= 0: none). Returns 0 if there is no limit.
double clock_deadline(double started, double max_hours);

#endif
