// chat.c: see chat.h.
#include "token/chat.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

#include "base/mem.h"
#include "base/text.h"
#include "token/tok_vocab.h"

// A stretch of a template's string: a special token, or text (id = -1).
typedef struct {
    int32_t id;
    char *text;
    int64_t n;
} Item;

typedef struct {
    Item *item;
    int64_t n;
} Part;

enum {
    BEGIN,
    SYSTEM_PREFIX,
    SYSTEM_SUFFIX,
    USER_PREFIX,
    USER_SUFFIX,
    ASSISTANT_PREFIX,
    ASSISTANT_SUFFIX,
    USER_AFTER_SYSTEM,
    PARTS
};

static const char *const part_names[PARTS] = {
    "begin",       "system_prefix",    "system_suffix",    "user_prefix",
    "user_suffix", "assistant_prefix", "assistant_suffix", "user_after_system"};

struct Chat {
    char *name;
    const Tokenizer *t;
    Part part[PARTS];
    char *lead;
    int32_t stop;
    int64_t stop_at; // item of the assistant's suffix
};

static const struct {
    const char *name;
    ChatRoles roles;
} templates[] = {
    {"hh",
     {.begin = "{bos?}",
      .user_prefix = "\n\nHuman: ",
      .assistant_prefix = "\n\nAssistant: ",
      .assistant_suffix = "{eos}"}},
    {"chatml",
     {.system_prefix = "<|im_start|>system\n",
      .system_suffix = "<|im_end|>\n",
      .user_prefix = "<|im_start|>user\n",
      .user_suffix = "<|im_end|>\n",
      .assistant_prefix = "<|im_start|>assistant\n",
      .assistant_suffix = "<|im_end|>\n"}},
    {"llama2",
     {.system_prefix = "{bos}[INST] <<SYS>>\n",
      .system_suffix = "\n<</SYS>>\n\n",
      .user_prefix = "{bos}[INST] ",
      .user_suffix = " [/INST]",
      .assistant_prefix = " ",
      .assistant_suffix = " {eos}",
      .user_after_system = ""}},
    {"llama3",
     {.begin = "{bos}",
      .system_prefix = "<|start_header_id|>system<|end_header_id|>\n\n",
      .system_suffix = "<|eot_id|>",
      .user_prefix = "<|start_header_id|>user<|end_header_id|>\n\n",
      .user_suffix = "<|eot_id|>",
      .assistant_prefix = "<|start_header_id|>assistant<|end_header_id|>\n\n",
      .assistant_suffix = "<|eot_id|>"}},
    {"plain", {.begin = "{bos?}", .assistant_suffix = "{eos}"}},
};

const char *const *chat_names(int *n) {
    static const char *const names[] = {"hh", "chatml", "llama2", "llama3", "plain"};
    _Static_assert(DS_COUNT(names) == DS_COUNT(templates), "a name for each template");
    *n = DS_COUNT(names);
    return names;
}

Err chat_roles(const char *name, ChatRoles *roles) {
    int n;
    const char *const *names = chat_names(&n), *near = text_closest(name, names, n);
    for (int i = 0; i < n; i++)
        if (!strcmp(name, templates[i].name)) return *roles = templates[i].roles, DS_OK;
    return err_set(DS_ERR_PARAMS,
                   "chat template \"%.60s\" is not known; known are hh, chatml, llama2, llama3, plain%s%s%s", name,
                   near ? " (did you mean " : "", near ? near : "", near ? "?)" : "");
}

static const struct {
    const char *name;
    size_t at; // in ChatRoles
} fields[CHAT_FIELDS] = {{"begin", offsetof(ChatRoles, begin)},
                         {"system_prefix", offsetof(ChatRoles, system_prefix)},
                         {"system_suffix", offsetof(ChatRoles, system_suffix)},
                         {"user_prefix", offsetof(ChatRoles, user_prefix)},
                         {"user_suffix", offsetof(ChatRoles, user_suffix)},
                         {"assistant_prefix", offsetof(ChatRoles, assistant_prefix)},
                         {"assistant_suffix", offsetof(ChatRoles, assistant_suffix)},
                         {"user_after_system", offsetof(ChatRoles, user_after_system)}};

