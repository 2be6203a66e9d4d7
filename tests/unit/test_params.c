// test_params.c: the params file: every kind of error with its words, the echo's round trip, overrides, presets, the
// template, and a fuzz loop.
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "params/params.h"

static Params *parse(const char *text) {
    Params *p = NULL;
    err_clear();
    if (params_parse("t.in", text, strlen(text), 0, NULL, &p)) fail_msg("%s\nrefused: %s", text, err_text());
    return p;
}

static void refuses_bytes(const char *text, size_t bytes, const char *message) {
    Params *p = (Params *)&p;
    err_clear();
    assert_int_equal(params_parse("t.in", text, bytes, 0, NULL, &p), DS_ERR_PARAMS);
    assert_null(p);
    assert_string_equal(err_text(), message);
    err_clear();
}

static void refuses(const char *text, const char *message) { refuses_bytes(text, strlen(text), message); }

static void refuses_override(const char *assignment, const char *message) {
    char *overrides[] = {(char *)assignment};
    Params *p = NULL;
    err_clear();
    assert_int_equal(params_parse("t.in", "", 0, 1, overrides, &p), DS_ERR_PARAMS);
    assert_string_equal(err_text(), message);
    err_clear();
}

// Everything that a program prints into a FILE. Owner: caller, free.
static char *printed(void (*print)(const Params *p, FILE *f), const Params *p) {
    char *text = NULL;
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);
    print(p, f);
    fclose(f);
    return text;
}
static void print_template(const Params *p, FILE *f) { (void)p, params_write_template(f); }
static void print_keys(const Params *p, FILE *f) { (void)p, params_print_keys(f); }

static void test_defaults(void **state) {
    (void)state;
    Params *p = parse("");
    assert_string_equal(p->job.name, "t");
    assert_string_equal(p->job.out, "out/t");
    assert_int_equal(p->job.stages, 1 << STAGE_SFT | 1 << STAGE_RM | 1 << STAGE_PPO);
    assert_true(p->ppo.train.lr == 9.65e-6 && p->sft.train.lr == 2e-5 && p->ppo.critic_lr == 5e-6);
    assert_int_equal(p->ppo.train.warmup_steps, 100);
    assert_int_equal(p->actor.common.init, INIT_RANDOM);
    assert_int_equal(p->critic.common.init, INIT_PREVIOUS);
    assert_int_equal(p->actor.arch_ffn, 4 * p->actor.arch_width);
    assert_int_equal(p->actor.arch_kv_heads, p->actor.arch_heads);
    assert_int_equal(p->ppo.ptx_batch, p->ppo.train.global_batch);
    assert_string_equal(p->data.rm_file, "data.h5");
    assert_int_equal(p->data.order_seed, 1234);
    assert_int_equal(p->actor.common.lora_modules.n, 2);
    assert_string_equal(p->actor.common.lora_modules.item[1], "mlp");
    assert_false(params_was_set(p, "sft.lr"));
    params_free(&p);
    assert_null(p);
    params_free(&p);
}

static void test_values(void **state) {
    (void)state;
    Params *p = parse("\xEF\xBB\xBF# a comment\r\n[sft]\r\nlr = 3e-4 ; falls\r\nschedule: linear\r\n"
                      "[job] ; the job\nstages = rm,\n  sft\nname = a b;c\nseed=+7\n[generate]\n"
                      "stop = \\n\\nHuman:, \\s\\,x,\n\t; between\n   c d\ngreedy = on\n"
                      "[actor]\nmodel = a$/m = x.h5\ndtype = bf16\n[data]\nfile = f.h5\nrm_file = g.h5");
    assert_true(p->sft.train.lr == 3e-4);
    assert_int_equal(p->sft.train.schedule, SCHEDULE_LINEAR);
    assert_int_equal(p->job.stages, 1 << STAGE_SFT | 1 << STAGE_RM);
    assert_string_equal(p->job.name, "a b;c");
    assert_int_equal(p->job.seed, 7);
    assert_int_equal(p->generate.stop.n, 3);
    assert_string_equal(p->generate.stop.item[0], "\n\nHuman:");
    assert_string_equal(p->generate.stop.item[1], " ,x");
    assert_string_equal(p->generate.stop.item[2], "c d");
    assert_true(p->generate.greedy);
    assert_string_equal(p->actor.common.model, "a$/m = x.h5");
    assert_int_equal(p->actor.common.init, INIT_MODEL);
    assert_int_equal(p->actor.common.dtype, DS_BF16);
    assert_string_equal(p->data.sft_file, "f.h5");
    assert_string_equal(p->data.rm_file, "g.h5");
    assert_true(params_was_set(p, "sft.lr") && !params_was_set(p, "rm.lr"));
    params_free(&p);
}

