// answer.c: see answer.h.
#include "gen/answer.h"

#include <math.h>
#include <string.h>

#include "base/mem.h"
#include "base/output.h"
#include "base/text.h"
#include "io/jsonl.h"
#include "io/origin.h"

// ---- arguments ----

typedef struct {
    const char *name;
    const char **value;
} Option;

static const char *const modes[] = {"logprobs", "tokens", "perplexity", "score", "values", "generate"};
static const char *const dtypes[] = {"fp32", "bf16"};

static Err take_option(AnswerArgs *a, const char *name, const char *value, const char *program) {
    const Option options[] = {{"template", &a->template}, {"system", &a->system}, {"prompts", &a->prompts}};
    const bool chats = !strcmp(program, "dschat-chat"); // else dschat-eval: each has its own options
    Err err = DS_OK;
    for (int i = 0; i < DS_COUNT(options) && chats; i++)
        if (!strcmp(name, options[i].name)) {
            *options[i].value = value;
            return DS_OK;
        }
    for (int i = 0; i < DS_COUNT(modes) && !chats; i++)
        if (!strcmp(name, modes[i])) {
            DS_CHECK(!a->mode, DS_ERR_PARAMS, "%s: --%s and --%s: expected one of them", program, a->mode, name);
            a->mode = modes[i];
            a->file = value;
            return DS_OK;
        }
    DS_CHECK(!strcmp(name, "dtype"), DS_ERR_PARAMS, "%s: unknown option --%s; --help lists them", program, name);
    for (int i = 0; i < DS_COUNT(dtypes); i++)
        if (!strcmp(value, dtypes[i])) {
            a->dtype = i ? DS_BF16 : DS_F32;
            return DS_OK;
        }
    DS_FAIL(DS_ERR_PARAMS, "%s: --dtype %s: expected fp32 or bf16", program, value);
done:
    return err;
}

static Err take_all(int argc, char **argv, const char *program, AnswerArgs *a) {
    Err err = DS_OK;
    for (int i = 1; i < argc; i++) {
        char *equals = strchr(argv[i], '=');
        if (!strncmp(argv[i], "--", 2)) {
            DS_CHECK(i + 1 < argc, DS_ERR_PARAMS, "%s: %s needs a value", program, argv[i]);
            DS_TRY(take_option(a, argv[i] + 2, argv[i + 1], program));
            i++;
        } else if (!a->model) {
            a->model = argv[i];
        } else {
            DS_CHECK(equals && equals > argv[i], DS_ERR_PARAMS, "%s: %s: expected key=value", program, argv[i]);
            char *key = mem_strndup(argv[i], (size_t)(equals - argv[i]));
            a->overrides[a->n_overrides++] = answer_override(key, equals + 1);
            mem_free(key);
        }
    }
    DS_CHECK(a->model, DS_ERR_PARAMS, "%s: expected the name of a model file; --help", program);
done:
    return err;
}

static bool has_word(int argc, char **argv, const char *word) {
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], word)) return true;
    return false;
}

bool answer_args(int argc, char **argv, const char *help, const char *program, AnswerArgs *a, Err *err) {
    *a = (AnswerArgs){.dtype = DS_F32, .overrides = MEM_NEW(char *, argc)};
    *err = DS_OK;
    bool asks_help = argc < 2 || has_word(argc, argv, "--help") || has_word(argc, argv, "-h"),
         asks_version = has_word(argc, argv, "--version");
    if (asks_help) fputs(help, stdout);
    else if (asks_version) printf("%s %s (%s)\n", program, DS_VERSION, origin_commit());
    else *err = take_all(argc, argv, program, a);
    bool goes_on = !asks_help && !asks_version && !*err;
    if (!goes_on) answer_args_free(a);
    if (argc < 2) *err = DS_ERR_PARAMS;
    return goes_on;
}

void answer_args_free(AnswerArgs *a) {
    for (int i = 0; i < a->n_overrides; i++) mem_free(a->overrides[i]);
    mem_free(a->overrides);
    *a = (AnswerArgs){0};
}

char *answer_override(const char *key, const char *value) {
    bool of_job = !strcmp(key, "seed") || !strcmp(key, "threads");
    return mem_printf("%s.%s=%s", of_job ? "job" : "generate", key, value);
}

Err answer_params(const AnswerArgs *a, Params **p) { return params_asking(a->n_overrides, a->overrides, p); }

