// stage_ppo.h: stage 3: PPO (algorithms.md section 3).
#ifndef DS_STAGE_PPO_H
#define DS_STAGE_PPO_H

#include "stage/stage.h"

extern const Stage stage_ppo;

#endif
