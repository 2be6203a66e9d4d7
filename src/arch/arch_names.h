// arch_names.h: which tensor of a Hugging Face file is which weight. Not collective.
#ifndef DS_ARCH_NAMES_H
#define DS_ARCH_NAMES_H

#include "arch/arch.h"
#include "arch/weights.h"

typedef struct {
    int *source; // [list->n] index into names, in the order of the list
    int lm_head; // index of an LM head that is stored although the arch has `tied` set, else -1
} ArchNames;

// Looks up every weight of `list` in names[n]. Accepted variants: with or without the leading "model.", "transformer."
// or "gpt_neox."; "rwtransformer." in its place (DeepSpeed-Chat's reward models); "score.weight" for "v_head.weight".
// Buffers that are no weights (attention masks, rotary frequencies) are passed over, by an exact list. Anything else
// that is unknown, missing or there twice is DS_ERR_DATA naming it and the closest. Owner of map->source: caller,
// arch_names_free.
Err arch_names_map(const Arch *a, const WeightList *list, const char *const *names, int n, const char *what,
                   ArchNames *map);
void arch_names_free(ArchNames *map);

// Whether names[n] hold a scalar head ("v_head.weight" or "score.weight"): a reward model or critic.
bool arch_names_have_scalar_head(const char *const *names, int n);

#endif
