// dschat-chat: talk to a model in the terminal, or answer a file of prompts.
#include <editline/readline.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "gen/answer.h"
#include "base/mem.h"
#include "base/signals.h"
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
    "  --system TEXT     a system message before the conversation\n"
    "  key=value         the keys of [generate]: temperature, top_k, top_p, greedy, max_answer, stop; and seed, "
    "threads\n"
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

// Prints what the newest token makes certain.
static bool show(void *user, const GenRequest *r) {
    Session *s = user;
    char *text = NULL;
    size_t bytes = 0;
    if (r->ids[r->n - 1] != s->talk.stop_id) tok_stream_next(s->talk.tok, &s->stream, r->ids[r->n - 1], &text, &bytes);
    const char *from = text;
    while (!s->began && bytes && (*from == ' ' || *from == '\n')) from++, bytes--;
    if (bytes) {
        s->began = true;
        fwrite(from, 1, bytes, stdout);
        fflush(stdout);
    }
    mem_free(text);
    return !interrupted;
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
        printf("(the oldest words of this conversation are forgotten)\n");
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
        printf("%s\n", err_text());
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
    printf(r.stop == GEN_STOP_LENGTH ? " ...\n" : "\n");
    char *text = tok_text(s->talk.tok, r.ids, r.n);
    add_turn(s, CHAT_ASSISTANT, text + strspn(text, " \n"));
    mem_free(text);
    mem_free(r.ids);
    mem_free(r.logp);
done:
    chat_tokens_free(&tokens);
}

// /set KEY VALUE: the keys are read again with one more override.
static void set_key(Session *s, const char *words) {
    char key[64] = "", value[128] = "";
    if (sscanf(words, "%63s %127[^\n]", key, value) != 2) {
        printf("usage: /set KEY VALUE, for example /set temperature 0.7\n");
        return;
    }
    Params *p = NULL;
    char *more = answer_override(key, value);
    for (int i = 0; i < s->n_overrides; i++) // a later wish for the same key replaces the earlier
        if (!strncmp(s->overrides[i], more, strcspn(more, "=") + 1)) {
            mem_free(s->overrides[i]);
            s->overrides[i] = s->overrides[--s->n_overrides];
        }
    s->overrides[s->n_overrides] = more;
    if (params_parse("keys", "", 0, s->n_overrides + 1, s->overrides, &p)) {
        printf("%s\n", err_text());
        err_clear();
        mem_free(more);
        return;
    }
    s->n_overrides++;
    params_free(&s->p);
    s->p = p;
}

// False: the conversation ends.
static bool command(Session *s, const char *line) {
    if (!strcmp(line, "/quit") || !strcmp(line, "/exit")) return false;
    if (!strcmp(line, "/clear")) clear_turns(s, true);
    else if (!strncmp(line, "/system", 7)) set_system(s, line + 7 + strspn(line + 7, " "));
    else if (!strncmp(line, "/set ", 5)) set_key(s, line + 5);
    else printf("/clear  /system TEXT  /set KEY VALUE  /quit\n");
    return true;
}

static void converse(Session *s) {
    printf("%s, template %s. /help lists commands, /quit ends.\n", s->talk.path, s->talk.template.name);
    using_history();
    for (bool on = true; on;) {
        char *line = readline("> ");
        if (!line) break;
        char *words = line + strspn(line, " \t");
        if (words[0]) {
            add_history(words);
            if (words[0] == '/') on = command(s, words);
            else answer(s, words);
        }
        free(line); // lint: libedit's line
    }
}

int main(int argc, char **argv) {
    Err err = DS_OK;
    AnswerArgs args;
    Session s = {0};
    bool talks = answer_args(argc, argv, help, "dschat-chat", &args, &err);
    if (!talks) return answer_exit(err);
    if (!args.prompts) signals_watch(1, (const int[]){SIGINT}, on_interrupt);
    world_init();
    DS_TRY(answer_params(&args, &s.p));
    DS_TRY(talk_open(&s.talk, args.model, args.dtype, ARCH_HEAD_LM, (int)s.p->job.threads));
    DS_TRY(talk_template(&s.talk, args.template));
    if (args.prompts) DS_TRY(answer_file(&s.talk, s.p, args.prompts, args.system, false, stdout));
    else {
        s.overrides = MEM_NEW(char *, 256);
        for (int i = 0; i < args.n_overrides && i < 128; i++)
            s.overrides[s.n_overrides++] = mem_strdup(args.overrides[i]);
        if (args.system) set_system(&s, args.system);
        converse(&s);
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