static void test_unknown_words(void **state) {
    (void)state;
    refuses("[job]\n\n[stf]\n", "t.in:3: unknown section [stf]; did you mean [sft]?");
    refuses("[qqqqqqqq]\n", "t.in:1: unknown section [qqqqqqqq]");
    refuses("[pp]\nkl_coef = 1\n", "t.in:1: unknown section [pp]; did you mean [ppo]?"); // the start of a name
    refuses("[]\n", "t.in:1: unknown section []");
    refuses("[ppo]\n# x\nkl_coeff = 1\n", "t.in:3: unknown key 'kl_coeff' in [ppo]; did you mean 'kl_coef'?");
    refuses("[job]\nlearning_rate_of_all = 1\n", "t.in:2: unknown key 'learning_rate_of_all' in [job]");
    refuses("[machine]\nsamples_per_prompt = 1\n",
            "t.in:2: unknown key 'samples_per_prompt' in [machine]; it is a key of [ppo]");
    refuses(
        "[sft]\nschedule = cosinus\n",
        "t.in:2: [sft] schedule = cosinus: expected one of linear, cosine, cosine_with_restarts, polynomial, constant, "
        "constant_with_warmup, cosine_with_min_lr; did you mean 'cosine'?");
    refuses("[job]\nstages = sft, pop\n",
            "t.in:2: [job] stages = pop: expected a list out of sft, rm, ppo; did you mean 'ppo'?");
    refuses("[job]\nstages = sft, sft\n", "t.in:2: [job] stages: sft is named twice");
    refuses("[job]\nstages =\n", "t.in:2: [job] stages = : expected a list out of sft, rm, ppo");
}

static void test_types_and_ranges(void **state) {
    (void)state;
    refuses("[sft]\nlr = fast\n", "t.in:2: [sft] lr = fast: not a number; expected a number from 0 to 10");
    refuses("[sft]\nlr =\n", "t.in:2: [sft] lr = : not a number; expected a number from 0 to 10");
    refuses("[sft]\nlr = 0x1p-3\n", "t.in:2: [sft] lr = 0x1p-3: not a number; expected a number from 0 to 10");
    refuses("[sft]\nlr = nan\n", "t.in:2: [sft] lr = nan: not finite; expected a number from 0 to 10");
    refuses("[sft]\nlr = 1e999\n", "t.in:2: [sft] lr = 1e999: not finite; expected a number from 0 to 10");
    refuses("[sft]\nlr = -1e-5\n", "t.in:2: [sft] lr = -1e-5: out of range; expected a number from 0 to 10");
    refuses("[sft]\nlr = 10.5\n", "t.in:2: [sft] lr = 10.5: out of range; expected a number from 0 to 10");
    refuses("[sft]\nmax_steps = 1.5\n",
            "t.in:2: [sft] max_steps = 1.5: not a whole number; expected a whole number from 0 to 1000000000");
    refuses("[sft]\nmax_steps = 99999999999999999999\n",
            "t.in:2: [sft] max_steps = 99999999999999999999: out of range; "
            "expected a whole number from 0 to 1000000000");
    refuses("[actor]\nzero_stage = 4\n",
            "t.in:2: [actor] zero_stage = 4: out of range; expected a whole number from 0 to 3");
    refuses("[ppo]\nema = maybe\n", "t.in:2: [ppo] ema = maybe: expected yes or no");
    refuses("[generate]\nstop = a,,b\n", "t.in:2: [generate] stop: item 2 of the list is empty");
    refuses("[generate]\nstop = a\\q\n",
            "t.in:2: [generate] stop: expected n t s , ; # \" or another backslash after a backslash");
}

