// record.c: the table as data.
#include "stage/record.h"

#include <math.h>

#define RECORD_VAR(constant, name, units, words) {name, units, words},
static const HistoryVar vars[RECORD_N] = {RECORD_ROWS(RECORD_VAR)};

void record_clear(Record *r) {
    for (int i = 0; i < RECORD_N; i++) r->v[i] = NAN;
}

const HistoryVar *record_vars(void) { return vars; }