int answer_exit(Err err) {
    if (err && err_text()[0]) fprintf(stderr, "error: %s\n", err_text());
    return err;
}

// ---- a file of prompts ----

// A question of the file: its tokens, and its text if it has one.
typedef struct {
    TokIds ids;
    char *text;
} Question;

typedef struct {
    Question *q;
    GenRequest *req;
    int64_t n, cap;
} Questions;

static Err from_turns(Talk *t, const ChatTurn *turns, int64_t n, Question *q) {
    Err err = DS_OK;
    ChatTokens tokens = {0};
    DS_TRY(chat_encode(t->chat, turns, n, true, &tokens));
    for (int64_t i = 0; i < tokens.ids.n; i++) tok_ids_push(&q->ids, tokens.ids.id[i]);
done:
    chat_tokens_free(&tokens);
    return err;
}

enum { MAX_TURNS = 1024 };

static Err from_messages(Talk *t, const Jsonl *j, const JsonValue *list, const char *system, Question *q) {
    Err err = DS_OK;
    int64_t n = jsonl_count(list), at = 0;
    ChatRole first;
    const char *begins = jsonl_string(jsonl_get(jsonl_item(list, 0), "role"), NULL);
    if (begins && chat_role_parse(begins, &first) && first == CHAT_SYSTEM) system = NULL; // it has its own
    ChatTurn *turns = MEM_NEW(ChatTurn, MAX_TURNS + 1);
    DS_CHECK(n > 0 && n <= MAX_TURNS, DS_ERR_DATA, "%s:%lld: expected 1 to %d messages", jsonl_path(j),
             (long long)jsonl_line(j), MAX_TURNS);
    if (system) turns[at++] = (ChatTurn){.role = CHAT_SYSTEM, .text = system, .n = (int64_t)strlen(system)};
    for (int64_t i = 0; i < n; i++, at++) {
        const JsonValue *m = jsonl_item(list, i);
        const char *role = jsonl_string(jsonl_get(m, "role"), NULL);
        turns[at].text = jsonl_string(jsonl_get(m, "content"), &turns[at].n);
        DS_CHECK(role && turns[at].text && chat_role_parse(role, &turns[at].role), DS_ERR_DATA,
                 "%s:%lld: message %lld: expected {\"role\": \"user\" | \"assistant\" | \"system\", \"content\": TEXT}",
                 jsonl_path(j), (long long)jsonl_line(j), (long long)i + 1);
    }
    DS_TRY(from_turns(t, turns, at, q));
done:
    mem_free(turns);
    return err;
}

static Err from_ids(const Talk *t, const Jsonl *j, const JsonValue *list, Question *q) {
    Err err = DS_OK;
    for (int64_t i = 0, n = jsonl_count(list); i < n; i++) {
        int64_t id = -1;
        DS_CHECK(jsonl_integer(jsonl_item(list, i), &id) && id >= 0 && id < t->model.arch.vocab, DS_ERR_DATA,
                 "%s:%lld: ids[%lld]: expected a token id from 0 to %lld", jsonl_path(j), (long long)jsonl_line(j),
                 (long long)i, (long long)t->model.arch.vocab - 1);
        tok_ids_push(&q->ids, (int32_t)id);
    }
done:
    return err;
}

static Err from_prompt(Talk *t, const char *text, int64_t bytes, const char *system, bool raw, Question *q) {
    if (raw) return tok_encode(t->tok, text, bytes, TOK_SPECIAL | TOK_ENDS, &q->ids);
    ChatTurn turns[2] = {{.role = CHAT_SYSTEM, .text = system, .n = system ? (int64_t)strlen(system) : 0},
                         {.role = CHAT_USER, .text = text, .n = bytes}};
    return from_turns(t, system ? turns : turns + 1, system ? 2 : 1, q);
}