static void test_broken_lines(void **state) {
    (void)state;
    refuses("[job]\nseed\n", "t.in:2: expected 'key = value', '[section]' or a comment");
    refuses("[job]\nseed ; = 3\n", "t.in:2: expected 'key = value', '[section]' or a comment");
    refuses("seed = 1\n", "t.in:1: expected a '[section]' before the first key");
    refuses("[job\n", "t.in:1: expected ']' at the end of the section's name");
    refuses("[job] seed = 3\n", "t.in:1: expected nothing behind the section's ']'");
    refuses("[job]\nseed = 1\n[sft]\n[job]\nseed = 1\n", "t.in:5: [job] seed is set already in line 2");
    refuses("[job]\nseed = 1\n  threads = 2\n", "t.in:3: an indented line continues a list whose last line ends with a "
                                                "comma; remove the blanks in front of a key");
    refuses("[job]\nstages = sft,\nseed = 1\n",
            "t.in:3: the list above ends with a comma: expected more of it, indented");
    refuses("[job]\nstages = sft,\n",
            "t.in:2: the list ends with a comma: expected more of it, indented, on the next line");
    refuses("[job]\nout = a # b\n",
            "t.in:2: [job] out: the value holds ' #': a comment after a value begins with ' ;', "
            "and neither can be part of one");
    refuses("[job]\nout = \"a\"\n", "t.in:2: [job] out = \"a\": expected a value without quotes");
    refuses("[job]\nout = a\xff\n", "t.in:2: the line is not UTF-8");
    refuses_bytes("[job]\n\0=1\n", 11, "t.in:2: the line holds a control byte: not a text file");
    char *text = mem_printf("[job]\nout = %0193d\n", 0); // 199 bytes
    refuses(text, "t.in:2: the line has 199 bytes, expected at most 198");
    mem_free(text);
    text = mem_printf("[job]\nout = %0192d\n", 0);
    Params *p = parse(text);
    assert_int_equal(strlen(p->job.out), 192);
    params_free(&p);
    mem_free(text);
    // the first error in the file's order is the one that is told
    refuses("[job]\nseed = x\nnonsense\n[stf]\n",
            "t.in:2: [job] seed = x: not a whole number; expected a whole number from 0 to 9007199254740991");
    refuses("[job]\nnonsense\nseed = x\n", "t.in:2: expected 'key = value', '[section]' or a comment");
}

static void test_not_built(void **state) {
    (void)state;
    refuses("[job]\ndevice = cuda\n", "t.in:2: [job] device = cuda: the CUDA back end is not built; expected cpu");
}

