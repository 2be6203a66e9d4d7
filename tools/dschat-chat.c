// dschat-chat: talk to a model in the terminal, or answer a file of prompts.
#include <editline/readline.h>
#include <locale.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gen/answer.h"
#include "base/mem.h"
#include "base/output.h"
#include "base/signals.h"
#include "base/text.h"
#include "comm/world.h"
#include "gen/talk.h"

static const char help[] =
    "dschat-chat " DS_VERSION ": talk to a model\n"
    "\n"
    "  dschat-chat MODEL.h5 [options] [key=value ...]            a conversation in the terminal\n"
    "  dschat-chat MODEL.h5 --prompts FILE.jsonl [key=value ...] answers a file: a line {\"prompt\": ...} or "
    "{\"messages\": [...]}\n"
    "\n"
    "  --template NAME   hh, chatml, llama2, llama3, plain; default: the one the model was trained with, or that fits "
    "it\n"
    "  --system TEXT     a system message before the conversation, \"\" for none; default: the one in the model's own "
    "template\n"
    "  key=value         the keys of [generate]: temperature (0.7 here), top_k, top_p (0.9 here), greedy, max_answer, "
    "stop;\n"
    "                    and seed, threads\n"
    "\n"
    "In the conversation: /clear forgets it, /system TEXT sets the system message, /set KEY VALUE changes a key (/set "
    "temperature\n"
    "0.7), /help, /quit. Ctrl-C stops an answer only.\n";

static atomic_bool interrupted;
static void on_interrupt(int sig) {
    (void)sig;
    interrupted = true;
}

// A conversation: its turns own their texts.
typedef struct {
    Talk talk;
    Params *p;
    char **overrides;
    int n_overrides;
    ChatTurn *turns;
    int64_t n, cap;
    uint64_t draws;
    TokStream stream;
    bool began; // the answer's leading blank was dropped
} Session;

static void add_turn(Session *s, ChatRole role, const char *text) {
    if (s->n == s->cap) {
        s->turns = mem_grow(s->turns, s->cap, s->cap + 16, sizeof *s->turns);
        s->cap += 16;
    }
    s->turns[s->n++] = (ChatTurn){.role = role, .text = mem_strdup(text), .n = (int64_t)strlen(text)};
}

static void drop_turn(Session *s, int64_t i) {
    mem_free((char *)s->turns[i].text);
    memmove(&s->turns[i], &s->turns[i + 1], (size_t)(s->n - i - 1) * sizeof *s->turns);
    s->n--;
}

static bool has_system(const Session *s) { return s->n > 0 && s->turns[0].role == CHAT_SYSTEM; }

static void clear_turns(Session *s, bool keep_system) {
    while (s->n > (keep_system && has_system(s) ? 1 : 0)) drop_turn(s, s->n - 1);
}

static void set_system(Session *s, const char *text) {
    clear_turns(s, false);
    if (text[0]) add_turn(s, CHAT_SYSTEM, text);
}

static void print_part(Session *s, const char *text, size_t bytes) {
    while (!s->began && bytes && (*text == ' ' || *text == '\n')) text++, bytes--;
    if (!bytes) return;
    s->began = true;
    text_print(stdout, text, (int64_t)bytes, true);
    fflush(stdout);
}

// Prints what the newest token makes certain.
static bool show(void *user, const GenRequest *r) {
    Session *s = user;
    char *text = NULL;
    size_t bytes = 0;
    if (r->ids[r->n - 1] != s->talk.stop_id) tok_stream_next(s->talk.tok, &s->stream, r->ids[r->n - 1], &text, &bytes);
    print_part(s, text, bytes);
    mem_free(text);
    return !interrupted;
}

// A character that the answer ends in the middle of.
static void show_end(Session *s) {
    char *text = NULL;
    size_t bytes = 0;
    tok_stream_end(&s->stream, &text, &bytes);
    print_part(s, text, bytes);
    mem_free(text);
}

