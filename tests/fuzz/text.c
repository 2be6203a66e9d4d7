// text.c: any bytes as a terminal may get them, at once, in parts, and where there is little room. The first byte
// chooses.
#include "fuzz.h"
#include "base/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 1) return 0;
    const bool lines = data[0] & 1;
    const char *raw = (const char *)data + 1;
    const int64_t length = (int64_t)n - 1;
    const size_t room = 1 + (data[0] >> 1) + (data[0] & 2 ? 8 * n : 0);
    char *out = mem_alloc(room), *printed = NULL;
    size_t printed_n;
    const size_t k = text_visible(raw, length, lines, out, room);
    FUZZ_HOLDS(k < room && !out[k] && text_utf8_bad(out, (int64_t)k) < 0);
    for (size_t i = 0; i < k;) {
        int of_it;
        const uint32_t c = text_utf8_next(out + i, (int64_t)(k - i), &of_it);
        FUZZ_HOLDS(text_is_plain(c) && (lines || c != '\n'));
        i += (size_t)of_it;
    }
    FILE *f = open_memstream(&printed, &printed_n);
    if (!f) abort();
    text_print(f, raw, length, lines);
    fclose(f);
    FUZZ_HOLDS(printed_n >= k && !memcmp(printed, out, k));
    free(printed); // lint: open_memstream's memory
    mem_free(out);
    return 0;
}
