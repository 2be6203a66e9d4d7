// launch.c: see launch.h.
#include "comm/launch.h"

#include <stdlib.h>

#include "base/types.h"

int launch_rank(void) {
    static const char *const names[] = {"PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK", "SLURM_PROCID"};
    for (int i = 0; i < DS_COUNT(names); i++) {
        const char *text = getenv(names[i]);
        char *end;
        if (!text) continue;
        const long rank = strtol(text, &end, 10);
        if (end != text && !*end && rank >= 0 && rank < 1 << 24) return (int)rank;
    }
    return -1;
}
