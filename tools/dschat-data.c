// dschat-data: JSON lines -> tokenised data sets, and a look at what is in one. One process, no MPI.
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "base/output.h"
#include "base/text.h"
#include "data/build.h"
#include "data/build_rows.h"

static const char usage[] =
    "usage: dschat-data build SPEC.in [section.key=value ...]\n"
    "           reads the JSON lines (.jsonl, .jsonl.gz) that the spec names and writes a data set\n"
    "       dschat-data verify DATA.h5\n"
    "           checks every hash, every token, every number of the index\n"
    "       dschat-data show DATA.h5 [N]\n"
    "           what is in it, and its first N rows (4), tokens that count as answers in colour or [[ ]]\n"
    "       dschat-data --keys | --help | --version\n"
    "           --keys: every key of a spec: type, default, range, meaning\n"
    "exit codes: 0 done, 2 command line or spec, 3 data, 4 files, 6 bug\n";

// ---- build and verify ----

static Err run_build(const char *path, int n, char **overrides) {
    Err err = DS_OK;
    BuildSpec *spec = NULL;
    Origin origin = {0};
    const OriginLib libs[] = {{"HDF5", h5_library_version()}};
    DS_TRY(build_spec_load(path, n, overrides, &spec));
    origin_fill(&origin, "dschat-data", libs, DS_COUNT(libs));
    DS_TRY(build_run(spec, &origin));
done:
    origin_clear(&origin);
    build_spec_free(&spec);
    return err;
}

static Err run_verify(const char *path) {
    Err err = DS_OK;
    Dataset *d = NULL;
    Tokenizer *tok = NULL;
    Sha256Hex hash;
    DS_TRY(dataset_open(path, &d));
    DS_TRY(dataset_tokenizer(d, &tok));
    DS_TRY(build_rows_verify(path, &hash));
    text_print(stdout, path, (int64_t)strlen(path), false);
    printf(": %lld rows, as they were written; SHA-256 %s\n", (long long)dataset_rows(d), hash.hex);
done:
    tok_free(&tok);
    dataset_close(&d);
    return err;
}

// ---- show ----

static void print_summary(const Dataset *d, const char *path, const Tokenizer *tok) {
    int64_t tokens = 0, counted = 0;
    char *words = tok ? tok_describe(tok) : mem_strdup("none"), *name = text_shown(path);
    char *template = text_shown(dataset_template(d)->name);
    for (int64_t r = 0; r < dataset_rows(d); r++) {
        tokens += dataset_length(d, r);
        counted += dataset_counted(d, r);
    }
    printf("%s: %lld rows, %lld tokens, %lld of them in answers\n", name, (long long)dataset_rows(d), (long long)tokens,
           (long long)counted);
    printf("  tokenizer  %s\n  template   %s, answers end with token %d\n", words, template, dataset_stop_id(d));
    for (int k = 0; k < DATA_KINDS; k++) {
        int64_t train = dataset_count(d, (DataKind)k, false), eval = dataset_count(d, (DataKind)k, true);
        if (train + eval)
            printf("  %-10s %lld %s to train on, %lld held out\n", dataset_kind_name((DataKind)k), (long long)train,
                   k == DATA_RM ? "pairs" : "records", (long long)eval);
    }
    mem_free(words);
    mem_free(name);
    mem_free(template);
}

// Tokens first .. end - 1, special ones as their text; bare numbers without a tokenizer.
static void print_tokens(const Tokenizer *tok, const int32_t *id, int64_t first, int64_t end) {
    char *text = NULL;
    int64_t n = 0, room = 0;
    for (int64_t i = first; i < end; i++) {
        if (!tok) {
            printf("%s%d", i ? " " : "", id[i]);
            continue;
        }
        TokStr piece = tok_piece(tok, id[i]);
        if (n + piece.n > room) {
            int64_t wider = 2 * (n + piece.n) + 64;
            text = mem_grow(text, room, wider, 1);
            room = wider;
        }
        memcpy(text + n, piece.s, (size_t)piece.n);
        n += piece.n;
    }
    text_print(stdout, text, n, true);
    mem_free(text);
}

