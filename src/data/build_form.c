// build_form.c: see build_form.h.
#include "data/build_form.h"

#include <string.h>

#include "base/mem.h"

static const char human[] = "\n\nHuman:", assistant[] = "\n\nAssistant:";

void build_form_free(BuildRecord *r) {
    mem_free(r->chosen.turn);
    mem_free(r->rejected.turn);
    *r = (BuildRecord){0};
}

static void add_turn(BuildTurns *t, ChatRole role, const char *text, int64_t n) {
    if (t->n == t->room) {
        int64_t room = 2 * t->room + 8;
        t->turn = mem_grow(t->turn, t->room, room, sizeof *t->turn);
        t->room = room;
    }
    t->turn[t->n++] = (ChatTurn){role, text, n};
}

static bool begins(const char *s, int64_t n, const char *word) {
    int64_t k = (int64_t)strlen(word);
    return n >= k && !memcmp(s, word, (size_t)k);
}

// Where the next marker begins in s[n], n if there is none; *role is its.
static int64_t find_marker(const char *s, int64_t n, ChatRole *role) {
    for (int64_t at = 0; at < n; at++) {
        const char *next = memchr(s + at, '\n', (size_t)(n - at));
        if (!next) break;
        at = next - s;
        if (begins(next, n - at, human)) return *role = CHAT_USER, at;
        if (begins(next, n - at, assistant)) return *role = CHAT_ASSISTANT, at;
    }
    return n;
}

// The turns of a transcript; a blank after a marker belongs to the marker. open: its last marker, an assistant's with
// nothing behind it, is no turn.
static Err parse_transcript(const char *s, int64_t n, bool open, const char *where, const char *field, BuildTurns *t) {
    Err err = DS_OK;
    ChatRole role = CHAT_USER, next = CHAT_USER;
    int64_t at = find_marker(s, n, &role);
    DS_CHECK(at == 0 && n > 0, DS_ERR_DATA, "%s: \"%s\": expected a transcript that begins with \"\\n\\nHuman:\"",
             where, field);
    while (at < n) {
        at += (int64_t)strlen(role == CHAT_USER ? human : assistant);
        if (at < n && s[at] == ' ') at++;
        int64_t length = find_marker(s + at, n - at, &next);
        bool last = at + length == n;
        if (!(open && last && role == CHAT_ASSISTANT && !length)) add_turn(t, role, s + at, length);
        at += length;
        role = next;
    }
done:
    return err;
}

static Err get_string(const JsonValue *object, const char *field, const char *where, const char **s, int64_t *n) {
    const JsonValue *value = jsonl_get(object, field);
    char keys[200];
    *s = jsonl_string(value, n);
    if (*s) return DS_OK;
    if (value) return err_set(DS_ERR_DATA, "%s: field \"%s\": expected a string", where, field);
    return err_set(DS_ERR_DATA, "%s: field \"%s\" is missing; the line has %s", where, field,
                   jsonl_key_list(object, keys, sizeof keys));
}

static Err parse_messages(const JsonValue *list, const char *where, const char *field, BuildTurns *t) {
    Err err = DS_OK;
    DS_CHECK(jsonl_count(list) >= 0, DS_ERR_DATA, "%s: field \"%s\": expected a list of messages", where, field);
    for (int64_t i = 0; i < jsonl_count(list); i++) {
        const JsonValue *item = jsonl_item(list, i);
        const char *role, *text;
        int64_t n;
        ChatRole parsed;
        DS_CHECK(jsonl_get(item, "role"), DS_ERR_DATA, "%s: \"%s\"[%lld]: expected {\"role\": ..., \"content\": ...}",
                 where, field, (long long)i);
        DS_TRY(get_string(item, "role", where, &role, &n));
        DS_CHECK(chat_role_parse(role, &parsed), DS_ERR_DATA,
                 "%s: \"%s\"[%lld]: role \"%.40s\": expected system, user or assistant", where, field, (long long)i,
                 role);
        DS_TRY(get_string(item, "content", where, &text, &n));
        add_turn(t, parsed, text, n);
    }
done:
    return err;
}

// A conversation under `field`: a transcript or messages.
static Err parse_conversation(const JsonValue *object, const char *field, const char *where, BuildTurns *t) {
    const JsonValue *value = jsonl_get(object, field);
    const char *s;
    int64_t n;
    if (jsonl_count(value) >= 0) return parse_messages(value, where, field, t);
    Err err = get_string(object, field, where, &s, &n);
    return err ? err : parse_transcript(s, n, false, where, field, t);
}

