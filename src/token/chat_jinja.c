// chat_jinja.c: one of our templates in Jinja, as chat_template.jinja of a Hugging Face folder.
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "token/chat.h"

// s[n] as a string of Jinja.
static void put_literal(FILE *f, const char *s, int64_t n) {
    if (n <= 0) return;
    fputs("{{ '", f);
    for (int64_t i = 0; i < n; i++) {
        if (s[i] == '\n') fputs("\\n", f);
        else if (s[i] == '\'' || s[i] == '\\') fprintf(f, "\\%c", s[i]);
        else fputc(s[i], f);
    }
    fputs("' }}", f);
}

// One of the strings around turns: its placeholders become the tokenizer's tokens.
static void put_string(FILE *f, const char *s, bool adds_bos) {
    const struct {
        const char *mark, *token;
    } marks[] = {
        {"{bos}", "{{ bos_token }}"}, {"{eos}", "{{ eos_token }}"}, {"{bos?}", adds_bos ? "{{ bos_token }}" : ""}};
    const char *from = s = s ? s : "";
    while (*s) {
        int m = 0;
        while (m < DS_COUNT(marks) && strncmp(s, marks[m].mark, strlen(marks[m].mark)) != 0) m++;
        if (m == DS_COUNT(marks)) {
            s++;
            continue;
        }
        put_literal(f, from, s - from);
        fputs(marks[m].token, f);
        from = s += strlen(marks[m].mark);
    }
    put_literal(f, from, s - from);
}

char *chat_jinja(const ChatRoles *r, bool adds_bos) {
    MemStream s;
    FILE *f = mem_stream_open(&s);
    const char *answer = r->assistant_prefix ? r->assistant_prefix : "";
    size_t asked = strlen(answer);
    while (asked > 0 && answer[asked - 1] == ' ') asked--;
    char *asking = mem_strndup(answer, asked);
    put_string(f, r->begin, adds_bos);
    fputs("{% for message in messages %}{% if message['role'] == 'system' %}", f);
    put_string(f, r->system_prefix, adds_bos);
    fputs("{{ message['content'] }}", f);
    put_string(f, r->system_suffix, adds_bos);
    fputs("{% elif message['role'] == 'user' %}", f);
    if (r->user_after_system) {
        fputs("{% if not loop.first and loop.previtem['role'] == 'system' %}", f);
        put_string(f, r->user_after_system, adds_bos);
        fputs("{% else %}", f);
    }
    put_string(f, r->user_prefix, adds_bos);
    if (r->user_after_system) fputs("{% endif %}", f);
    fputs("{{ message['content'] }}", f);
    put_string(f, r->user_suffix, adds_bos);
    fputs("{% elif message['role'] == 'assistant' %}", f);
    put_string(f, r->assistant_prefix, adds_bos);
    fputs("{{ message['content'] }}", f);
    put_string(f, r->assistant_suffix, adds_bos);
    fputs("{% endif %}{% endfor %}{% if add_generation_prompt %}", f);
    put_string(f, asking, adds_bos);
    fputs("{% endif %}", f);
    mem_free(asking);
    return mem_stream_text(&s);
}
