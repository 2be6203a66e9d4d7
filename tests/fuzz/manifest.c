// manifest.c: a checkpoint's manifest.txt.
#include "fuzz.h"
#include "io/manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    Manifest m = {0}, again = {0};
    Xxh128Hex hash;
    fuzz_file("manifest.txt", data, n);
    if (manifest_read(&m, fuzz_folder(), &hash) == DS_OK) {
        size_t bytes;
        char *text = manifest_pack(&m, &bytes);
        FUZZ_HOLDS(manifest_unpack(&again, text, bytes, "packed") == DS_OK && again.n == m.n);
        mem_free(text);
        if (manifest_check_sizes(&m, fuzz_folder()) == DS_OK) manifest_check_hashes(&m, fuzz_folder(), 0, 1);
    }
    manifest_free(&m);
    manifest_free(&again);
    err_clear();
    return 0;
}
