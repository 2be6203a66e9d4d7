// params_preset.h: [ppo] preset: the keys in which other programs differ. Not collective.
#ifndef DS_PARAMS_PRESET_H
#define DS_PARAMS_PRESET_H

#include "params/params.h"

// Sets the keys of p->ppo.preset that neither the file nor the command line set, and marks them as the preset's.
void params_preset_apply(Params *p);

#endif