static Err read_question(Talk *t, const Jsonl *j, const JsonValue *line, const char *system, bool raw, Question *q) {
    Err err = DS_OK;
    int64_t bytes;
    const char *prompt = jsonl_string(jsonl_get(line, "prompt"), &bytes);
    const JsonValue *messages = jsonl_get(line, "messages"), *ids = jsonl_get(line, "ids");
    if (ids) DS_TRY(from_ids(t, j, ids, q));
    else if (prompt && t->tok) {
        q->text = mem_strndup(prompt, (size_t)bytes);
        DS_TRY(from_prompt(t, prompt, bytes, system, raw, q));
    } else if (messages && t->chat) DS_TRY(from_messages(t, j, messages, system, q));
    else
        DS_FAIL(DS_ERR_DATA, "%s:%lld: expected a field \"prompt\" (text), \"messages\" or \"ids\"%s", jsonl_path(j),
                (long long)jsonl_line(j), t->tok ? "" : "; the model has no tokenizer, so only ids");
    DS_CHECK(q->ids.n > 0, DS_ERR_DATA, "%s:%lld: the prompt is empty", jsonl_path(j), (long long)jsonl_line(j));
done:
    return err;
}

static Err add_request(Talk *t, const Params *p, const Jsonl *j, Questions *all) {
    Err err = DS_OK;
    const Question *q = &all->q[all->n];
    const int64_t room = talk_room(t, q->ids.n, p->generate.max_answer);
    DS_CHECK(room > 0, DS_ERR_DATA, "%s:%lld: the prompt has %lld tokens, the model takes %lld", jsonl_path(j),
             (long long)jsonl_line(j), (long long)q->ids.n, (long long)t->model.arch.max_positions);
    all->req[all->n] = (GenRequest){.prompt = q->ids.id,
                                    .n_prompt = q->ids.n,
                                    .id = (uint64_t)all->n,
                                    .max_new = room,
                                    .ids = MEM_NEW(int32_t, room),
                                    .logp = MEM_NEW(float, room)};
done:
    return err;
}

static Err read_questions(Talk *t, const Params *p, const char *path, const char *system, bool raw, Questions *all) {
    Err err = DS_OK;
    Jsonl *j = NULL;
    const JsonValue *line;
    DS_TRY(jsonl_open(path, &j));
    for (;;) {
        DS_TRY(jsonl_next(j, &line));
        if (!line) break;
        if (all->n == all->cap) {
            int64_t cap = 2 * all->cap + 16;
            all->q = mem_grow(all->q, all->cap, cap, sizeof *all->q);
            all->req = mem_grow(all->req, all->cap, cap, sizeof *all->req);
            all->cap = cap;
        }
        DS_TRY(read_question(t, j, line, system, raw, &all->q[all->n]));
        DS_TRY(add_request(t, p, j, all));
        all->n++;
    }
done:
    jsonl_close(&j);
    return err;
}

static void print_answer(const Talk *t, const Question *q, const GenRequest *r, FILE *out) {
    fputs("{", out);
    if (q->text) {
        fputs("\"prompt\": ", out);
        jsonl_print_string(out, q->text, (int64_t)strlen(q->text));
        fputs(", ", out);
    }
    if (t->tok) {
        char *text = tok_text(t->tok, r->ids, r->n);
        const char *lead = t->chat ? chat_lead(t->chat) : "";
        const char *from = text + (strncmp(text, lead, strlen(lead)) ? 0 : strlen(lead));
        fputs("\"text\": ", out);
        jsonl_print_string(out, from, (int64_t)strlen(from));
        fputs(", ", out);
        mem_free(text);
    }
    fputs("\"ids\": [", out);
    for (int64_t i = 0; i < r->n; i++) fprintf(out, "%s%d", i ? ", " : "", r->ids[i]);
    fputs("], \"logprobs\": [", out);
    for (int64_t i = 0; i < r->n; i++) fprintf(out, "%s%.9g", i ? ", " : "", (double)r->logp[i]);
    fprintf(out, "], \"stop\": \"%s\"}\n", gen_stop_name(r->stop));
}

Err answer_file(Talk *t, const Params *p, const char *path, const char *system, bool raw, FILE *out) {
    Err err = DS_OK;
    Questions all = {0};
    DS_TRY(read_questions(t, p, path, system, raw, &all));
    GenCfg cfg = talk_config(t, p);
    talk_answer(t, &cfg, all.req, all.n, p->generate.batch, NULL, NULL);
    for (int64_t i = 0; i < all.n; i++) print_answer(t, &all.q[i], &all.req[i], out);
    DS_TRY(output_flush(out));
done:
    for (int64_t i = 0; i < all.cap; i++) {
        tok_ids_free(&all.q[i].ids);
        mem_free(all.q[i].text);
        mem_free(all.req[i].ids);
        mem_free(all.req[i].logp);
    }
    mem_free(all.q);
    mem_free(all.req);
    return err;
}