static void test_contradictions(void **state) {
    (void)state;
    refuses("[job]\nname = a/b\n", "t.in:2: [job] name = a/b: expected a plain name; the folder goes into out");
    Params *hour = parse("[job]\nmax_hours = 0.1\n"); // six minutes, of which five are kept free
    params_free(&hour);
    refuses("[job]\nmax_hours = 0.05\n",
            "t.in: [job] stop_margin_minutes = 5 (default): expected less than max_hours = "
            "0.05 h, or no step would be taken");
    refuses("[layout]\nsequence = yes\n",
            "t.in:2: [layout] sequence = yes: expected no where tensor = 1: no ranks split "
            "a layer, which could divide its tokens");
    refuses("[actor]\ninit = model\n",
            "t.in:2: [actor] init = model: expected a path in [actor] model, or init = random");
    refuses("[critic]\ninit = random\n", "t.in:2: [critic] init = random: expected auto, model or previous here");
    refuses("[actor]\nmodel = m.h5\ninit = random\n",
            "t.in:3: [actor] init = random: contradicts [actor] model = m.h5; remove one of the two");
    refuses("[critic]\nzero_stage = 2\nquantize_weights = int8\n",
            "t.in:3: [critic] quantize_weights = int8: needs zero_stage = 3");
    refuses("[actor]\nzero_stage = 3\nquantize_weights = int4\n",
            "t.in:3: [actor] quantize_weights = int4: expected one of none, int8; did you mean 'int8'?");
    refuses("[reference]\nquantize_gradients = int8\n",
            "t.in:2: [reference] quantize_gradients = int8: expected none: this model is frozen, and only training "
            "reads quantize_gradients");
    refuses("[reference]\nlora_modules = mlp\n",
            "t.in:2: [reference] lora_modules = mlp: expected attention, mlp: this model is frozen, and only training "
            "reads lora_modules");
    refuses("[reference]\noffload = moments\n",
            "t.in:2: [reference] offload = moments: expected none or weights: this model is frozen, it has no moments");
    refuses("[layout]\nreduce = library\n[reward]\nquantize_gradients = int4\n",
            "t.in:4: [reward] quantize_gradients = int4: contradicts [layout] reduce = library, by which MPI sums "
            "fp32; remove one of the two");
    refuses("[layout]\ntensor = 2\n[critic]\nquantize_gradients = int8\n",
            "t.in:4: [critic] quantize_gradients = int8: expected none with [layout] tensor > 1: weights that its "
            "ranks share would drift apart");
    refuses("[layout]\ntensor = 2\n[reward]\nzero_stage = 3\nquantize_weights = int8\n",
            "t.in:5: [reward] quantize_weights = int8: expected none with [layout] tensor > 1: weights that its "
            "ranks share would drift apart");
    refuses("[actor]\narch_heads = 7\n",
            "t.in: [actor] arch_width = 128 (default): expected a multiple of arch_heads = 7");
    refuses("[actor]\narch_kv_heads = 3\n", "t.in:2: [actor] arch_kv_heads = 3: expected a divisor of arch_heads = 4");
    refuses("[actor]\narch_positions = 511\n",
            "t.in:2: [actor] arch_positions = 511: expected at least [generate] max_prompt + max_answer = 512");
    refuses("[job]\nstages = ppo\n",
            "t.in: [reward] model =  (default): expected the path of a reward model: [job] stages has ppo without rm");
    refuses("[data]\nfile =\nsft_file = a.h5\n",
            "t.in: [data] rm_file =  (default): expected a data set, here or in [data] file");
    refuses("[rm]\nwarmup_steps = 3\nwarmup_ratio = 0.1\n",
            "t.in:3: [rm] warmup_ratio = 0.1: contradicts warmup_steps = 3; set one of the two");
    refuses("[rm]\nwarmup_steps = 3\nschedule = constant\n",
            "t.in:2: [rm] warmup_steps = 3: expected 0 with schedule = constant; constant_with_warmup has a warm-up");
    refuses("[ppo]\nglobal_batch = 48\n",
            "t.in:2: [ppo] global_batch = 48: expected a divisor of rollout_batch x samples_per_prompt = 64 answers");
    refuses("[ppo]\nreward_source = checker\n",
            "t.in:2: [ppo] reward_source = checker: expected the name of a checker");
    refuses("[ppo]\nnormalize_reward = yes\n[rm]\nnormalize = no\n",
            "t.in:2: [ppo] normalize_reward = yes: needs [rm] normalize = yes");
    refuses("[ppo]\ndual_clip = 0.5\n", "t.in:2: [ppo] dual_clip = 0.5: expected 0 (off) or more than 1");
    refuses("[ppo]\nkl_control = adaptive\nkl_coef = 0\n",
            "t.in:3: [ppo] kl_coef = 0: expected more than 0 with kl_control = adaptive, which multiplies it");
    refuses("[ppo]\nkl_control = adaptive\nmax_kl = 5\n", "t.in:3: [ppo] max_kl = 5: expected more than kl_target = 6");
    refuses(
        "[generate]\ngreedy = yes\n[ppo]\nsamples_per_prompt = 4\n",
        "t.in:4: [ppo] samples_per_prompt = 4: expected 1 with [generate] greedy = yes: the answers would be equal");
}

