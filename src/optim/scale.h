// scale.h: the dynamic loss scale of fp16 training, by DeepSpeed's rule (algorithms.md section 4). Not collective:
// every rank reports the same overflow and so holds the same state.
#ifndef DS_SCALE_H
#define DS_SCALE_H

#include "base/types.h"

typedef struct {
    double start;       // 65536
    int64_t window;     // steps without overflow after which the scale doubles: 100
    int64_t hysteresis; // overflows that are borne until the scale halves: the hysteresis-th one does: 2
    double floor;       // 1
} ScaleCfg;

// Part of the checkpoint.
typedef struct {
    double scale;       // the loss is multiplied by it, gradients are divided
    int64_t clean;      // steps since the last overflow (or the start)
    int64_t hysteresis; // overflows left; the last one, and those after it, halve
} ScaleState;

// The defaults above.
ScaleCfg scale_defaults(void);

void scale_init(const ScaleCfg *cfg, ScaleState *state);

// After a step. Overflow (the step is skipped): uses up one of the hysteresis, else halves the scale, down to the
// floor. No overflow: every `window` such steps in a row double the scale and restore the hysteresis.
void scale_update(const ScaleCfg *cfg, ScaleState *state, bool overflow);

#endif
