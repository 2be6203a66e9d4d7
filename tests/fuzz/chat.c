// chat.c: any template around any turns: the strings of the template, then the turns, between NUL bytes. The first byte
// chooses the tokenizer, and a template by name in place of the strings.
#include "fuzz.h"
#include "base/text.h"
#include "token/chat.h"

enum { STRINGS = 8, TURNS = 6 };

static Tokenizer *load(const char *path) {
    Tokenizer *t;
    if (tok_load(path, &t)) abort();
    return t;
}

// The next part of the input, as a NUL-terminated copy. Owner: caller.
static char *take(const uint8_t **data, size_t *n) {
    const uint8_t *nul = memchr(*data, 0, *n);
    size_t part = nul ? (size_t)(nul - *data) : *n;
    char *s = mem_strndup((const char *)*data, part);
    *data += part + (nul != NULL), *n -= part + (nul != NULL);
    return s;
}

// Answers lie in order inside the ids, and a prompt is a prefix.
static void encode(const Chat *c, const ChatTurn *turns, int64_t n) {
    ChatTokens x = {0}, prompt = {0};
    if (chat_encode(c, turns, n, false, &x) == DS_OK) {
        int64_t end = 0;
        for (int64_t i = 0; i < x.spans; i++) {
            FUZZ_HOLDS(x.span[2 * i] >= end && x.span[2 * i] <= x.span[2 * i + 1] && x.span[2 * i + 1] <= x.ids.n);
            end = x.span[2 * i + 1];
        }
        if (n > 1 && turns[n - 1].role == CHAT_ASSISTANT) {
            FUZZ_HOLDS(chat_encode(c, turns, n - 1, true, &prompt) == DS_OK);
            FUZZ_HOLDS(prompt.ids.n <= x.ids.n);
            FUZZ_HOLDS(!prompt.ids.n || !memcmp(prompt.ids.id, x.ids.id, (size_t)prompt.ids.n * 4));
        }
    }
    FUZZ_HOLDS(!strstr(err_text(), "no prefix"));
    err_clear();
    chat_encode(c, turns, n, true, &prompt);
    chat_tokens_free(&x);
    chat_tokens_free(&prompt);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static Tokenizer *t[2];
    if (!t[0]) t[0] = load("inputs/data/demo-tokenizer.json"), t[1] = load("tests/refs/token_spm.model");
    if (n < 2) return 0;
    const int chosen = data[0], roles_word = data[1];
    char *part[STRINGS + TURNS] = {0};
    ChatRoles roles = {0};
    ChatTurn turn[TURNS];
    Chat *c = NULL;
    int n_names, n_turns = 0;
    const char *const *names = chat_names(&n_names);
    data += 2, n -= 2;
    const bool own = chosen >> 1 & 1;
    for (int i = 0; i < STRINGS && own; i++) part[i] = take(&data, &n);
    if (own)
        roles = (ChatRoles){part[0], part[1], part[2], part[3], part[4], part[5], part[6], part[7][0] ? part[7] : NULL};
    else FUZZ_HOLDS(chat_roles(names[(chosen >> 2) % n_names], &roles) == DS_OK);
    for (; n_turns < TURNS && n; n_turns++) {
        char *s = part[STRINGS + n_turns] = take(&data, &n);
        turn[n_turns] = (ChatTurn){(ChatRole)((roles_word >> n_turns & 1) + (n_turns > 0)), s, (int64_t)strlen(s)};
    }
    for (int i = 0; i < n_turns; i++) {
        char *system = chat_own_system(turn[i].text, &roles);
        FUZZ_HOLDS(!system || (system[0] && text_utf8_bad(system, (int64_t)strlen(system)) < 0));
        mem_free(system);
    }
    char *jinja = chat_jinja(&roles, chosen & 1);
    FUZZ_HOLDS(strstr(jinja, "add_generation_prompt"));
    mem_free(jinja);
    if (chat_create("fuzz", &roles, t[chosen & 1], &c) == DS_OK) encode(c, turn, n_turns);
    chat_destroy(&c);
    for (int i = 0; i < STRINGS + TURNS; i++) mem_free(part[i]);
    err_clear();
    return 0;
}
