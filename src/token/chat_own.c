// chat_own.c: what a model's own chat template (Jinja, never run) says before the first turn of a conversation that has
// no system message: the literal between the template's system prefix and suffix, as in
//     {{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}
#include <string.h>

#include "base/mem.h"
#include "base/text.h"
#include "token/chat.h"

enum { SYSTEM_MAX = 4096 }; // bytes

// Bytes of jinja that spell s[n], whose line ends may be written as \n; 0: it stands not there.
static int64_t spelt(const char *jinja, const char *s, int64_t n) {
    const char *p = jinja;
    for (int64_t i = 0; i < n; i++) {
        if (s[i] == '\n' && p[0] == '\\' && p[1] == 'n') p += 2;
        else if (*p == s[i]) p++;
        else return 0;
    }
    return p - jinja;
}

// The literal from `from` on until the suffix, escapes resolved. quote: what ends it, 0: it stands outside of
// expressions. NULL: it is made of more than a literal.
static char *literal(const char *from, char quote, const char *suffix, int64_t suffix_n) {
    char *out = mem_alloc(SYSTEM_MAX + 1), *w = out;
    for (const char *p = from; *p && w - out < SYSTEM_MAX; p++) {
        if (spelt(p, suffix, suffix_n)) {
            if (w > out && text_utf8_bad(out, w - out) < 0) return out;
            break;
        }
        if (quote ? *p == quote : p[0] == '{' && (p[1] == '{' || p[1] == '%' || p[1] == '#')) break;
        if (quote && *p == '\\' && p[1]) *w++ = *++p == 'n' ? '\n' : *p;
        else *w++ = *p;
    }
    mem_free(out);
    return NULL;
}

char *chat_own_system(const char *jinja, const ChatRoles *r) {
    const char *prefix = r->system_prefix ? r->system_prefix : "", *suffix = r->system_suffix ? r->system_suffix : "";
    if (!strncmp(prefix, "{bos}", 5)) prefix += 5;
    const int64_t n = (int64_t)strlen(prefix);
    int64_t suffix_n = (int64_t)strlen(suffix);
    while (suffix_n > 0 && suffix[suffix_n - 1] == '\n') suffix_n--;
    if (n == 0 || suffix_n == 0) return NULL;
    for (const char *p = jinja; *p; p++) {
        const int64_t bytes = spelt(p, prefix, n);
        if (bytes == 0) continue;
        const char before = p > jinja ? p[-1] : 0;
        char *text = literal(p + bytes, before == '\'' || before == '"' ? before : 0, suffix, suffix_n);
        if (text) return text;
    }
    return NULL;
}
