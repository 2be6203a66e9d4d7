// dschat-eval: what a model says of texts: log-probs, perplexity, scores, values, answers.
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/output.h"
#include "comm/world.h"
#include "data/dataset.h"
#include "data/pack.h"
#include "gen/answer.h"
#include "io/jsonl.h"
#include "loss/loss_pair.h"
#include "model/head.h"

static const char help[] =
    "dschat-eval " DS_VERSION ": what a model says of texts\n"
    "\n"
    "  dschat-eval MODEL.h5 --logprobs FILE.jsonl    {\"text\": ...} or {\"ids\": [...]} in; {\"ids\", \"logprobs\"} "
    "out, a line each:\n"
    "                                                logprobs[i] = ln p(ids[i+1] | ids[0..i]); no special token is "
    "added\n"
    "  dschat-eval MODEL.h5 --tokens FILE.jsonl      {\"text\": ...} in; {\"ids\": [...]} out, special tokens "
    "recognised\n"
    "  dschat-eval MODEL.h5 --generate FILE.jsonl    {\"prompt\": ...} or {\"ids\": [...]} in; {\"ids\", \"text\", "
    "\"logprobs\", \"stop\"} out;\n"
    "                                                no template: special tokens in a prompt are recognised\n"
    "  dschat-eval MODEL.h5 --perplexity DATA.h5     of the held-out answers (or, without any, of all answers)\n"
    "  dschat-eval MODEL.h5 --score DATA.h5          accuracy on the held-out pairs; models with a scalar head\n"
    "  dschat-eval MODEL.h5 --values FILE.jsonl      {\"text\"} or {\"ids\"} in; {\"ids\", \"values\"} out; models "
    "with a scalar head\n"
    "\n"
    "  --dtype fp32|bf16   of compute, default fp32          key=value   the keys of [generate], and seed, threads\n";

typedef struct {
    Talk talk;
    Params *p;
    const AnswerArgs *args;
    Acts acts;
    Batch b;
    int32_t *rows, *targets;
    float *out;
    int64_t cap;
} Eval;

static void reserve(Eval *e, int64_t n) {
    batch_reserve(&e->b, n, 2);
    if (n <= e->cap) return;
    e->rows = mem_grow(e->rows, e->cap, n, sizeof *e->rows);
    e->targets = mem_grow(e->targets, e->cap, n, sizeof *e->targets);
    e->out = mem_grow(e->out, e->cap, n, sizeof *e->out);
    e->cap = n;
}

// One sequence through the layers.
static Err forward(Eval *e, const int32_t *ids, int64_t n, const char *what, int64_t number) {
    const int64_t room = e->talk.model.arch.max_positions;
    if (n > room)
        return err_set(DS_ERR_DATA, "%s:%lld: %lld tokens, the model takes %lld", what, (long long)number, (long long)n,
                       (long long)room);
    reserve(e, n);
    e->b.n = n, e->b.n_seq = 1, e->b.starts[0] = 0, e->b.starts[1] = (int32_t)n;
    for (int64_t t = 0; t < n; t++) {
        e->b.ids[t] = ids[t];
        e->b.pos[t] = (int32_t)t;
    }
    model_fwd(&e->talk.model, &e->acts, &e->b, n, NULL);
    return DS_OK;
}

// ---- lines of a file ----

// {"text"} or {"ids"} -> ids.
static Err line_ids(const Eval *e, const Jsonl *j, const JsonValue *line, int flags, TokIds *ids) {
    Err err = DS_OK;
    int64_t bytes, id;
    const char *text = jsonl_string(jsonl_get(line, "text"), &bytes);
    const JsonValue *list = jsonl_get(line, "ids");
    ids->n = 0;
    if (text) {
        DS_CHECK(e->talk.tok, DS_ERR_DATA, "%s: has no tokenizer; give ids", e->talk.path);
        return tok_encode(e->talk.tok, text, bytes, flags, ids);
    }
    DS_CHECK(jsonl_count(list) >= 0, DS_ERR_DATA, "%s:%lld: expected a field \"text\" or \"ids\"", jsonl_path(j),
             (long long)jsonl_line(j));
    for (int64_t i = 0; i < jsonl_count(list); i++) {
        DS_CHECK(jsonl_integer(jsonl_item(list, i), &id) && id >= 0 && id < e->talk.model.arch.vocab, DS_ERR_DATA,
                 "%s:%lld: ids[%lld]: expected a token id from 0 to %lld", jsonl_path(j), (long long)jsonl_line(j),
                 (long long)i, (long long)e->talk.model.arch.vocab - 1);
        tok_ids_push(ids, (int32_t)id);
    }
done:
    return err;
}