const char *chat_field(int i) { return fields[i].name; }

static const char **role_string(ChatRoles *roles, int i) { return (const char **)((char *)roles + fields[i].at); }

ChatText chat_text(const char *name, const ChatRoles *roles) {
    ChatText t = {.name = mem_strdup(name)};
    ChatRoles copy = *roles;
    for (int i = 0; i < CHAT_FIELDS; i++) {
        const char *string = *role_string(&copy, i);
        if (string && (string[0] || i == USER_AFTER_SYSTEM)) t.field[i] = mem_strdup(string); // there NULL is not ""
    }
    return t;
}

void chat_text_free(ChatText *t) {
    mem_free(t->name);
    for (int i = 0; i < CHAT_FIELDS; i++) mem_free(t->field[i]);
    *t = (ChatText){0};
}

ChatRoles chat_text_roles(const ChatText *t) {
    ChatRoles roles = {0};
    for (int i = 0; i < CHAT_FIELDS; i++) *role_string(&roles, i) = t->field[i];
    return roles;
}

bool chat_role_parse(const char *word, ChatRole *role) {
    static const struct {
        const char *word;
        ChatRole role;
    } words[] = {{"system", CHAT_SYSTEM},
                 {"user", CHAT_USER},
                 {"human", CHAT_USER},
                 {"assistant", CHAT_ASSISTANT},
                 {"gpt", CHAT_ASSISTANT}};
    for (int i = 0; i < DS_COUNT(words); i++)
        if (!strcasecmp(word, words[i].word)) return *role = words[i].role, true;
    return false;
}

// ---- template and tokenizer ----

static void add_item(Part *p, int32_t id, const char *s, int64_t n) {
    if (id < 0 && n == 0) return;
    p->item = mem_grow(p->item, p->n, p->n + 1, sizeof *p->item);
    p->item[p->n++] = (Item){id, id < 0 ? mem_strndup(s, (size_t)n) : NULL, n};
}

// What begins at s: a placeholder or a special token (its bytes -> *len, its token -> *id, -1 for an empty {bos?}), or
// neither
// (*len = 0). DS_ERR_PARAMS for what looks like a special token and is none.
static Err read_special(const Chat *c, int part, const char *s, int64_t *len, int32_t *id) {
    Err err = DS_OK;
    const Tokenizer *t = c->t;
    const struct {
        const char *word;
        int32_t id;
        bool may_lack;
    } marks[] = {{"{bos}", t->bos, false}, {"{eos}", t->eos, false}, {"{bos?}", t->add_bos ? t->bos : -1, true}};
    *len = 0;
    for (int i = 0; i < DS_COUNT(marks); i++) {
        if (strncmp(s, marks[i].word, strlen(marks[i].word))) continue;
        DS_CHECK(marks[i].id >= 0 || marks[i].may_lack, DS_ERR_PARAMS,
                 "chat template %s: %s needs %s, which this tokenizer lacks", c->name, part_names[part], marks[i].word);
        *len = (int64_t)strlen(marks[i].word);
        *id = marks[i].id;
        goto done;
    }
    *id = vocab_added_at(t, s, (int64_t)strlen(s), true);
    if (*id >= 0 && t->piece[*id].special) {
        *len = t->piece[*id].n;
        goto done;
    }
    const char *close = strncmp(s, "<|", 2) ? NULL : strstr(s, "|>");
    DS_CHECK(!close, DS_ERR_PARAMS,
             "chat template %s: %s has %.*s, which is no special token of this tokenizer (%lld tokens)", c->name,
             part_names[part], (int)ds_min(close - s + 2, 60), s, (long long)t->n);
done:
    return err;
}

static Err compile_part(Chat *c, int part, const char *s) {
    Err err = DS_OK;
    const char *start = s;
    while (*s) {
        int64_t len;
        int32_t id;
        DS_TRY(read_special(c, part, s, &len, &id));
        if (len == 0) {
            s++;
            continue;
        }
        add_item(&c->part[part], -1, start, s - start);
        if (id >= 0) add_item(&c->part[part], id, NULL, 0);
        start = s += len;
    }
    add_item(&c->part[part], -1, start, s - start);
done:
    return err;
}