static void test_warmup(void **state) {
    (void)state;
    Params *p = parse("[ppo]\nwarmup_ratio = 0.1\n[sft]\nschedule = constant\n");
    assert_int_equal(p->ppo.train.warmup_steps, 0);
    assert_true(p->ppo.train.warmup_ratio == 0.1);
    params_free(&p);
    p = parse("[ppo]\nschedule = constant\n");
    assert_int_equal(p->ppo.train.warmup_steps, 0);
    params_free(&p);
}

static void test_overrides(void **state) {
    (void)state;
    char *overrides[] = {"sft.lr=1e-3", "job.stages = sft", "generate.stop=a,b"}, *hash, *same;
    const char *text = "[sft]\nlr = 2\n";
    Params *p = NULL;
    err_clear();
    assert_int_equal(params_parse("x/run.1.in", text, strlen(text), 3, overrides, &p), DS_OK);
    assert_true(p->sft.train.lr == 1e-3 && p->job.stages == 1 << STAGE_SFT && p->generate.stop.n == 2);
    assert_string_equal(p->job.out, "out/run.1");
    assert_true(params_was_set(p, "job.stages"));
    hash = params_hash(p);
    params_free(&p);
    p = parse("[job]\nname = run.1\nstages = sft\n[generate]\nstop = a, b\n[sft]\nlr = 0.001\n");
    same = params_hash(p);
    assert_string_equal(hash, same); // wherever the values came from
    params_free(&p);
    mem_free(hash);
    mem_free(same);
    refuses_override("lr", "command line: 'lr': expected section.key=value");
    refuses_override("lr=a.b",
                     "command line: 'lr=a.b': expected section.key=value; did you mean sft.lr=a.b or rm.lr=a.b "
                     "or ppo.lr=a.b?");
    refuses_override("kl_coef=0.1",
                     "command line: 'kl_coef=0.1': expected section.key=value; did you mean ppo.kl_coef=0.1?");
    refuses_override(" kl_coeff = 0.1", "command line: ' kl_coeff = 0.1': expected section.key=value; did you mean "
                                        "ppo.kl_coef= 0.1?");
    refuses_override("x=1", "command line: 'x=1': expected section.key=value");
    refuses_override("sft.lrr=1", "command line (sft.lrr): unknown key 'lrr' in [sft]; did you mean 'lr'?");
    refuses_override("stf.lr=1", "command line (stf.lr): unknown section [stf]; did you mean [sft]?");
    refuses_override("sft.lr=x", "command line (sft.lr): [sft] lr = x: not a number; expected a number from 0 to 10");
    refuses_override("job.out=a\nb", "command line (job.out): [job] out: the value holds the control byte 0x0a");
    refuses_override("job.out=a ;b", "command line (job.out): [job] out: the value holds ' ;': a comment after a value "
                                     "begins with ' ;', and neither can be part of one");
    refuses_override("ppo.dual_clip=1", "command line: [ppo] dual_clip = 1: expected 0 (off) or more than 1");
    char *twice[] = {"sft.lr=1", "sft.lr=2"};
    assert_int_equal(params_parse("t.in", "", 0, 2, twice, &p), DS_ERR_PARAMS);
    assert_string_equal(err_text(), "command line (sft.lr): [sft] lr is set already by override 1");
    err_clear();
}

