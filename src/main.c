// main.c: the command line of the main job.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/err.h"
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
    "inputs/params.in lists every key. Stop a run with TERM, INT, USR1 or `touch OUT/STOP`: it writes a checkpoint and "
    "exits\n"
    "with 10; the same command goes on. Exit codes: 0 done, 2 params, 3 data, 4 files, 5 numbers, 6 bug or machine, 10 "
    "stopped\n"
    "early with a checkpoint, 11 stopped, do not requeue.\n";

static void say_line(const char *line, void *user) {
    (void)user;
    text_print(stdout, line, (int64_t)strlen(line), false);
    printf("\n");
}

// The params, then what a job would look at before its first stage, as far as that needs no ranks.
static Err check(int n, char **args) {
    Params *p = NULL;
    Err err = params_load(args[0], n - 1, args + 1, &p);
    if (!err) err = preflight(p, 0, preflight_products(p), say_line, NULL);
    if (!err) text_print(stdout, args[0], (int64_t)strlen(args[0]), false), printf(": ok\n");
    params_free(&p);
    return err;
}

// Exit code 1: it does not fit.
static Err plan(int n, char **args) {
    Params *p = NULL;
    Err err = DS_OK;
    char *end = NULL;
    bool fits = true;
    DS_CHECK(n >= 3 && !strcmp(args[1], "--ranks"), DS_ERR_PARAMS,
             "usage: ./dschat --plan PARAMS --ranks N [section.key=value ...]");
    const long ranks = strtol(args[2], &end, 10);
    DS_CHECK(*args[2] && !*end && ranks >= 1 && ranks <= 1 << 20, DS_ERR_PARAMS, "--ranks %s: expected 1 to %d",
             args[2], 1 << 20);
    DS_TRY(params_load(args[0], n - 3, args + 3, &p));
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

// What can be answered without MPI; false: the arguments are a job's.
static bool answered(int argc, char **argv, Err *err) {
    const char *first = argc > 1 ? argv[1] : "--help";
    *err = DS_OK;
    if (!strcmp(first, "--help")) fputs(help, stdout);
    else if (!strcmp(first, "--version")) print_version();
    else if (!strcmp(first, "--keys")) params_print_keys(stdout);
    else if (!strcmp(first, "--template")) params_write_template(stdout);
    else if (!strcmp(first, "--check"))
        *err = argc > 2 ? check(argc - 2, argv + 2) : err_set(DS_ERR_PARAMS, "--check needs the name of a params file");
    else if (!strcmp(first, "--plan")) *err = plan(argc - 2, argv + 2);
    else if (first[0] == '-') *err = err_set(DS_ERR_PARAMS, "unknown option %s; ./dschat --help lists them", first);
    else return false;
    if (argc == 1) *err = DS_ERR_PARAMS;
    return true;
}

int main(int argc, char **argv) {
    Err err;
    if (!answered(argc, argv, &err)) return job_run(argv[1], argc - 2, argv + 2);
    if (err && err_text()[0]) fprintf(stderr, "error: %s\n", err_text());
    return err;
}
