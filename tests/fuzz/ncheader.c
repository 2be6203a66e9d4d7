// ncheader.c: the header of history.nc and rollouts.nc.
#include "fuzz.h"
#include "io/ncheader.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    int64_t bytes;
    const char *path = fuzz_file("history.nc", data, n);
    for (int cdf = 2; cdf <= 5; cdf += 3) {
        ncheader_check(path, cdf, &bytes);
        err_clear();
    }
    return 0;
}
