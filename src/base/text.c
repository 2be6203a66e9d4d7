// text.c: see text.h.
#include "base/text.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"

static int distance(const char *a, const char *b) {
    enum { MAX = 64 };
    int n = (int)strlen(a), m = (int)strlen(b), row[MAX + 1];
    if (n > MAX || m > MAX) return MAX;
    for (int j = 0; j <= m; j++) row[j] = j;
    for (int i = 1; i <= n; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= m; j++) {
            int best = diagonal + (tolower((unsigned char)a[i - 1]) != tolower((unsigned char)b[j - 1]));
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j], row[j] = best;
        }
    }
    return row[m];
}

const char *text_closest(const char *word, const char *const *names, int n) {
    const char *best = NULL;
    int least = (int)strlen(word) / 2 + 2; // further away than this is no help
    for (int i = 0; i < n; i++) {
        int d = distance(word, names[i]);
        if (d < least) least = d, best = names[i];
    }
    return best;
}

char *text_bytes(char out[32], double bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    int u = 0;
    for (; bytes >= 1024 && u < 4; u++) bytes /= 1024;
    snprintf(out, 32, u ? "%.1f %s" : "%.0f %s", bytes, units[u]);
    return out;
}

// Length of the valid UTF-8 sequence at s[0..n), 0 if there is none.
static int sequence(const unsigned char *s, int64_t n, uint32_t *code) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    int len = s[0] < 0x80 ? 1 : s[0] >= 0xF0 ? 4 : s[0] >= 0xE0 ? 3 : s[0] >= 0xC2 ? 2 : 0;
    if (!len || len > n || s[0] > 0xF4) return 0;
    uint32_t c = len == 1 ? s[0] : s[0] & (0xFFu >> (len + 1));
    for (int i = 1; i < len; i++) {
        if ((s[i] & 0xC0) != 0x80) return 0;
        c = c << 6 | (s[i] & 0x3F);
    }
    if (c < least[len] || c > 0x10FFFF || (c >= 0xD800 && c <= 0xDFFF)) return 0;
    *code = c;
    return len;
}

int64_t text_utf8_bad(const char *s, int64_t n) {
    uint32_t c;
    for (int64_t i = 0; i < n;) {
        int len = sequence((const unsigned char *)s + i, n - i, &c);
        if (!len) return i;
        i += len;
    }
    return -1;
}

uint32_t text_utf8_next(const char *s, int64_t n, int *len) {
    uint32_t c = 0xFFFD;
    *len = n > 0 ? sequence((const unsigned char *)s, n, &c) : 0;
    if (*len == 0) *len = 1;
    return c;
}

int text_utf8_put(uint32_t c, char *out) {
    if (c < 0x80) return out[0] = (char)c, 1;
    if (c < 0x800) return out[0] = (char)(0xC0 | c >> 6), out[1] = (char)(0x80 | (c & 0x3F)), 2;
    if (c < 0x10000) {
        out[0] = (char)(0xE0 | c >> 12), out[1] = (char)(0x80 | (c >> 6 & 0x3F)), out[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    out[0] = (char)(0xF0 | c >> 18), out[1] = (char)(0x80 | (c >> 12 & 0x3F));
    out[2] = (char)(0x80 | (c >> 6 & 0x3F)), out[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}

bool text_is_plain(uint32_t c) {
    if (c < 0x20) return c == '\t' || c == '\n';
    if (c >= 0x7F && c < 0xA0) return false;
    const bool turns = c == 0x061C || (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
    return !turns && c != 0x2028 && c != 0x2029;
}

enum { SHOWN_MAX = 8 }; // bytes of one character as it is shown

// The character at s[0..n) as it is shown; *len: its bytes there.
static int show(const char *s, int64_t n, bool lines, int *len, char out[SHOWN_MAX]) {
    uint32_t c;
    *len = sequence((const unsigned char *)s, n, &c);
    const bool valid = *len > 0;
    if (!valid) *len = 1, c = (unsigned char)s[0];
    if (valid && text_is_plain(c) && (lines || c != '\n')) return text_utf8_put(c, out);
    return snprintf(out, SHOWN_MAX, valid && c > 0x7F ? "\\u%04x" : "\\x%02x", (unsigned)c & 0xFFFF);
}

size_t text_visible(const char *s, int64_t n, bool lines, char *out, size_t room) {
    size_t k = 0;
    char shown[SHOWN_MAX];
    for (int64_t i = 0; i < n;) {
        int len, bytes = show(s + i, n - i, lines, &len, shown);
        if (k + (size_t)bytes >= room) break;
        memcpy(out + k, shown, (size_t)bytes);
        k += (size_t)bytes;
        i += len;
    }
    if (room) out[k] = 0;
    return k;
}

char *text_shown(const char *name) {
    const size_t n = strlen(name);
    char *out = mem_array((int64_t)n + 1, SHOWN_MAX);
    text_visible(name, (int64_t)n, false, out, n * SHOWN_MAX + 1);
    return out;
}

void text_print(FILE *f, const char *s, int64_t n, bool lines) {
    char shown[SHOWN_MAX];
    for (int64_t i = 0; i < n;) {
        int len, bytes = show(s + i, n - i, lines, &len, shown);
        fwrite(shown, 1, (size_t)bytes, f);
        i += len;
    }
}

int text_word(const char *list, const char *word) {
    const size_t bytes = strlen(word);
    int number = 1;
    for (const char *s = list; *s; number++) {
        size_t n = strcspn(s, " ");
        if (n == bytes && memcmp(s, word, n) == 0) return number;
        s += n;
        s += strspn(s, " ");
    }
    return 0;
}
