// spec.c: what dschat-data build is told.
#include "data/build_spec.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    BuildSpec *spec = NULL;
    ChatRoles roles;
    if (build_spec_load(fuzz_file("spec.in", data, n), 0, NULL, &spec) == DS_OK) build_spec_roles(spec, &roles);
    build_spec_free(&spec);
    err_clear();
    return 0;
}
