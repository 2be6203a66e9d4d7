// arch_names.c: see arch_names.h. A name is tried as it stands and with each base prefix before it.
#include "arch/arch_names.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "base/text.h"

static const char *const prefixes[] = {"", "model.", "transformer.", "gpt_neox."};

// Buffers of transformers' modules, without the prefix; # stands for a layer's number.
static const char *const buffers[] = {
    "h.#.attn.bias",
    "h.#.attn.masked_bias",
    "layers.#.attention.bias",
    "layers.#.attention.masked_bias",
    "layers.#.attention.rotary_emb.inv_freq",
    "layers.#.self_attn.rotary_emb.inv_freq",
    "rotary_emb.inv_freq",
};

static bool fits_pattern(const char *pattern, const char *name) {
    for (; *pattern; pattern++) {
        if (*pattern != '#') {
            if (*name++ != *pattern) return false;
        } else {
            if (!isdigit((unsigned char)*name)) return false;
            while (isdigit((unsigned char)*name)) name++;
        }
    }
    return *name == 0;
}

static bool is_buffer(const char *name) {
    for (int p = 0; p < DS_COUNT(prefixes); p++) {
        size_t n = strlen(prefixes[p]);
        for (int b = 0; b < DS_COUNT(buffers) && !strncmp(name, prefixes[p], n); b++)
            if (fits_pattern(buffers[b], name + n)) return true;
    }
    return false;
}

static const char *strip_wrapper(const char *name) {
    static const char wrapper[] = "rwtransformer.";
    return strncmp(name, wrapper, sizeof wrapper - 1) ? name : name + sizeof wrapper - 1;
}

// Index of the weight that a file calls `name`, -1 if none.
static int find_weight(const WeightList *list, const char *name) {
    char full[256];
    if (!strcmp(name, "score.weight")) name = "v_head.weight";
    for (int p = 0; p < DS_COUNT(prefixes); p++) {
        if (snprintf(full, sizeof full, "%s%s", prefixes[p], name) >= (int)sizeof full) return -1;
        const Weight *w = weights_find_name(list, full);
        if (w) return (int)(w - list->w);
    }
    return -1;
}

static bool is_tied_head(const Arch *a, const char *name) {
    return a->tied && a->head == ARCH_HEAD_LM &&
           !strcmp(name, a->family == ARCH_NEOX ? "embed_out.weight" : "lm_head.weight");
}

static Err unknown_name(const Arch *a, const WeightList *list, const char *name, const char *what) {
    const char **all = MEM_NEW(const char *, list->n);
    for (int i = 0; i < list->n; i++) all[i] = list->w[i].name;
    const char *closest = text_closest(name, all, list->n);
    Err err =
        err_set(DS_ERR_DATA, "%s: tensor %.200s is no weight of this %s model%s%s", what, name,
                arch_family_name((ArchFamily)a->family), closest ? "; the closest is " : "", closest ? closest : "");
    mem_free(all);
    return err;
}

static Err missing_name(const Weight *w, const char *const *names, int n, const char *what) {
    const char *closest = text_closest(w->name, names, n);
    return err_set(DS_ERR_DATA, "%s: weight %s is missing%s%s", what, w->name,
                   closest ? "; the closest tensor is " : "", closest ? closest : "");
}

Err arch_names_map(const Arch *a, const WeightList *list, const char *const *names, int n, const char *what,
                   ArchNames *map) {
    Err err = DS_OK;
    *map = (ArchNames){.source = MEM_NEW(int, list->n), .lm_head = -1};
    for (int i = 0; i < list->n; i++) map->source[i] = -1;
    for (int i = 0; i < n; i++) {
        const char *name = strip_wrapper(names[i]);
        int w = find_weight(list, name);
        if (w < 0 && is_tied_head(a, name)) map->lm_head = i;
        else if (w < 0 && !is_buffer(name)) DS_TRY(unknown_name(a, list, names[i], what));
        if (w < 0) continue;
        DS_CHECK(map->source[w] < 0, DS_ERR_DATA, "%s: tensors %s and %s are the same weight", what,
                 names[map->source[w]], names[i]);
        map->source[w] = i;
    }
    for (int i = 0; i < list->n; i++)
        if (map->source[i] < 0) DS_TRY(missing_name(&list->w[i], names, n, what));
done:
    if (err) arch_names_free(map);
    return err;
}

void arch_names_free(ArchNames *map) {
    mem_free(map->source);
    *map = (ArchNames){.lm_head = -1};
}

bool arch_names_have_scalar_head(const char *const *names, int n) {
    for (int i = 0; i < n; i++)
        if (!strcmp(strip_wrapper(names[i]), "v_head.weight") || !strcmp(names[i], "score.weight")) return true;
    return false;
}
