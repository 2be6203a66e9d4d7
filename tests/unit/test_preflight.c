// test_preflight.c: which file each model of a stage begins with, and what the disk must hold.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cmocka.h>

#include "arch/arch_known.h"
#include "base/file.h"
#include "base/mem.h"
#include "stage/preflight_disk.h"
#include "stage/role.h"

#define OUT "build/tmp/preflight-unit"

static Params *parse(const char *text) {
    Params *p = NULL;
    if (params_parse("t.in", text, strlen(text), 0, NULL, &p)) fail_msg("%s", err_text());
    return p;
}

// ---- where models come from ----

enum { SFT = 1 << STAGE_SFT, RM = 1 << STAGE_RM, ALL = SFT | RM | 1 << STAGE_PPO };

static void begins_with(void **state) {
    (void)state;
    static const struct {
        const char *given; // letters of the models that params name
        int products;
        StageKind stage;
        JobModel model;
        const char *path; // NULL: random weights
    } all[] = {
        {"", 0, STAGE_SFT, MODEL_ACTOR, NULL},
        {"acfr", 0, STAGE_SFT, MODEL_ACTOR, "a.h5"},
        {"a", ALL, STAGE_SFT, MODEL_ACTOR, "a.h5"}, // never its own product
        {"acfr", ALL, STAGE_RM, MODEL_REWARD, "r.h5"},
        {"acf", ALL, STAGE_RM, MODEL_REWARD, "o/models/sft.h5"},
        {"acf", RM, STAGE_RM, MODEL_REWARD, "a.h5"},
        {"cf", RM, STAGE_RM, MODEL_REWARD, NULL},
        {"acfr", SFT, STAGE_PPO, MODEL_ACTOR, "o/models/sft.h5"},
        {"acfr", RM, STAGE_PPO, MODEL_ACTOR, "a.h5"},
        {"cfr", RM, STAGE_PPO, MODEL_ACTOR, NULL},
        {"acfr", SFT, STAGE_PPO, MODEL_REFERENCE, "f.h5"},
        {"acr", SFT, STAGE_PPO, MODEL_REFERENCE, "o/models/sft.h5"},
        {"acr", RM, STAGE_PPO, MODEL_REFERENCE, "a.h5"},
        {"acfr", RM, STAGE_PPO, MODEL_REWARD, "o/models/rm.h5"},
        {"acfr", SFT, STAGE_PPO, MODEL_REWARD, "r.h5"},
        {"acf", SFT, STAGE_PPO, MODEL_REWARD, NULL},
        {"acfr", ALL, STAGE_PPO, MODEL_CRITIC, "c.h5"},
        {"afr", ALL, STAGE_PPO, MODEL_CRITIC, "o/models/rm.h5"},
        {"afr", SFT, STAGE_PPO, MODEL_CRITIC, "r.h5"},
        {"af", SFT, STAGE_PPO, MODEL_CRITIC, "o/models/sft.h5"}, // of a checker's reward
        {"af", 0, STAGE_PPO, MODEL_CRITIC, "a.h5"},
        {"f", 0, STAGE_PPO, MODEL_CRITIC, NULL},
    };
    for (int i = 0; i < DS_COUNT(all); i++) {
        char text[512] = "[job]\nout = o\n";
        static const char *const models[] = {"actor", "critic", "reference", "reward"};
        for (int m = 0; m < DS_COUNT(models); m++)
            if (strchr(all[i].given, "acfr"[m]))
                snprintf(text + strlen(text), sizeof text - strlen(text), "[%s]\nmodel = %c.h5\n", models[m],
                         "acfr"[m]);
        Params *p = parse(text);
        char *path = role_path(p, all[i].products, all[i].stage, all[i].model);
        if (strcmp(path ? path : "-", all[i].path ? all[i].path : "-") != 0)
            fail_msg("case %d: %s, expected %s", i, path ? path : "random weights", all[i].path);
        mem_free(path);
        params_free(&p);
    }
}

// ---- bytes ----

// OPT-125M has 125 239 296 weights, its layers four matrices of 768 x 768 for attention.
static void needs(void **state) {
    (void)state;
    Params *p = parse("[actor]\ndtype = bf16\nlora_rank = 8\nlora_modules = attention\n[critic]\ndtype = fp32\n");
    DiskNeed d = {0};
    Arch a;
    assert_int_equal(arch_known("opt-125m", &a), DS_OK);
    disk_need_product(&d, &a, &p->actor.common, false);
    assert_int_equal(d.products, 2 * 125239296ll);
    disk_need_product(&d, &a, &p->critic.common, true); // added: a model and its average
    assert_int_equal(d.products, 2 * 125239296ll + 2 * 4 * 125239296ll);
    disk_need_checkpoint(&d, STAGE_SFT, &a, &p->critic.common, false);
    assert_int_equal(d.checkpoint[STAGE_SFT], 12 * 125239296ll);
    disk_need_checkpoint(&d, STAGE_PPO, &a, &p->critic.common, true);
    assert_int_equal(d.checkpoint[STAGE_PPO], 16 * 125239296ll);
    assert_int_equal(d.checkpoint[STAGE_RM], 0);
    params_free(&p);
}

