// params_diff.c: the table of what keys mean for a run that has begun.
#include "params/params_diff.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

enum { SFT = 1 << STAGE_SFT, RM = 1 << STAGE_RM, PPO = 1 << STAGE_PPO, ALL = SFT | RM | PPO };

// The first row that fits counts: "section.key", "*.key" (in every section that has it) or "section.*".
typedef struct {
    const char *key;
    ChangeKind kind;
    int stages;
} Row;

static const Row rows[] = {
    {"job.name", CHANGE_FREE, ALL},
    {"job.out", CHANGE_SILENT, ALL}, // the folder was moved, or is named another way
    {"job.stages", CHANGE_STAGES, ALL},
    {"job.device", CHANGE_BITS, ALL},
    {"job.seed", CHANGE_RESULTS, ALL},
    {"job.isa", CHANGE_BITS, ALL},
    {"job.threads", CHANGE_FREE, ALL},
    {"job.bind", CHANGE_FREE, ALL},
    {"job.max_hours", CHANGE_FREE, ALL},
    {"job.stop_margin_minutes", CHANGE_FREE, ALL},
    {"job.max_bad_steps", CHANGE_FREE, ALL},
    {"job.deadline_minutes", CHANGE_FREE, ALL},
    {"job.verify", CHANGE_FREE, ALL},
    {"job.accept_changes", CHANGE_SILENT, ALL},
    {"job.show_prompts", CHANGE_FREE, ALL},
    {"layout.zero", CHANGE_FREE, ALL},
    {"layout.*", CHANGE_BITS, ALL},
    // A model's place in memory.
    {"*.zero_stage", CHANGE_FREE, ALL},
    {"*.recompute", CHANGE_FREE, ALL},
    {"*.keep_layers", CHANGE_FREE, ALL},
    {"*.offload", CHANGE_FREE, ALL},
    {"actor.model", CHANGE_FILE, ALL},
    {"critic.model", CHANGE_FILE, PPO},
    {"reference.model", CHANGE_FILE, PPO},
    {"reward.model", CHANGE_FILE, RM | PPO},
    {"actor.*", CHANGE_RESULTS, ALL},
    {"critic.*", CHANGE_RESULTS, PPO},
    {"reference.*", CHANGE_RESULTS, PPO},
    {"reward.*", CHANGE_RESULTS, RM | PPO},
    {"data.file", CHANGE_SILENT, ALL}, // the four below are filled in from it
    {"data.sft_file", CHANGE_FILE, SFT},
    {"data.rm_file", CHANGE_FILE, RM},
    {"data.ppo_file", CHANGE_FILE, PPO},
    {"data.ptx_file", CHANGE_FILE, PPO},
    {"data.shuffle", CHANGE_RESULTS, ALL},
    {"data.order_seed", CHANGE_RESULTS, ALL},
    // Of a stage: what is only said or measured, in how many pieces a step is computed, how long it runs.
    {"*.eval_every", CHANGE_FREE, ALL},
    {"*.eval_samples", CHANGE_FREE, ALL},
    {"*.log_every", CHANGE_FREE, ALL},
    {"*.micro_tokens", CHANGE_BITS, ALL},
    {"*.epochs", CHANGE_EXTENT, ALL},
    {"*.max_steps", CHANGE_EXTENT, ALL},
    {"sft.*", CHANGE_RESULTS, SFT},
    {"rm.*", CHANGE_RESULTS, RM},
    {"ppo.preset", CHANGE_SILENT, PPO}, // acts through the keys that it sets
    {"ppo.*", CHANGE_RESULTS, PPO},
    {"generate.batch", CHANGE_FREE, PPO},
    {"generate.kv_block", CHANGE_FREE, PPO},
    {"generate.gather", CHANGE_FREE, PPO},
    {"generate.gather_blocks", CHANGE_FREE, PPO},
    {"generate.release_cache", CHANGE_FREE, PPO},
    {"generate.tensor", CHANGE_BITS, PPO},
    {"generate.*", CHANGE_RESULTS, PPO},
    {"checkpoint.*", CHANGE_FREE, ALL},
    {"machine.*", CHANGE_FREE, ALL},
};

static bool fits(const Row *row, const ParamKey *key) {
    const char *dot = strchr(row->key, '.');
    const size_t n = (size_t)(dot - row->key);
    const bool section =
        !strncmp(row->key, "*", n) || (strlen(key->section) == n && !strncmp(row->key, key->section, n));
    return section && (!strcmp(dot + 1, "*") || !strcmp(dot + 1, key->name));
}

static const Row *find_row(const ParamKey *key) {
    for (int i = 0; i < DS_COUNT(rows); i++)
        if (fits(&rows[i], key)) return &rows[i];
    return NULL;
}

// The stage that a section is of, or all.
static int section_stages(const char *section) {
    if (!strcmp(section, "sft")) return SFT;
    if (!strcmp(section, "rm")) return RM;
    return !strcmp(section, "ppo") || !strcmp(section, "generate") ? PPO : ALL;
}

ChangeKind params_change_kind(int k, int *stages) {
    const ParamKey *key = &params_table()->keys[k];
    const Row *row = find_row(key);
    *stages = section_stages(key->section) & (row ? row->stages : ALL);
    return row ? row->kind : CHANGE_RESULTS;
}

bool params_changes_complete(const char **name) {
    const KeyTable *t = params_table();
    *name = NULL;
    for (int k = 0; k < t->n_keys && !*name; k++)
        if (!find_row(&t->keys[k])) *name = t->keys[k].name;
    for (int i = 0; i < DS_COUNT(rows) && !*name; i++) {
        bool used = false;
        for (int k = 0; k < t->n_keys && !used; k++) used = find_row(&t->keys[k]) == &rows[i];
        if (!used) *name = rows[i].key;
    }
    return !*name;
}

int params_diff(const Params *was, const Params *is, ParamChange **list) {
    const KeyTable *t = params_table();
    int n = 0;
    *list = NULL;
    for (int k = 0; k < t->n_keys; k++) {
        if (was->from[k].origin == KEY_FROM_DEFAULT) continue; // not in the record
        ParamChange c = {.key = &t->keys[k], .was = keytable_format(t, was, k), .is = keytable_format(t, is, k)};
        c.kind = params_change_kind(k, &c.stages);
        if (strcmp(c.was, c.is) != 0) {
            *list = mem_grow(*list, n, n + 1, sizeof **list);
            (*list)[n++] = c;
        } else {
            mem_free(c.was);
            mem_free(c.is);
        }
    }
    return n;
}

void params_diff_free(ParamChange **list, int n) {
    for (int i = 0; i < n; i++) {
        mem_free((*list)[i].was);
        mem_free((*list)[i].is);
    }
    MEM_FREE(*list);
}

bool params_is_more(const ParamChange *c) {
    const double was = strtod(c->was, NULL), is = strtod(c->is, NULL);
    return is == 0 || (was != 0 && is > was);
}