static void print_line(const TokIds *ids, const char *name, const float *values, int64_t n) {
    printf("{\"ids\": [");
    for (int64_t i = 0; i < ids->n; i++) printf("%s%d", i ? ", " : "", ids->id[i]);
    printf("]");
    if (name) printf(", \"%s\": [", name);
    for (int64_t i = 0; i < n; i++) printf("%s%.9g", i ? ", " : "", (double)values[i]);
    printf(name ? "]}\n" : "}\n");
}

// The three modes that take lines of text or ids.
static Err eval_lines(Eval *e) {
    Err err = DS_OK;
    Jsonl *j = NULL;
    TokIds ids = {0};
    const JsonValue *line;
    const bool tokens = !strcmp(e->args->mode, "tokens"), values = !strcmp(e->args->mode, "values");
    DS_TRY(jsonl_open(e->args->file, &j));
    for (;;) {
        DS_TRY(jsonl_next(j, &line));
        if (!line) break;
        DS_TRY(line_ids(e, j, line, tokens ? TOK_SPECIAL : 0, &ids));
        const int64_t n = ids.n - !values;
        if (tokens || n < 1) {
            print_line(&ids, tokens ? NULL : e->args->mode, NULL, 0);
            continue;
        }
        DS_TRY(forward(e, ids.id, ids.n, jsonl_path(j), jsonl_line(j)));
        for (int64_t t = 0; t < n; t++) {
            e->rows[t] = (int32_t)t;
            if (!values) e->targets[t] = ids.id[t + 1];
        }
        if (values) head_scalar_fwd(&e->talk.model, &e->acts, e->rows, n, e->out);
        else head_lm_score(&e->talk.model, &e->acts, e->rows, e->targets, n, 1, e->out, NULL);
        print_line(&ids, e->args->mode, e->out, n);
    }
done:
    tok_ids_free(&ids);
    jsonl_close(&j);
    return err;
}

// ---- data sets ----

// The tokens of a data set mean something to models with its tokenizer only.
static Err open_data(const Eval *e, Dataset **d) {
    Err err = DS_OK;
    Tokenizer *tok = NULL;
    const char *path = e->args->file, *model = e->talk.path;
    DS_TRY(dataset_open(path, d));
    DS_TRY(dataset_tokenizer(*d, &tok));
    DS_CHECK(dataset_vocab(*d) <= e->talk.model.arch.vocab, DS_ERR_DATA, "%s: has %lld tokens, %s only %lld", path,
             (long long)dataset_vocab(*d), model, (long long)e->talk.model.arch.vocab);
    DS_CHECK(!tok || !e->talk.tok || !strcmp(tok_hash(tok), tok_hash(e->talk.tok)), DS_ERR_DATA,
             "%s: was made with another tokenizer than %s has: build it with that model's", path, model);
done:
    tok_free(&tok);
    return err;
}

static Err eval_perplexity(Eval *e) {
    Err err = DS_OK;
    Dataset *d = NULL;
    double nll = 0, count = 0;
    DS_TRY(open_data(e, &d));
    const bool held_out = dataset_count(d, DATA_SFT, true) > 0;
    const int64_t samples = dataset_count(d, DATA_SFT, held_out), *span;
    DS_CHECK(samples > 0, DS_ERR_DATA, "%s: holds no samples for sft", e->args->file);
    for (int64_t i = 0; i < samples; i++) {
        int64_t row = dataset_record(d, DATA_SFT, held_out, i), length = dataset_length(d, row), n = 0;
        reserve(e, length);
        DS_TRY(dataset_read(d, &row, 1, e->b.ids));
        DS_TRY(forward(e, e->b.ids, length, e->args->file, row));
        for (int64_t s = 0, spans = dataset_spans(d, row, &span); s < spans; s++)
            for (int64_t t = ds_max(span[2 * s], 1); t < span[2 * s + 1]; t++)
                e->rows[n] = (int32_t)t - 1, e->targets[n++] = e->b.ids[t];
        head_lm_score(&e->talk.model, &e->acts, e->rows, e->targets, n, 1, e->out, NULL);
        for (int64_t t = 0; t < n; t++) nll -= e->out[t];
        count += (double)n;
    }
    printf("{\"samples\": %lld, \"tokens\": %.0f, \"nll\": %.9g, \"perplexity\": %.9g}\n", (long long)samples, count,
           nll / count, exp(nll / count));
done:
    dataset_close(&d);
    return err;
}

