// arch_known.h: shapes of published models by name, for new models and for plans. Not collective.
#ifndef DS_ARCH_KNOWN_H
#define DS_ARCH_KNOWN_H

#include "arch/arch.h"

// The shape of a language model of that name ("opt-350m", "llama-2-7b"). DS_ERR_PARAMS with the closest name.
Err arch_known(const char *name, Arch *a);

#endif