// The conversation as tokens, the oldest exchange dropped until an answer of max_answer tokens fits.
static Err prompt_of(Session *s, ChatTokens *tokens) {
    Err err = DS_OK;
    for (;;) {
        DS_TRY(chat_encode(s->talk.chat, s->turns, s->n, true, tokens));
        int64_t first = has_system(s), max = s->talk.model.arch.max_positions;
        if (tokens->ids.n + ds_min(s->p->generate.max_answer, max / 2) <= max) break;
        DS_CHECK(s->n > first + 1, DS_ERR_DATA, "this takes %lld tokens, the model has room for %lld",
                 (long long)tokens->ids.n, (long long)max);
        fprintf(stderr, "(the oldest words of this conversation are forgotten)\n");
        drop_turn(s, first);
        if (s->n > first + 1 && s->turns[first].role == CHAT_ASSISTANT) drop_turn(s, first);
    }
done:
    return err;
}

static void answer(Session *s, const char *line) {
    ChatTokens tokens = {0};
    add_turn(s, CHAT_USER, line);
    if (prompt_of(s, &tokens)) {
        fprintf(stderr, "%s\n", err_text());
        err_clear();
        drop_turn(s, s->n - 1);
        goto done;
    }
    int64_t room = talk_room(&s->talk, tokens.ids.n, s->p->generate.max_answer);
    GenRequest r = {.prompt = tokens.ids.id,
                    .n_prompt = tokens.ids.n,
                    .id = s->draws++,
                    .max_new = room,
                    .ids = MEM_NEW(int32_t, room),
                    .logp = MEM_NEW(float, room)};
    GenCfg cfg = talk_config(&s->talk, s->p);
    interrupted = false;
    s->stream = (TokStream){0};
    s->began = false;
    talk_answer(&s->talk, &cfg, &r, 1, 1, show, s);
    show_end(s);
    printf(r.stop == GEN_STOP_LENGTH ? " ...\n" : "\n");
    char *text = tok_text(s->talk.tok, r.ids, r.n);
    add_turn(s, CHAT_ASSISTANT, text + strspn(text, " \n"));
    mem_free(text);
    mem_free(r.ids);
    mem_free(r.logp);
done:
    chat_tokens_free(&tokens);
}

// Is it an override of the same key?
static bool same_key(const char *a, const char *b) { return !strncmp(a, b, strcspn(b, "=") + 1); }

// The keys are read again with one more override, which takes the place of an earlier one of its key. Refused: all
// stays as it is.
static Err override(Session *s, const char *more) {
    Params *p = NULL;
    int n = 0;
    char **list = MEM_NEW(char *, s->n_overrides + 1);
    for (int i = 0; i < s->n_overrides; i++)
        if (!same_key(s->overrides[i], more)) list[n++] = mem_strdup(s->overrides[i]);
    list[n++] = mem_strdup(more);
    const Err err = params_asking(n, list, &p);
    char **old = err ? list : s->overrides;
    for (int i = 0, old_n = err ? n : s->n_overrides; i < old_n; i++) mem_free(old[i]);
    mem_free(old);
    if (err) return err;
    params_free(&s->p);
    s->p = p, s->overrides = list, s->n_overrides = n;
    return DS_OK;
}

static void set_key(Session *s, const char *words) {
    char key[64] = "", value[128] = "";
    if (sscanf(words, "%63s %127[^\n]", key, value) != 2) {
        fprintf(stderr, "usage: /set KEY VALUE, for example /set temperature 0.7\n");
        return;
    }
    char *more = answer_override(key, value);
    if (override(s, more)) fprintf(stderr, "%s\n", err_text());
    err_clear();
    mem_free(more);
}

// The arguments' keys, and sampling that suits a conversation where they do not say.
static Err first_keys(Session *s, const AnswerArgs *args) {
    static const char *const suits[] = {"generate.temperature=0.7", "generate.top_p=0.9"};
    Err err = DS_OK;
    DS_TRY(answer_params(args, &s->p));
    s->overrides = MEM_NEW(char *, args->n_overrides);
    for (int i = 0; i < args->n_overrides; i++) s->overrides[s->n_overrides++] = mem_strdup(args->overrides[i]);
    for (int k = 0; k < DS_COUNT(suits); k++) {
        bool given = false;
        for (int i = 0; i < args->n_overrides; i++) given |= same_key(args->overrides[i], suits[k]);
        if (!given) DS_TRY(override(s, suits[k]));
    }
done:
    return err;
}

