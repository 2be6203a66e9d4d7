// arch_hf.h: Hugging Face's config.json <-> Arch. Not collective.
//
// Model types: opt, gpt2, bloom, gpt_neox, llama, mistral, qwen2, qwen3. Missing keys take transformers' defaults; old
// (rope_theta, rope_scaling) and new (rope_parameters) spellings are accepted. A value that changes the arithmetic and
// that an Arch cannot express is refused with its name and value (DS_ERR_DATA), never approximated.
#ifndef DS_ARCH_HF_H
#define DS_ARCH_HF_H

#include "arch/arch.h"

// config.json's text -> *a, checked by arch_check. `what` (a file name) begins messages. `head` is ARCH_HEAD_LM; the
// keys dschat_score_mean and dschat_score_std (a reward model exported by us) are read too.
Err arch_hf_parse(const char *json, size_t bytes, const char *what, Arch *a);

// The config.json of an arch, as transformers 4 and 5 read it: fresh memory, owner: caller, mem_free. `dtype` is that
// of the tensors; bos, eos: token ids, -1 for none. What is printed parses to the same arch; an arch that its family's
// config cannot say is DS_ERR_DATA with the field's name.
Err arch_hf_print(const Arch *a, DType dtype, int64_t bos, int64_t eos, char **json);

#endif