// ~ and $ are refused in every path, with what a shell would have made of them; other texts may hold them.
static void test_paths(void **state) {
    (void)state;
    static const char *const keys[] = {"job.out",         "data.file",     "data.sft_file", "data.rm_file",
                                       "data.ppo_file",   "data.ptx_file", "actor.model",   "critic.model",
                                       "reference.model", "reward.model"};
    char *home = getenv("HOME") ? mem_strdup(getenv("HOME")) : NULL;
    setenv("HOME", "/people/anna", 1);
    setenv("DATA_DIR", "/data", 1);
    unsetenv("NOT_SET");
    for (int i = 0; i < DS_COUNT(keys); i++) {
        char *set = mem_printf("%s=~/x.h5", keys[i]), *section = mem_strndup(keys[i], strcspn(keys[i], "."));
        char *words =
            mem_printf("command line: [%s] %s = ~/x.h5: ~ and $ are not expanded in paths; write /people/anna/x.h5",
                       section, strchr(keys[i], '.') + 1);
        refuses_override(set, words);
        mem_free(words);
        mem_free(section);
        mem_free(set);
    }
    refuses("[data]\nfile = ${DATA_DIR}/$DATA_DIR.h5",
            "t.in:2: [data] file = ${DATA_DIR}/$DATA_DIR.h5: ~ and $ are not expanded in paths; write /data//data.h5");
    refuses("[data]\nfile = $NOT_SET/x",
            "t.in:2: [data] file = $NOT_SET/x: ~ and $ are not expanded in paths; write the "
            "whole path");
    refuses("[data]\nfile = ~anna/x",
            "t.in:2: [data] file = ~anna/x: ~ and $ are not expanded in paths; write the whole path");
    Params *p = parse("[data]\nfile = a~b/$5/x$.h5\n[generate]\nstop = $HOME, ~\n[job]\nname = $run\nout = x");
    assert_string_equal(p->data.file, "a~b/$5/x$.h5");
    params_free(&p);
    if (home) setenv("HOME", home, 1);
    mem_free(home);
}

static void check_round_trip(const char *text) {
    Params *p = parse(text), *q = NULL;
    char *echo = params_text(p, true), *a = params_hash(p), *b;
    if (params_parse("other.in", echo, strlen(echo), 0, NULL, &q)) fail_msg("echo refused: %s\n%s", err_text(), echo);
    b = params_hash(q);
    assert_string_equal(a, b);
    assert_true(p->ppo.lam == q->ppo.lam && p->ppo.train.lr == q->ppo.train.lr); // to the last bit
    for (int k = 0; k < params_table()->n_keys; k++) {
        char *v = keytable_format(params_table(), p, k), *w = keytable_format(params_table(), q, k);
        assert_string_equal(v, w);
        mem_free(v);
        mem_free(w);
    }
    mem_free(a);
    mem_free(b);
    mem_free(echo);
    params_free(&p);
    params_free(&q);
}

static void test_echo(void **state) {
    (void)state;
    check_round_trip("");
    check_round_trip("[ppo]\npreset = openrlhf\nwarmup_steps = 7\n");
    check_round_trip("[ppo]\npreset = verl\nlam = 0.9123456789012345\ngamma = 0.1\n");
    check_round_trip("[generate]\nstop = \\#a, \\;b, \\\"c, \\s d\\s, e  f, \\n\\t\\\\, g \"h, a\\,b, \\;, x \\; y\n");
    char *list = mem_printf("[generate]\nstop = %0150d,\n   %0150d,\n   %0150d,\n   b\n", 1, 2, 3);
    check_round_trip(list);
    mem_free(list);
    list = mem_printf("[job]\nout = %0192d\n[actor]\nmodel = a b;c#d = e\n", 1);
    check_round_trip(list);
    mem_free(list);
    Params *p = parse("[ppo]\npreset = trl\n[sft]\nlr = 1\n");
    char *echo = params_text(p, true);
    assert_non_null(strstr(echo, "\nlr = 1                                   ; line 4\n"));
    assert_non_null(strstr(echo, "\nkl_coef = 0.05                           ; preset\n"));
    assert_non_null(strstr(echo, "\ngamma = 1                                ; default\n"));
    mem_free(echo);
    params_free(&p);
}

static void test_hash(void **state) {
    (void)state;
    Params *p = parse("[job]\nseed = 1\n"), *q = parse("[job]\nseed = 2\n");
    char *a = params_hash(p), *b = params_hash(q);
    assert_int_equal(strlen(a), 64);
    assert_string_not_equal(a, b);
    mem_free(a);
    mem_free(b);
    params_free(&p);
    params_free(&q);
}

static void count_line(const char *line, void *user) {
    if (!strcmp(line, "ppo.lam = 1 (preset openrlhf; default 0.95)")) *(int *)user += 100;
    if (strstr(line, "ppo.lr ")) *(int *)user += 10000; // set by the user
    ++*(int *)user;
}