static void print_head(const Dataset *d, int64_t row) {
    const int stages = dataset_stages(d, row);
    printf("\n--- row %lld:", (long long)row);
    for (int k = 0; k < DATA_KINDS; k++)
        if (stages & (1 << k)) printf(" %s", dataset_kind_name((DataKind)k));
    printf("%s%s, %lld tokens, %lld of them in answers, prompt %lld ---\n", stages ? "" : " rejected or a copy",
           dataset_held_out(d, row) ? ", held out" : "", (long long)dataset_length(d, row),
           (long long)dataset_counted(d, row), (long long)dataset_prompt_length(d, row));
}

static Err print_row(Dataset *d, const Tokenizer *tok, int64_t row) {
    Err err = DS_OK;
    const bool colour = isatty(STDOUT_FILENO);
    const int64_t length = dataset_length(d, row), *span;
    int32_t *id = MEM_NEW(int32_t, length);
    int64_t at = 0, spans = dataset_spans(d, row, &span);
    DS_TRY(dataset_read(d, &row, 1, id));
    print_head(d, row);
    for (int64_t s = 0; s < spans; s++) {
        print_tokens(tok, id, at, span[2 * s]);
        printf("%s", colour ? "\033[32m" : "[[");
        print_tokens(tok, id, span[2 * s], span[2 * s + 1]);
        printf("%s", colour ? "\033[0m" : "]]");
        at = span[2 * s + 1];
    }
    print_tokens(tok, id, at, length);
    printf("\n");
done:
    mem_free(id);
    return err;
}

static Err run_show(const char *path, const char *count) {
    Err err = DS_OK;
    Dataset *d = NULL;
    Tokenizer *tok = NULL;
    char *end;
    long long n = strtoll(count, &end, 10);
    DS_CHECK(end != count && !*end && n >= 0, DS_ERR_PARAMS, "show: %s: expected how many rows, such as 4", count);
    DS_TRY(dataset_open(path, &d));
    DS_TRY(dataset_tokenizer(d, &tok));
    print_summary(d, path, tok);
    for (int64_t r = 0; r < ds_min(n, dataset_rows(d)); r++) DS_TRY(print_row(d, tok, r));
done:
    tok_free(&tok);
    dataset_close(&d);
    return err;
}

// ---- command line ----

static Err run_command(int argc, char **argv) {
    static const char *const commands[] = {"build", "verify", "show"};
    static const struct option table[] = {{"help", no_argument, NULL, 'h'},
                                          {"version", no_argument, NULL, 'V'},
                                          {"keys", no_argument, NULL, 'k'},
                                          {NULL, 0, NULL, 0}};
    for (int c; (c = getopt_long(argc, argv, "h", table, NULL)) != -1;) {
        if (c == '?') return err_set(DS_ERR_PARAMS, "see dschat-data --help"); // getopt named the option
        if (c == 'k') keytable_print(build_spec_table(), stdout);
        else printf("%s", c == 'h' ? usage : "dschat-data " DS_VERSION "\n");
        return DS_OK;
    }
    int n = argc - optind;
    char **args = argv + optind;
    if (n == 0) return err_set(DS_ERR_PARAMS, "no command; see dschat-data --help");
    if (n >= 2 && !strcmp(args[0], "build")) return run_build(args[1], n - 2, args + 2);
    if (n == 2 && !strcmp(args[0], "verify")) return run_verify(args[1]);
    if ((n == 2 || n == 3) && !strcmp(args[0], "show")) return run_show(args[1], n == 3 ? args[2] : "4");
    const char *closest = text_closest(args[0], commands, DS_COUNT(commands));
    if (closest && !strcmp(closest, args[0]))
        return err_set(DS_ERR_PARAMS, "%s: %d arguments are not what it takes; see dschat-data --help", args[0], n - 1);
    return err_set(DS_ERR_PARAMS, "unknown command \"%s\", expected build, verify or show%s%s", args[0],
                   closest ? "; the closest is " : "", closest ? closest : "");
}

int main(int argc, char **argv) {
    h5_init();
    Err err = run_command(argc, argv);
    if (!err) err = output_flush(stdout);
    if (err) log_error("%s", err_text());
    return (int)err;
}
