// arch_known.c: one row a model.
#include "arch/arch_known.h"

#include <string.h>

#include "base/text.h"

static const struct {
    const char *name;
    ArchFamily family;
    int64_t layers, width, heads, kv_heads, ffn, positions, vocab;
    bool tied;
} known[] = {{"opt-125m", ARCH_OPT, 12, 768, 12, 12, 3072, 2048, 50272, true},
             {"opt-350m", ARCH_OPT, 24, 1024, 16, 16, 4096, 2048, 50272, true},
             {"opt-1.3b", ARCH_OPT, 24, 2048, 32, 32, 8192, 2048, 50272, true},
             {"opt-2.7b", ARCH_OPT, 32, 2560, 32, 32, 10240, 2048, 50272, true},
             {"opt-6.7b", ARCH_OPT, 32, 4096, 32, 32, 16384, 2048, 50272, true},
             {"opt-13b", ARCH_OPT, 40, 5120, 40, 40, 20480, 2048, 50272, true},
             {"opt-30b", ARCH_OPT, 48, 7168, 56, 56, 28672, 2048, 50272, true},
             {"opt-66b", ARCH_OPT, 64, 9216, 72, 72, 36864, 2048, 50272, true},
             {"opt-175b", ARCH_OPT, 96, 12288, 96, 96, 49152, 2048, 50272, true},
             {"smollm2-135m", ARCH_LLAMA, 30, 576, 9, 3, 1536, 8192, 49152, true},
             {"smollm2-360m", ARCH_LLAMA, 32, 960, 15, 5, 2560, 8192, 49152, true},
             {"llama-2-7b", ARCH_LLAMA, 32, 4096, 32, 32, 11008, 4096, 32000, false},
             {"llama-2-13b", ARCH_LLAMA, 40, 5120, 40, 40, 13824, 4096, 32000, false},
             {"llama-2-70b", ARCH_LLAMA, 80, 8192, 64, 8, 28672, 4096, 32000, false}};

Err arch_known(const char *name, Arch *a) {
    const char *names[DS_COUNT(known)];
    for (int i = 0; i < DS_COUNT(known); i++) {
        names[i] = known[i].name;
        if (strcmp(name, known[i].name) != 0) continue;
        arch_family_defaults(a, known[i].family);
        a->layers = known[i].layers;
        a->width = a->embed_width = known[i].width;
        a->heads = known[i].heads;
        a->kv_heads = known[i].kv_heads;
        a->head_dim = a->width / a->heads;
        if (a->pos == ARCH_POS_ROPE) a->rotary_dim = a->head_dim;
        a->ffn = known[i].ffn;
        a->max_positions = known[i].positions;
        a->vocab = known[i].vocab;
        a->tied = known[i].tied;
        if (strcmp(name, "opt-350m") == 0) a->embed_width = 512, a->pre_norm = a->final_norm = 0;
        return arch_check(a, name);
    }
    const char *near = text_closest(name, names, DS_COUNT(known));
    return err_set(DS_ERR_PARAMS,
                   "arch = %.40s is not known; known are opt-125m ... opt-175b, smollm2-*, llama-2-*%s%s%s", name,
                   near ? " (did you mean " : "", near ? near : "", near ? "?)" : "");
}