static void test_presets(void **state) {
    (void)state;
    int lines = 0;
    Params *p = parse("[ppo]\npreset = openrlhf\nlr = 4e-6\n");
    assert_true(p->ppo.lam == 1 && p->ppo.clip_reward == 10 && p->ppo.train.lr == 4e-6);
    assert_int_equal(p->ppo.whiten, WHITEN_GLOBAL);
    assert_true(p->ppo.train.warmup_ratio == 0.03 && p->ppo.train.warmup_steps == 0);
    params_list_preset(p, count_line, &lines);
    assert_int_equal(lines, 100 + 10); // 11 rows, less the one that the user set
    params_free(&p);
    p = parse("[ppo]\npreset = openrlhf\nwarmup_steps = 9\n");
    assert_true(p->ppo.train.warmup_ratio == 0 && p->ppo.train.warmup_steps == 9);
    params_free(&p);
    p = parse("[ppo]\npreset = verl\n");
    assert_true(p->ppo.dual_clip == 3 && p->ppo.train.beta2 == 0.999 && p->ppo.eps_value == 0.5);
    assert_true(p->ppo.lam == 1 && p->ppo.kl_coef == 0.001 && p->ppo.clip_reward == 0);
    params_free(&p);
    char *given[] = {"ppo.preset=verl", "ppo.lam=0.5"}; // the command line wins too
    assert_int_equal(params_parse("t.in", "", 0, 2, given, &p), DS_OK);
    assert_true(p->ppo.lam == 0.5 && p->ppo.dual_clip == 3);
    params_free(&p);
    p = parse("[ppo]\npreset = deepspeed-chat\n");
    assert_true(p->generate.greedy && p->sft.loss_on == LOSS_ON_ALL);
    params_free(&p);
    p = parse("[ppo]\npreset = trl\n");
    assert_true(p->ppo.ppo_epochs == 4 && p->generate.temperature == 0.7 && p->ppo.train.warmup_steps == 0);
    params_free(&p);
    refuses(
        "[ppo]\npreset = verk\n",
        "t.in:2: [ppo] preset = verk: expected one of none, deepspeed-chat, openrlhf, trl, verl; did you mean 'verl'?");
}

// The template with its keys switched on. Owner: caller.
static char *live_template(void) {
    char *text = printed(print_template, NULL), *live = mem_strdup(text);
    int64_t n = 0;
    for (const char *s = text; *s; s++)
        if (*s != ';' || s == text || s[-1] != '\n') live[n++] = *s;
    live[n] = 0;
    free(text);
    return live;
}

static void test_template(void **state) {
    (void)state;
    char *text = printed(print_template, NULL), *file, *live = live_template();
    size_t bytes;
    err_clear();
    if (file_read_all("inputs/params.in", 1 << 20, &file, &bytes)) fail_msg("%s", err_text());
    assert_string_equal(file, text);
    Params *p = parse(text), *q = parse(live);
    for (int k = 0; k < params_table()->n_keys; k++) {
        const ParamKey *key = &params_table()->keys[k];
        char *name = mem_printf("%s.%s", key->section, key->name), *v = keytable_format(params_table(), p, k);
        char *w = keytable_format(params_table(), q, k);
        if (!params_was_set(q, name)) fail_msg("%s is not in the template", name);
        assert_string_equal(v, w);
        mem_free(name);
        mem_free(v);
        mem_free(w);
    }
    params_free(&p);
    params_free(&q);
    mem_free(live);
    mem_free(file);
    free(text);
}

static void test_keys(void **state) {
    (void)state;
    char *text = printed(print_keys, NULL);
    for (int k = 0; k < params_table()->n_keys; k++) {
        const ParamKey *key = &params_table()->keys[k];
        char *line = mem_printf("\n%s.%s = %s\n", key->section, key->name, key->fallback);
        if (!strstr(text, line)) fail_msg("--keys lacks %s", line);
        assert_true(strlen(key->help) > 5);
        assert_int_equal(keytable_find(params_table(), key->section, key->name), k); // no key twice
        mem_free(line);
    }
    free(text);
}

