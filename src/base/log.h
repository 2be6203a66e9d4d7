// log.h: what users see. Rank 0 speaks; another rank only says what it alone knows. Each call is a line; control bytes
// of what it was given are made visible (base/text.h). Not collective.
#ifndef DS_LOG_H
#define DS_LOG_H

#include "base/err.h"

// `rank` decides who speaks; call once, early. Before that this process counts as rank 0.
void log_init(int rank);

// Also append everything said to this file (log.txt of the run); NULL closes it. Rank 0 only, others ignore it.
// DS_ERR_IO; a link is not followed.
Err log_to_file(const char *path);

void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));  // rank 0, stdout
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));  // rank 0, stderr, "warning: ..."
void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2))); // rank 0, stderr, "error: ..."
void log_rank(const char *fmt, ...) __attribute__((format(printf, 1, 2)));  // any rank, stderr, "rank N: ..."

// One progress line: redrawn in place on a terminal, a plain line at most every 10 s elsewhere (and at done == total).
// label: stage; rate and unit: "1234 tokens/s"; extra: free text such as "loss 2.31". keep: this line goes to the file
// too, as the last one does. Rank 0.
void log_progress(const char *label, int64_t done, int64_t total, double rate, const char *unit, const char *extra,
                  bool keep);

#endif