// Of adapters alone only those are in a checkpoint: two factors of rank 8 beside each matrix.
static void needs_adapters(void **state) {
    (void)state;
    Params *p = parse("[actor]\nlora_rank = 8\nlora_modules = attention\nonly_optimize_lora = yes\n");
    DiskNeed d = {0};
    Arch a;
    assert_int_equal(arch_known("opt-125m", &a), DS_OK);
    disk_need_checkpoint(&d, STAGE_PPO, &a, &p->actor.common, false);
    assert_int_equal(d.checkpoint[STAGE_PPO], 12 * (12 * 4 * 2 * 8 * 768));
    params_free(&p);
}

// ---- room ----

static uint64_t free_bytes;
int statvfs(const char *path, struct statvfs *v) {
    (void)path;
    *v = (struct statvfs){.f_bavail = free_bytes, .f_frsize = 1};
    return 0;
}

static void put_file(const char *path, size_t bytes) {
    char *x = mem_array((int64_t)bytes, 1);
    memset(x, 7, bytes);
    assert_int_equal(file_write_atomic(path, x, bytes), DS_OK);
    mem_free(x);
}

// Where `need` bytes are free it fits, with one less not.
static void expect(const char *keys, int64_t products, int64_t sft, int64_t rm, uint64_t need, const char *says) {
    char text[512];
    snprintf(text, sizeof text, "[job]\nout = " OUT "/run\n[checkpoint]\n%s", keys);
    Params *p = parse(text);
    const DiskNeed d = {products, {sft, rm, 0}};
    for (int i = 0; i < 2; i++) {
        char *words = NULL;
        free_bytes = need - (uint64_t)i;
        err_clear();
        if (disk_check(&d, p, &words) != (i ? DS_ERR_IO : DS_OK)) fail_msg("%s: with %d less: %s", keys, i, err_text());
        if (i) assert_non_null(strstr(err_text(), "the run needs 1 B more"));
        if (!words || !strstr(words, says)) fail_msg("\"%s\" does not say \"%s\"", words ? words : "", says);
        mem_free(words);
    }
    err_clear();
    params_free(&p);
}

static void room(void **state) {
    (void)state;
    static const char asked[] = "keep = 3\nevery_minutes = 0\nevery_steps = 0\n"; // one, when the job is told to stop
    assert_int_equal(file_remove_tree(OUT), DS_OK);
    assert_int_equal(file_make_dirs(OUT), DS_OK);
    expect("keep = 2\n", 900, 0, 0, 900, "products of 900 B");
    expect("keep = 2\n", 0, 300, 100, 900, "up to 3 checkpoints of 300 B"); // of the stage that has the largest
    expect("keep = 2\n", 50, 100, 300, 950, "up to 3 checkpoints of 300 B");
    expect("keep = 3\nevery_minutes = 0\nevery_steps = 5\n", 0, 300, 0, 1200, "up to 4 checkpoints of");
    expect("keep = 3\nevery_minutes = 5\n", 0, 300, 0, 1200, "up to 4 checkpoints of");
    expect(asked, 20, 300, 0, 320, "up to 1 checkpoints of");
    // what lies there goes before as much is written again, but for the one that is being written
    assert_int_equal(file_make_dirs(OUT "/run/checkpoints/sft-5"), DS_OK);
    put_file(OUT "/run/checkpoints/sft-5/x", 1 << 20);
    expect("keep = 2\n", 7, 1 << 20, 0, 7 + (2 << 20), "up to 3 checkpoints of");
    expect("keep = 2\n", 7, 1 << 18, 0, 7 + (1 << 18), "up to 3 checkpoints of");
    expect(asked, 7, 1 << 20, 0, 7 + (1 << 20), "up to 1 checkpoints of");
    assert_int_equal(file_remove_tree(OUT "/run"), DS_OK);
}

// Nothing is left to do, or nothing known of it: no words, and a full disk is no error.
static void nothing_needed(void **state) {
    (void)state;
    Params *p = parse("[job]\nout = " OUT "\n");
    char *words = NULL;
    free_bytes = 0;
    assert_int_equal(disk_check(&(DiskNeed){0}, p, &words), DS_OK);
    assert_null(words);
    params_free(&p);
}

static void folders(void **state) {
    (void)state;
    static const struct {
        const char *out, *words; // NULL: fine
    } all[] = {{"preflight-unit-none", NULL},
               {OUT "/a/b/c", NULL},
               {OUT "/file/run", "file is not a folder"},
               {OUT "/file", "file is not a folder"}};
    const DiskNeed d = {1, {0}};
    free_bytes = 1;
    put_file(OUT "/file", 1);
    for (int i = 0; i < DS_COUNT(all); i++) {
        char text[256], *words = NULL;
        snprintf(text, sizeof text, "[job]\nout = %s\n", all[i].out);
        Params *p = parse(text);
        const Err err = disk_check(&d, p, &words);
        assert_int_equal(err, all[i].words ? DS_ERR_IO : DS_OK);
        if (err && !strstr(err_text(), all[i].words)) fail_msg("\"%s\"", err_text());
        err_clear();
        mem_free(words);
        params_free(&p);
    }
    assert_int_equal(file_remove_tree(OUT), DS_OK);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(begins_with),    cmocka_unit_test(needs),
                                       cmocka_unit_test(needs_adapters), cmocka_unit_test(room),
                                       cmocka_unit_test(nothing_needed), cmocka_unit_test(folders)};
    return cmocka_run_group_tests_name("preflight", tests, NULL, NULL);
}
