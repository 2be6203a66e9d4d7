// tok_norm.c: see tok_norm.h. The one file that names utf8proc.
#include "token/tok_norm.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/mem.h"
#include "base/text.h"

int norm_begun(const char *s, int64_t n, bool *whole) {
    const unsigned char *u = (const unsigned char *)s;
    *whole = false;
    if (n <= 0) return 0;
    const unsigned c = u[0];
    const int len = c < 0x80                ? 1
                    : c >= 0xC2 && c < 0xE0 ? 2
                    : c >= 0xE0 && c < 0xF0 ? 3
                    : c >= 0xF0 && c < 0xF5 ? 4
                                            : 0;
    if (len == 0) return 0;
    // Not every second byte is legal: no overlong forms, no surrogates, nothing above U+10FFFF.
    unsigned low = c == 0xE0 ? 0xA0 : c == 0xF0 ? 0x90 : 0x80, high = c == 0xED ? 0x9F : c == 0xF4 ? 0x8F : 0xBF;
    int k = 1;
    while (k < len && k < n && u[k] >= low && u[k] <= high) k++, low = 0x80, high = 0xBF;
    *whole = k == len;
    return k;
}

void norm_utf8(const char *s, int64_t n, char **fixed, int64_t *m) {
    *fixed = NULL;
    const int64_t good = text_utf8_bad(s, n);
    if (good < 0) return;
    char *out = *fixed = mem_array(3 * n + 1, 1);
    memcpy(out, s, (size_t)good);
    int64_t k = good;
    for (int64_t i = good; i < n;) {
        bool whole;
        int len = norm_begun(s + i, n - i, &whole);
        if (whole) memcpy(out + k, s + i, (size_t)len);
        k += whole ? len : text_utf8_put(0xFFFD, out + k);
        i += len ? len : 1;
    }
    *m = k;
}

Err norm_nfc(const char *s, int64_t n, char **composed, int64_t *m) {
    *composed = NULL;
    int64_t i = 0;
    while (i < n && (unsigned char)s[i] < 0xCC) i++; // below U+0300 all is composed and stays so
    if (i == n) return DS_OK;
    utf8proc_uint8_t *out = NULL;
    utf8proc_ssize_t k = utf8proc_map((const utf8proc_uint8_t *)s, n, &out, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (k < 0) return err_set(DS_ERR_DATA, "NFC: %s", utf8proc_errmsg(k));
    if (k != n || memcmp(out, s, (size_t)n)) *composed = mem_strndup((const char *)out, (size_t)k), *m = k;
    free(out); // lint: utf8proc's memory
    return DS_OK;
}

char *norm_blanks(const char *s, int64_t n, int64_t *m) {
    static const char blank[] = "\xe2\x96\x81";
    const char *hit = memmem(s, (size_t)n, blank, 3);
    if (!hit) return NULL;
    char *out = mem_array(n, 1), *p = out;
    const char *end = s + n;
    for (; hit; hit = memmem(s, (size_t)(end - s), blank, 3)) {
        memcpy(p, s, (size_t)(hit - s));
        p += hit - s;
        *p++ = ' ';
        s = hit + 3;
    }
    memcpy(p, s, (size_t)(end - s));
    *m = p - out + (end - s);
    return out;
}

static bool is_space(uint32_t c) {
    return (c >= 9 && c <= 13) || c == 32 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
           c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

int64_t norm_space_before(const char *s, int64_t n) {
    int64_t i = 0;
    for (int len; i < n && is_space(text_utf8_next(s + i, n - i, &len)); i += len) continue;
    return i;
}

int64_t norm_space_after(const char *s, int64_t n) {
    int64_t end = n;
    while (end > 0) {
        int64_t at = end - 1;
        while (at > 0 && (s[at] & 0xC0) == 0x80) at--;
        int len;
        if (!is_space(text_utf8_next(s + at, end - at, &len))) break;
        end = at;
    }
    return n - end;
}
