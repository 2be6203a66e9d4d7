// dschat-model: models of others in and out of HDF5, and a look at what is in one. One process, no MPI.
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/expand.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/output.h"
#include "base/text.h"
#include "io/export.h"
#include "io/import.h"
#include "io/modelfile.h"
#include "token/bpe.h"

static const char usage[] =
    "usage: dschat-model import SRC DST.h5 [--dtype keep|fp32|bf16] [--force]\n"
    "           SRC: a Hugging Face folder (config.json, safetensors, tokenizer), a .safetensors file with "
    "config.json\n"
    "           beside it, or a .gguf file; --force replaces a DST.h5 that is there\n"
    "       dschat-model export MODEL.h5 DIR [--max-shard GiB]\n"
    "           writes config.json, safetensors, tokenizer, chat template and generation_config.json as transformers\n"
    "           reads them, into a folder without a model\n"
    "       dschat-model inspect MODEL.h5 [--all] [--verify]\n"
    "           arch, weights (--all: of every layer), tokenizer, origin; --verify checks the hash of every weight\n"
    "       dschat-model --help | --version\n"
    "exit codes: 0 done, 2 command line, 3 data, 4 files, 6 bug\n";

typedef struct {
    int dtype; // DType, -1: keep
    double max_shard_gib;
    bool all, verify, force, help, version;
} Options;

static Err parse_dtype(const char *name, int *dtype) {
    static const char *const names[] = {"keep", "fp32", "bf16"};
    static const int values[] = {-1, DS_F32, DS_BF16};
    for (int i = 0; i < DS_COUNT(names); i++)
        if (!strcmp(name, names[i])) return *dtype = values[i], DS_OK;
    const char *closest = text_closest(name, names, DS_COUNT(names));
    return err_set(DS_ERR_PARAMS, "--dtype %s: expected keep, fp32 or bf16%s%s", name,
                   closest ? "; the closest is " : "", closest ? closest : "");
}

static Err parse_options(int argc, char **argv, Options *o) {
    static const struct option table[] = {
        {"dtype", required_argument, NULL, 'd'}, {"max-shard", required_argument, NULL, 's'},
        {"all", no_argument, NULL, 'a'},         {"verify", no_argument, NULL, 'v'},
        {"force", no_argument, NULL, 'f'},       {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},     {NULL, 0, NULL, 0}};
    *o = (Options){.dtype = -1, .max_shard_gib = 4};
    for (int c; (c = getopt_long(argc, argv, "h", table, NULL)) != -1;) {
        char *end = NULL;
        Err err = DS_OK;
        if (c == 'd') err = parse_dtype(optarg, &o->dtype);
        else if (c == 's') o->max_shard_gib = strtod(optarg, &end);
        else if (c == 'a') o->all = true;
        else if (c == 'v') o->verify = true;
        else if (c == 'f') o->force = true;
        else if (c == 'h') o->help = true;
        else if (c == 'V') o->version = true;
        else err = err_set(DS_ERR_PARAMS, "see dschat-model --help"); // getopt named the option
        if (c == 's' && (*end || !(o->max_shard_gib > 0 && o->max_shard_gib < 1e6)))
            err = err_set(DS_ERR_PARAMS, "--max-shard %s: expected GiB, such as 4", optarg);
        if (err) return err;
    }
    return DS_OK;
}

// A name of something to be made, which no shell has expanded.
static Err check_typed(const char *path) {
    char *why = expand_refusal(path);
    const Err err = why ? err_set(DS_ERR_PARAMS, "%s: %s", path, why) : DS_OK;
    mem_free(why);
    return err;
}

static Err run_import(const char *src, const char *dst, const Options *o) {
    Err err = DS_OK;
    ModelFile *model = NULL;
    char *words = NULL, *shards = NULL;
    DS_TRY(check_typed(dst));
    DS_TRY(h5_parts_shard_path(dst, -1, &shards));
    DS_CHECK(o->force || !(file_exists(dst) || file_exists(shards)), DS_ERR_IO,
             "%s: is there already; --force replaces it", dst);
    DS_TRY(import_model(src, dst, o->dtype));
    DS_TRY(file_remove_tree(shards)); // of the model that stood there
    DS_TRY(modelfile_open(dst, &model));
    words = arch_describe(modelfile_arch(model));
    log_info("%s: %s, %s", dst, words, dtype_name(modelfile_tensor(model, 0)->dtype));
done:
    mem_free(words);
    mem_free(shards);
    modelfile_close(&model);
    return err;
}

static Err run_export(const char *src, const char *dir, const Options *o) {
    Err err = check_typed(dir);
    return err ? err : export_model(src, dir, o->max_shard_gib * 0x1p30);
}

// Fields that are enumerations in arch/arch.h, with the words for their values.
static const struct {
    const char *field, *values[8];
} words_of[] = {
    {"family", {"opt", "gpt2", "bloom", "gpt_neox", "llama", "mistral", "qwen2", "qwen3"}},
    {"norm", {"LayerNorm", "RMSNorm"}},
    {"pos", {"learned", "rotary", "ALiBi"}},
    {"rope_scaling", {"none", "linear", "llama3"}},
    {"qkv", {"separate", "one weight [q | k | v]", "one weight [head][q k v]"}},
    {"act", {"relu", "gelu (erf)", "gelu (tanh)", "silu"}},
    {"head", {"language model", "scalar (one value a token)"}},
};