// Blanks at the end of the assistant's prefix become the lead of its answers.
static void take_lead(Chat *c) {
    Part *p = &c->part[ASSISTANT_PREFIX];
    Item *last = p->n ? &p->item[p->n - 1] : NULL;
    int64_t blanks = 0;
    while (last && last->id < 0 && blanks < last->n && last->text[last->n - 1 - blanks] == ' ') blanks++;
    if (blanks) last->n -= blanks;
    c->lead = mem_strndup(blanks ? last->text + last->n : "", (size_t)blanks);
}

static Err find_stop(Chat *c) {
    const Part *p = &c->part[ASSISTANT_SUFFIX];
    for (int64_t i = 0; i < p->n; i++)
        if (p->item[i].id >= 0) return c->stop = p->item[i].id, c->stop_at = i, DS_OK;
    return err_set(DS_ERR_PARAMS,
                   "chat template %s: assistant_suffix has no special token of this tokenizer, so an answer would have "
                   "no end; add {eos}",
                   c->name);
}

Err chat_create(const char *name, const ChatRoles *r, const Tokenizer *t, Chat **out) {
    Err err = DS_OK;
    const char *text[PARTS] = {r->begin,       r->system_prefix,    r->system_suffix,    r->user_prefix,
                               r->user_suffix, r->assistant_prefix, r->assistant_suffix, r->user_after_system};
    Chat *c = MEM_NEW(Chat, 1);
    *out = NULL;
    c->name = mem_strdup(name);
    c->t = t;
    if (!text[USER_AFTER_SYSTEM]) text[USER_AFTER_SYSTEM] = text[USER_PREFIX];
    for (int i = 0; i < PARTS; i++) DS_TRY(compile_part(c, i, text[i] ? text[i] : ""));
    take_lead(c);
    DS_TRY(find_stop(c));
    *out = c;
    c = NULL;
done:
    chat_destroy(&c);
    return err;
}

void chat_destroy(Chat **c) {
    if (!*c) return;
    for (int i = 0; i < PARTS; i++) {
        for (int64_t k = 0; k < (*c)->part[i].n; k++) mem_free((*c)->part[i].item[k].text);
        mem_free((*c)->part[i].item);
    }
    mem_free((*c)->name);
    mem_free((*c)->lead);
    MEM_FREE(*c);
}

int32_t chat_stop_id(const Chat *c) { return c->stop; }
const char *chat_lead(const Chat *c) { return c->lead; }

// ---- a conversation ----

void chat_tokens_free(ChatTokens *x) {
    tok_ids_free(&x->ids);
    mem_free(x->span);
    *x = (ChatTokens){0};
}

typedef struct {
    const Chat *c;
    ChatTokens *out;
    char *run; // text since the last special token or cut
    int64_t n, room;
    bool begun, after_text; // something stands before; text does
} Writer;

static Err flush(Writer *w) {
    Err err = DS_OK;
    const Tokenizer *t = w->c->t;
    if (w->n == 0) goto done;
    const bool goes_on = w->after_text || (w->begun && t->prefix != TOK_PREFIX_ALWAYS);
    DS_TRY(tok_encode(t, w->run, w->n, goes_on ? TOK_NO_PREFIX : 0, &w->out->ids));
    w->n = 0;
    w->begun = w->after_text = true;
done:
    return err;
}

static void write_text(Writer *w, const char *s, int64_t n) {
    if (w->n + n > w->room) {
        const int64_t room = ds_max(2 * w->room, w->n + n + 256);
        w->run = mem_grow(w->run, w->n, room, 1);
        w->room = room;
    }
    if (n) memcpy(w->run + w->n, s, (size_t)n);
    w->n += n;
}

// Items first .. end of a part.
static Err write_items(Writer *w, int part, int64_t first, int64_t end) {
    Err err = DS_OK;
    for (int64_t i = first; i < end; i++) {
        const Item *x = &w->c->part[part].item[i];
        if (x->id < 0) {
            write_text(w, x->text, x->n);
            continue;
        }
        DS_TRY(flush(w));
        tok_ids_push(&w->out->ids, x->id);
        w->begun = true;
        w->after_text = false;
    }
done:
    return err;
}

