// stage_sft.h: stage 1: supervised fine-tuning (algorithms.md section 1).
#ifndef DS_STAGE_SFT_H
#define DS_STAGE_SFT_H

#include "stage/stage.h"

extern const Stage stage_sft;

#endif
