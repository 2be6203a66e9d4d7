// stage_rm.h: stage 2: the reward model (algorithms.md section 2).
#ifndef DS_STAGE_RM_H
#define DS_STAGE_RM_H

#include "stage/stage.h"

extern const Stage stage_rm;

#endif
