// sums.c: the hashes behind a file.
#include "fuzz.h"
#include "io/h5_sums.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    H5Verified v = {.until = 1e30};
    if (h5_sums_verify(fuzz_file("file.h5", data, n), 0, 1, &v) == DS_OK)
        FUZZ_HOLDS(v.verified == v.bytes && v.bytes + v.without <= (int64_t)n);
    err_clear();
    return 0;
}