static void test_files(void **state) {
    (void)state;
    Params *p = NULL;
    char *big = MEM_NEW(char, (1 << 20) + 2);
    memset(big, '\n', (1 << 20) + 1);
    err_clear();
    assert_int_equal(file_make_dirs("build/tmp"), DS_OK);
    assert_int_equal(params_load("build/tmp/absent.in", 0, NULL, &p), DS_ERR_PARAMS);
    assert_non_null(strstr(err_text(), "build/tmp/absent.in"));
    err_clear();
    assert_int_equal(params_load("build/tmp", 0, NULL, &p), DS_ERR_PARAMS);
    err_clear();
    assert_int_equal(file_write_atomic("build/tmp/big.in", big, (1 << 20) + 1), DS_OK);
    assert_int_equal(params_load("build/tmp/big.in", 0, NULL, &p), DS_ERR_PARAMS);
    assert_non_null(strstr(err_text(), "1048577 bytes"));
    err_clear();
    assert_int_equal(file_write_atomic("build/tmp/big.in", big, 1 << 20), DS_OK);
    assert_int_equal(params_load("build/tmp/big.in", 0, NULL, &p), DS_OK);
    assert_string_equal(p->job.out, "out/big");
    params_free(&p);
    file_remove_tree("build/tmp/big.in");
    mem_free(big);
}

// Cuts the template anywhere and replaces, inserts or removes bytes: never a crash, always a struct or one message.
static void test_fuzz(void **state) {
    (void)state;
    static const char nasty[] = "[];#=:,\\\"\n\r\t \0\xff"
                                "09ax.";
    char *live = live_template();
    int64_t n = (int64_t)strlen(live), accepted = 0;
    char *text = MEM_NEW(char, n + 1);
    enum { ROUNDS = 10000 };
    for (uint64_t round = 0; round < ROUNDS; round++) {
        uint32_t w[4];
        rng_words(99, RNG_MINIBATCH, round, 0, w);
        int64_t bytes = round % 2 ? n : w[0] % (n + 1), start = round % 3 ? 0 : w[3] % (bytes + 1);
        memcpy(text, live, (size_t)bytes);
        for (uint32_t edit = 0; edit < w[1] % 4 && bytes; edit++) {
            uint32_t e[4];
            rng_words(99, RNG_MINIBATCH, round, edit + 1, e);
            text[e[0] % bytes] = nasty[e[1] % (sizeof nasty - 1)];
        }
        Params *p = NULL;
        err_clear();
        Err err = params_parse("t.in", text + start, (size_t)(bytes - start), 0, NULL, &p);
        assert_true((err == DS_OK) == (p != NULL) && (err == DS_ERR_PARAMS) == (err_text()[0] != 0));
        if (err) assert_memory_equal(err_text(), "t.in", 4);
        accepted += !err;
        params_free(&p);
    }
    err_clear();
    assert_in_range(accepted, ROUNDS / 50, ROUNDS * 9 / 10); // both outcomes were reached
    mem_free(text);
    mem_free(live);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_defaults),
                                       cmocka_unit_test(test_values),
                                       cmocka_unit_test(test_unknown_words),
                                       cmocka_unit_test(test_types_and_ranges),
                                       cmocka_unit_test(test_broken_lines),
                                       cmocka_unit_test(test_not_built),
                                       cmocka_unit_test(test_contradictions),
                                       cmocka_unit_test(test_warmup),
                                       cmocka_unit_test(test_overrides),
                                       cmocka_unit_test(test_paths),
                                       cmocka_unit_test(test_echo),
                                       cmocka_unit_test(test_hash),
                                       cmocka_unit_test(test_presets),
                                       cmocka_unit_test(test_template),
                                       cmocka_unit_test(test_keys),
                                       cmocka_unit_test(test_files),
                                       cmocka_unit_test(test_fuzz)};
    return cmocka_run_group_tests_name("params", tests, NULL, NULL);
}