static void print_fields(const Arch *a) {
    for (int i = 0; i < arch_field_count(); i++) {
        const char *word = NULL;
        int64_t value = (int64_t)arch_field_get(a, i);
        for (int k = 0; k < DS_COUNT(words_of); k++)
            if (!strcmp(words_of[k].field, arch_field_name(i)) && value < 8) word = words_of[k].values[value];
        if (word) printf("  %-24s%s\n", arch_field_name(i), word);
        else printf("  %-24s%.15g\n", arch_field_name(i), arch_field_get(a, i));
    }
}

// Layers that look like the first one are counted, not listed, unless `all`.
static void print_weights(const ModelFile *model, const WeightList *list, bool all) {
    int layers = list->blocks - 2;
    double bytes = 0;
    for (int i = 0; i < list->n; i++) {
        const Weight *w = &list->w[i];
        const H5Tensor *t = modelfile_tensor(model, i);
        char shape[64];
        bytes += (double)w->count * (double)dtype_bytes(t->dtype);
        if (w->ndim == 2) snprintf(shape, sizeof shape, "%lld x %lld", (long long)w->shape[0], (long long)w->shape[1]);
        else snprintf(shape, sizeof shape, "%lld", (long long)w->shape[0]);
        if (all || w->block <= 1 || w->block > layers)
            printf("  %-58s %-5s %s\n", w->name, dtype_name(t->dtype), shape);
        else if (list->w[i - 1].block == 1) printf("  ... and so on to layer %d\n", layers - 1);
    }
    char text[32];
    printf("  %d weights, %s\n", list->n, text_bytes(text, bytes));
}

static Err print_tokenizer(const ModelFile *model) {
    Err err = DS_OK;
    Tokenizer *t = NULL;
    char *blob = NULL, *words = NULL;
    size_t bytes = 0;
    printf("tokenizer\n");
    DS_TRY(modelfile_tokenizer(model, &blob, &bytes));
    if (blob) {
        DS_TRY(tok_load_blob(blob, bytes, "tokenizer", &t));
        words = tok_describe(t);
        printf("  %s\n  bos %d, eos %d, SHA-256 %s\n", words, tok_bos(t), tok_eos(t), tok_hash(t));
    } else {
        printf("  none\n");
    }
done:
    mem_free(words);
    mem_free(blob);
    tok_free(&t);
    return err;
}

static Err print_texts(const ModelFile *model) {
    static const char *const origin[] = {"program", "version", "commit", "date", "source", "source_sha256"};
    Err err = DS_OK;
    char *value = NULL;
    printf("origin\n");
    for (int i = 0; i < DS_COUNT(origin); i++) {
        DS_TRY(modelfile_origin(model, origin[i], &value));
        if (value) {
            printf("  %-24s", origin[i]);
            text_print(stdout, value, (int64_t)strlen(value), false);
            printf("\n");
        }
        MEM_FREE(value);
    }
    DS_TRY(modelfile_text(model, "chat_template", &value));
    if (value) {
        printf("chat template\n  %zu bytes of Jinja (kept and shown, never run):\n", strlen(value));
        text_print(stdout, value, (int64_t)strlen(value), true);
        printf("\n");
    }
done:
    mem_free(value);
    return err;
}

static Err run_inspect(const char *path, const Options *o) {
    Err err = DS_OK;
    ModelFile *model = NULL;
    WeightList list = {0};
    char *words = NULL;
    DS_TRY(modelfile_open(path, &model));
    const Arch *a = modelfile_arch(model);
    weights_build(a, &list);
    words = arch_describe(a);
    text_print(stdout, path, (int64_t)strlen(path), false);
    printf(": %s\nconfig\n", words);
    print_fields(a);
    printf("weights\n");
    print_weights(model, &list, o->all);
    DS_TRY(print_tokenizer(model));
    DS_TRY(print_texts(model));
    if (o->verify) {
        DS_TRY(modelfile_verify(model, 0, 1));
        printf("every weight has the hash it was written with\n");
    }
done:
    mem_free(words);
    weights_free(&list);
    modelfile_close(&model);
    return err;
}

static Err run_command(int argc, char **argv) {
    static const char *const commands[] = {"import", "export", "inspect"};
    Options o;
    Err err = parse_options(argc, argv, &o);
    if (err) return err;
    if (o.help || o.version) {
        printf("%s", o.help ? usage : "dschat-model " DS_VERSION "\n");
        return DS_OK;
    }
    int n = argc - optind;
    char **args = argv + optind;
    if (n == 3 && !strcmp(args[0], "import")) return run_import(args[1], args[2], &o);
    if (n == 3 && !strcmp(args[0], "export")) return run_export(args[1], args[2], &o);
    if (n == 2 && !strcmp(args[0], "inspect")) return run_inspect(args[1], &o);
    if (n == 0) return err_set(DS_ERR_PARAMS, "no command; see dschat-model --help");
    const char *closest = text_closest(args[0], commands, DS_COUNT(commands));
    if (closest && !strcmp(closest, args[0]))
        return err_set(DS_ERR_PARAMS, "%s: %d arguments are not what it takes; see dschat-model --help", args[0],
                       n - 1);
    return err_set(DS_ERR_PARAMS, "unknown command \"%s\", expected import, export or inspect%s%s", args[0],
                   closest ? "; the closest is " : "", closest ? closest : "");
}

int main(int argc, char **argv) {
    h5_init();
    Err err = run_command(argc, argv);
    if (!err) err = output_flush(stdout);
    if (err) log_error("%s", err_text());
    return (int)err;
}