// The score of a row: the value at its last token.
static Err score_row(Eval *e, Dataset *d, int64_t row, float *score) {
    Err err = DS_OK;
    const int64_t length = dataset_length(d, row);
    reserve(e, length);
    DS_TRY(dataset_read(d, &row, 1, e->b.ids));
    DS_TRY(forward(e, e->b.ids, length, e->args->file, row));
    e->rows[0] = (int32_t)length - 1;
    head_scalar_fwd(&e->talk.model, &e->acts, e->rows, 1, score);
done:
    return err;
}

static Err eval_score(Eval *e) {
    Err err = DS_OK;
    Dataset *d = NULL;
    double right = 0, low, high, sums[2] = {0};
    DS_TRY(open_data(e, &d));
    const bool held_out = dataset_count(d, DATA_RM, true) > 0;
    const int64_t pairs = dataset_count(d, DATA_RM, held_out);
    DS_CHECK(pairs > 0, DS_ERR_DATA, "%s: holds no pairs", e->args->file);
    for (int64_t i = 0; i < pairs; i++) {
        int64_t row[2];
        float score[2];
        dataset_pair(d, dataset_record(d, DATA_RM, held_out, i), &row[0], &row[1]);
        for (int side = 0; side < 2; side++) {
            DS_TRY(score_row(e, d, row[side], &score[side]));
            sums[side] += score[side];
        }
        right += score[0] > score[1];
    }
    loss_pair_interval(right, (double)pairs, &low, &high);
    printf(
        "{\"pairs\": %lld, \"accuracy\": %.9g, \"low\": %.9g, \"high\": %.9g, \"chosen\": %.9g, \"rejected\": %.9g}\n",
        (long long)pairs, right / (double)pairs, low, high, sums[0] / (double)pairs, sums[1] / (double)pairs);
done:
    dataset_close(&d);
    return err;
}

static Err run(Eval *e) {
    Err err = DS_OK;
    const char *mode = e->args->mode;
    DS_CHECK(mode, DS_ERR_PARAMS,
             "dschat-eval: expected one of --logprobs, --tokens, --generate, --perplexity, --score, --values");
    const bool scalar = !strcmp(mode, "score") || !strcmp(mode, "values");
    DS_TRY(answer_params(e->args, &e->p));
    DS_TRY(talk_open(&e->talk, e->args->model, e->args->dtype, -1, (int)e->p->job.threads));
    DS_CHECK(!strcmp(mode, "tokens") || scalar == (e->talk.model.arch.head == ARCH_HEAD_SCALAR), DS_ERR_DATA,
             "%s: --%s needs a model with %s head", e->args->model, mode, scalar ? "a scalar" : "a language-model");
    acts_create(&e->acts, e->talk.k, &e->talk.model.part, e->talk.model.dt, false, 1);
    if (!strcmp(mode, "perplexity")) DS_TRY(eval_perplexity(e));
    else if (!strcmp(mode, "score")) DS_TRY(eval_score(e));
    else if (!strcmp(mode, "generate")) DS_TRY(answer_file(&e->talk, e->p, e->args->file, NULL, true, stdout));
    else DS_TRY(eval_lines(e));
    DS_TRY(output_flush(stdout));
done:
    return err;
}

int main(int argc, char **argv) {
    Err err;
    AnswerArgs args;
    if (!answer_args(argc, argv, help, "dschat-eval", &args, &err)) return answer_exit(err);
    world_init();
    Eval e = {.args = &args};
    err = run(&e);
    acts_destroy(&e.acts);
    batch_free(&e.b);
    mem_free(e.rows);
    mem_free(e.targets);
    mem_free(e.out);
    talk_close(&e.talk);
    params_free(&e.p);
    answer_args_free(&args);
    world_finalize();
    return answer_exit(err);
}
