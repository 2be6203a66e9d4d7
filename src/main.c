// main.c: the command line of the main job.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
#include "base/launcher.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/output.h"
#include "base/text.h"
#include "job.h"
#include "kernels/kernels.h"
#include "params/params.h"
#include "plan/plan.h"
#include "stage/preflight.h"

enum { PLAN_TOO_LARGE = 1 };

static const char help[] =
    "dschat " DS_VERSION ": supervised fine-tuning, reward model and PPO of a language model as one MPI job\n"
    "\n"
    "  mpirun -np N ./dschat PARAMS [section.key=value ...]   run, or go on where out/ holds a checkpoint\n"
    "  ./dschat --check PARAMS [section.key=value ...]        read and validate, look at every file that it names\n"
    "  ./dschat --plan PARAMS --ranks N [section.key=value ...]  memory, traffic and time of a rank; exit code 1: does "
    "not fit\n"
    "  ./dschat --keys                                        every key: type, default, range, unit, meaning\n"
    "  ./dschat --template                                    inputs/params.in: every key, commented out, with its "
    "default\n"
    "  ./dschat --version                                     and the instruction sets whose kernels this CPU runs\n"
    "  ./dschat --help\n"
    "\n"
    "inputs/params.in lists every key. Stop a run with TERM, INT, USR1: it writes a checkpoint and exits\n"
    "with 10; or with `touch OUT/STOP`: 11. The same command goes on. Exit codes: 0 done, 2 params, 3 data, 4 files, "
    "5 numbers,\n"
    "6 bug or machine, 10 stopped early with a checkpoint, 11 stopped, do not requeue.\n";

static void say_line(const char *line, void *user) {
    (void)user;
    text_print(stdout, line, (int64_t)strlen(line), false);
    printf("\n");
}

// The command line: one command (none: a job), one params file, and overrides, in any order.
typedef struct {
    const char *command, *params, *ranks;
    char **overrides; // [n]
    int n;
} Words;

static Err take_command(Words *w, const char *word) {
    static const char *const commands[] = {"--check", "--plan", "--keys", "--template", "--version", "--help", "-h"};
    Err err = DS_OK;
    DS_CHECK(!*w->command || !strcmp(w->command, word), DS_ERR_PARAMS, "%s and %s: expected one of the two", w->command,
             word);
    w->command = word;
    for (int i = 0; i < DS_COUNT(commands); i++)
        if (!strcmp(word, commands[i])) return DS_OK;
    const char *near = text_closest(word, commands, DS_COUNT(commands));
    DS_FAIL(DS_ERR_PARAMS, "unknown option %s%s%s; ./dschat --help lists them", word, near ? "; did you mean " : "",
            near ? near : "");
done:
    return err;
}

static Err take_words(int argc, char **argv, Words *w) {
    Err err = DS_OK;
    *w = (Words){.command = "", .overrides = MEM_NEW(char *, argc)};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--ranks")) {
            DS_CHECK(i + 1 < argc, DS_ERR_PARAMS, "--ranks: expected their number, as in --plan PARAMS --ranks 64");
            w->ranks = argv[++i];
        } else if (!strncmp(argv[i], "--ranks=", 8)) w->ranks = argv[i] + 8;
        else if (!strcmp(argv[i], "-n") || !strcmp(argv[i], "-np"))
            DS_FAIL(DS_ERR_PARAMS, "%s: is mpirun's and comes before the program: mpirun %s N ./dschat PARAMS%s",
                    argv[i], argv[i], strcmp(w->command, "--plan") ? "" : "; a plan's is --ranks N");
        else if (argv[i][0] == '-') DS_TRY(take_command(w, argv[i]));
        else if (!w->params && !strchr(argv[i], '=')) w->params = argv[i];
        else w->overrides[w->n++] = argv[i];
    }
    DS_CHECK(!w->ranks || !strcmp(w->command, "--plan"), DS_ERR_PARAMS,
             "--ranks is for --plan; a job has the ranks that are started: mpirun -np N ./dschat PARAMS");
    if (argc == 1) w->command = "--help";
    DS_CHECK(w->params || (*w->command && strcmp(w->command, "--plan") && strcmp(w->command, "--check")), DS_ERR_PARAMS,
             "%s%sexpected the name of a params file; inputs/ has some, and ./dschat --help what else there is",
             w->command, *w->command ? ": " : "");
done:
    return err;
}

// The params, then what a job would look at before its first stage, as far as that needs no ranks.
static Err check(const Words *w) {
    Params *p = NULL;
    int products;
    Err err = params_load(w->params, w->n, w->overrides, &p);
    if (!err) err = preflight_products(p, &products);
    if (!err) err = preflight(p, 0, products, say_line, NULL);
    if (!err) text_print(stdout, w->params, (int64_t)strlen(w->params), false), printf(": ok\n");
    params_free(&p);
    return err;
}

// Exit code 1: it does not fit.
static Err plan(const Words *w) {
    Params *p = NULL;
    Err err = DS_OK;
    char *end = NULL;
    bool fits = true;
    DS_CHECK(w->ranks, DS_ERR_PARAMS, "usage: ./dschat --plan PARAMS --ranks N [section.key=value ...]");
    const long ranks = strtol(w->ranks, &end, 10);
    DS_CHECK(*w->ranks && !*end && ranks >= 1 && ranks <= 1 << 20, DS_ERR_PARAMS, "--ranks %s: expected 1 to %d",
             w->ranks, 1 << 20);
    DS_TRY(params_load(w->params, w->n, w->overrides, &p));
    DS_TRY(plan_print(p, (int)ranks, stdout, &fits));
done:
    params_free(&p);
    return err ? err : fits ? DS_OK : PLAN_TOO_LARGE;
}

static void print_version(void) {
    printf("dschat %s (%s)\nkernels:", DS_VERSION, job_commit());
    for (int i = 0; kernels_isa_name(i); i++)
        if (kernels_isa_runs(i)) printf(" %s", kernels_isa_name(i));
    printf("\n");
}

// What needs no MPI.
static Err answer(const Words *w) {
    const char *c = w->command;
    if (!strcmp(c, "--check")) return check(w);
    if (!strcmp(c, "--plan")) return plan(w);
    if (!strcmp(c, "--version")) print_version();
    else if (!strcmp(c, "--keys")) params_print_keys(stdout);
    else if (!strcmp(c, "--template")) params_write_template(stdout);
    else fputs(help, stdout);
    return DS_OK;
}

int main(int argc, char **argv) {
    Words w;
    const bool speaks = launcher_rank() <= 0; // of many ranks that were started, the first
    Err err = take_words(argc, argv, &w);
    if (!err && !*w.command) {
        err = job_run(w.params, w.n, w.overrides); // which says why it ends
    } else {
        if (!speaks && !freopen("/dev/null", "w", stdout)) fclose(stdout);
        if (!err) err = answer(&w);
        if (!err || err == (Err)PLAN_TOO_LARGE) err = output_flush(stdout) ? DS_ERR_IO : err;
        if (!err && argc == 1) err = DS_ERR_PARAMS;
        if (err_text()[0] && speaks) log_error("%s", err_text());
    }
    mem_free(w.overrides);
    return err;
}