static Err parse_prompt(const JsonValue *object, const char *field, const char *where, BuildTurns *t) {
    Err err = DS_OK;
    const char *s, *tail = assistant + 2;
    int64_t n, k = (int64_t)strlen(tail);
    if (jsonl_get(object, "system")) {
        DS_TRY(get_string(object, "system", where, &s, &n));
        if (n) add_turn(t, CHAT_SYSTEM, s, n);
    }
    if (jsonl_count(jsonl_get(object, field)) >= 0) return parse_messages(jsonl_get(object, field), where, field, t);
    DS_TRY(get_string(object, field, where, &s, &n));
    int64_t end = n;
    while (end > 0 && s[end - 1] == ' ') end--;
    if (begins(s, n, human) && end > k && begins(s + end - k, k, tail))
        DS_TRY(parse_transcript(s, end, true, where, field, t));
    else add_turn(t, CHAT_USER, s, n);
done:
    return err;
}

// prompt and one answer each for chosen and (if `rejected`) rejected.
static Err parse_answers(const JsonValue *object, const char *prompt, const char *answer, const char *rejected,
                         const char *where, BuildRecord *out) {
    Err err = DS_OK;
    const char *s;
    int64_t n;
    DS_TRY(parse_prompt(object, prompt, where, &out->chosen));
    if (rejected) {
        DS_TRY(parse_prompt(object, prompt, where, &out->rejected));
        DS_TRY(get_string(object, rejected, where, &s, &n));
        add_turn(&out->rejected, CHAT_ASSISTANT, s, n);
        out->has_pair = true;
    }
    DS_TRY(get_string(object, answer, where, &s, &n));
    add_turn(&out->chosen, CHAT_ASSISTANT, s, n);
done:
    return err;
}

static Err parse_pair(const JsonValue *object, const char *where, BuildRecord *out) {
    Err err = DS_OK;
    DS_TRY(parse_conversation(object, "chosen", where, &out->chosen));
    if (jsonl_get(object, "rejected")) {
        DS_TRY(parse_conversation(object, "rejected", where, &out->rejected));
        out->has_pair = true;
    }
done:
    return err;
}

static bool has(const JsonValue *object, const char *field) { return jsonl_get(object, field); }

static BuildForm guess(const JsonValue *o) {
    if (has(o, "messages")) return FORM_MESSAGES;
    if (has(o, "prompt") && has(o, "chosen")) return FORM_PROMPT_PAIR;
    if (has(o, "chosen")) return FORM_HH;
    if (has(o, "prompt")) return FORM_PROMPT_ANSWER;
    if (has(o, "question")) return FORM_QUESTION_ANSWER;
    if (has(o, "text")) return FORM_TEXT;
    return FORM_AUTO;
}

Err build_form_parse(const JsonValue *object, BuildForm form, const char *where, BuildRecord *out) {
    out->is_text = out->has_pair = false;
    out->chosen.n = out->rejected.n = 0;
    switch (form == FORM_AUTO ? guess(object) : form) {
    case FORM_HH: return parse_pair(object, where, out);
    case FORM_PROMPT_ANSWER: return parse_answers(object, "prompt", "answer", NULL, where, out);
    case FORM_PROMPT_PAIR: return parse_answers(object, "prompt", "chosen", "rejected", where, out);
    case FORM_QUESTION_ANSWER: return parse_answers(object, "question", "answer", NULL, where, out);
    case FORM_MESSAGES: return parse_messages(jsonl_get(object, "messages"), where, "messages", &out->chosen);
    case FORM_TEXT: out->is_text = true; return get_string(object, "text", where, &out->text, &out->text_bytes);
    default: break;
    }
    char keys[200];
    return err_set(DS_ERR_DATA,
                   "%s: the line has %s: expected chosen and rejected, prompt and answer, prompt, chosen and rejected, "
                   "messages, question and answer, or text",
                   where, jsonl_key_list(object, keys, sizeof keys));
}

static bool same(const ChatTurn *a, const ChatTurn *b) {
    return a->role == b->role && a->n == b->n && !memcmp(a->text, b->text, (size_t)a->n);
}

bool build_form_identical(const BuildRecord *r) {
    if (r->chosen.n != r->rejected.n) return false;
    for (int64_t i = 0; i < r->chosen.n; i++)
        if (!same(&r->chosen.turn[i], &r->rejected.turn[i])) return false;
    return true;
}

static bool is_blank(const ChatTurn *t) {
    for (int64_t i = 0; i < t->n; i++)
        if (!strchr(" \t\r\n", t->text[i]) || !t->text[i]) return false;
    return true;
}

bool build_form_ends_well(const BuildTurns *t, bool *empty) {
    *empty = false;
    if (t->n < 2 || t->turn[t->n - 1].role != CHAT_ASSISTANT) return false;
    *empty = is_blank(&t->turn[t->n - 1]) || (t->n == 2 && is_blank(&t->turn[0]));
    return !*empty;
}