static Err write_part(Writer *w, int part) { return write_items(w, part, 0, w->c->part[part].n); }

static void add_span(ChatTokens *x, int64_t start, int64_t end) {
    if (x->spans == x->room) {
        const int64_t room = ds_max(4, 2 * x->room);
        x->span = mem_grow(x->span, 2 * x->spans, 2 * room, sizeof *x->span);
        x->room = room;
    }
    x->span[2 * x->spans] = start;
    x->span[2 * x->spans + 1] = end;
    x->spans++;
}

static Err write_answer(Writer *w, const ChatTurn *turn) {
    Err err = DS_OK;
    const int64_t after = w->c->stop_at + 1;
    DS_TRY(write_part(w, ASSISTANT_PREFIX));
    DS_TRY(flush(w));
    const int64_t start = w->out->ids.n;
    write_text(w, w->c->lead, (int64_t)strlen(w->c->lead));
    write_text(w, turn->text, turn->n);
    DS_TRY(write_items(w, ASSISTANT_SUFFIX, 0, after));
    add_span(w->out, start, w->out->ids.n);
    DS_TRY(write_items(w, ASSISTANT_SUFFIX, after, w->c->part[ASSISTANT_SUFFIX].n));
done:
    return err;
}

static Err write_turn(Writer *w, const ChatTurn *turns, int64_t i) {
    Err err = DS_OK;
    const ChatTurn *turn = &turns[i];
    DS_CHECK(turn->role == CHAT_SYSTEM || turn->role == CHAT_USER || turn->role == CHAT_ASSISTANT, DS_ERR_DATA,
             "turn %lld has role %d, expected system, user or assistant", (long long)i, (int)turn->role);
    if (turn->role == CHAT_ASSISTANT) {
        DS_TRY(write_answer(w, turn));
        goto done;
    }
    const bool system = turn->role == CHAT_SYSTEM, after_system = i > 0 && turns[i - 1].role == CHAT_SYSTEM;
    DS_TRY(write_part(w, system ? SYSTEM_PREFIX : after_system ? USER_AFTER_SYSTEM : USER_PREFIX));
    write_text(w, turn->text, turn->n);
    DS_TRY(write_part(w, system ? SYSTEM_SUFFIX : USER_SUFFIX));
done:
    return err;
}

static Err write_turns(const Chat *c, const ChatTurn *turns, int64_t n, bool open, ChatTokens *out) {
    Err err = DS_OK;
    Writer w = {.c = c, .out = out};
    out->ids.n = out->spans = 0;
    DS_TRY(write_part(&w, BEGIN));
    for (int64_t i = 0; i < n; i++) DS_TRY(write_turn(&w, turns, i));
    if (open) DS_TRY(write_part(&w, ASSISTANT_PREFIX));
    DS_TRY(flush(&w));
done:
    mem_free(w.run);
    return err;
}

// The prompt of the last answer, encoded by itself, must be what stands before that answer.
static Err verify_prefix(const Chat *c, const ChatTurn *turns, int64_t n, const ChatTokens *whole) {
    Err err = DS_OK;
    ChatTokens prompt = {0};
    int64_t last = n - 1;
    while (last >= 0 && turns[last].role != CHAT_ASSISTANT) last--;
    if (last < 0) goto done;
    DS_TRY(write_turns(c, turns, last, true, &prompt));
    const int64_t start = whole->span[2 * whole->spans - 2];
    DS_CHECK(prompt.ids.n == start &&
                 (start == 0 || !memcmp(prompt.ids.id, whole->ids.id, (size_t)start * sizeof(int32_t))),
             DS_ERR_BUG, "chat template %s: the %lld tokens of a prompt are not the %lld before its answer", c->name,
             (long long)prompt.ids.n, (long long)start);
done:
    chat_tokens_free(&prompt);
    return err;
}

Err chat_encode(const Chat *c, const ChatTurn *turns, int64_t n, bool open, ChatTokens *out) {
    Err err = write_turns(c, turns, n, open, out);
    return err ? err : verify_prefix(c, turns, n, out);
}