// False: the conversation ends.
static bool command(Session *s, const char *line) {
    char word[16] = "";
    sscanf(line, "%15s", word);
    const char *rest = line + strcspn(line, " \t");
    rest += strspn(rest, " \t");
    if (!strcmp(word, "/quit") || !strcmp(word, "/exit")) return false;
    if (!strcmp(word, "/clear")) clear_turns(s, true);
    else if (!strcmp(word, "/system")) set_system(s, rest);
    else if (!strcmp(word, "/set")) set_key(s, rest);
    else fprintf(stderr, "/clear  /system TEXT  /set KEY VALUE  /quit\n");
    return true;
}

// ---- the terminal ----

// libedit keeps only the characters that the locale has: where that has bytes alone, C.UTF-8 is taken.
static void use_utf8(void) {
    setlocale(LC_CTYPE, "");
    if (MB_CUR_MAX == 1) setlocale(LC_CTYPE, "C.UTF-8");
}

// The next line typed, or of a pipe (without a prompt); NULL: the end. Owner: caller, libc's free.
static char *next_line(bool typed) {
    if (typed) return readline("> ");
    char *line = NULL;
    size_t room = 0;
    ssize_t n = getline(&line, &room, stdin);
    if (n < 0) {
        free(line); // lint: getline's memory
        return NULL;
    }
    while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r')) line[--n] = 0;
    return line;
}

// On the terminal, or beside the answers where those go into a file.
static void greet(const Session *s) {
    FILE *to = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO) ? stdout : stderr;
    char *path = text_shown(s->talk.path), *name = text_shown(s->talk.template.name);
    fprintf(to, "%s, template %s, temperature %g, top_p %g. /help lists commands, /quit ends.\n", path, name,
            s->p->generate.temperature, s->p->generate.top_p);
    if (has_system(s)) {
        fprintf(to, "system: ");
        text_print(to, s->turns[0].text, s->turns[0].n, true);
        fprintf(to, "\n");
    }
    mem_free(path);
    mem_free(name);
}

static void converse(Session *s) {
    const bool typed = isatty(STDIN_FILENO);
    greet(s);
    if (typed && !isatty(STDOUT_FILENO)) rl_outstream = stderr;
    using_history();
    for (bool on = true; on;) {
        char *line = next_line(typed);
        if (!line) break;
        char *words = line + strspn(line, " \t");
        if (words[0]) {
            if (typed) add_history(words);
            if (words[0] == '/') on = command(s, words);
            else answer(s, words);
        }
        free(line); // lint: libedit's or getline's line
    }
}

static void say_loading(const AnswerArgs *args) {
    if (args->prompts && !isatty(STDERR_FILENO)) return;
    fprintf(stderr, "loading ");
    text_print(stderr, args->model, (int64_t)strlen(args->model), false);
    fprintf(stderr, " ...\n");
}

int main(int argc, char **argv) {
    Err err = DS_OK;
    AnswerArgs args;
    Session s = {0};
    bool talks = answer_args(argc, argv, help, "dschat-chat", &args, &err);
    if (!talks) return answer_exit(err);
    use_utf8();
    if (!args.prompts) signals_watch(1, (const int[]){SIGINT}, on_interrupt);
    world_init();
    DS_TRY(first_keys(&s, &args));
    say_loading(&args);
    DS_TRY(talk_open(&s.talk, args.model, args.dtype, ARCH_HEAD_LM, (int)s.p->job.threads));
    DS_TRY(talk_template(&s.talk, args.template));
    const char *system = args.system ? args.system : s.talk.system;
    if (system && !system[0]) system = NULL;
    if (args.prompts) DS_TRY(answer_file(&s.talk, s.p, args.prompts, system, false, stdout));
    else {
        if (system) set_system(&s, system);
        converse(&s);
        DS_TRY(output_flush(stdout));
    }
done:
    clear_turns(&s, false);
    for (int i = 0; i < s.n_overrides; i++) mem_free(s.overrides[i]);
    mem_free(s.overrides);
    mem_free(s.turns);
    talk_close(&s.talk);
    params_free(&s.p);
    answer_args_free(&args);
    world_finalize();
    return answer_exit(err);
}
