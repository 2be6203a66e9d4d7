// scale.c: dynamic loss scale.
#include "optim/scale.h"

#include <math.h>

ScaleCfg scale_defaults(void) { return (ScaleCfg){.start = 65536, .window = 100, .hysteresis = 2, .floor = 1}; }

void scale_init(const ScaleCfg *cfg, ScaleState *state) {
    *state = (ScaleState){.scale = cfg->start, .hysteresis = cfg->hysteresis};
}

void scale_update(const ScaleCfg *cfg, ScaleState *state, bool overflow) {
    if (overflow) {
        state->clean = 0;
        if (state->hysteresis > 1) state->hysteresis--;
        else state->scale = fmax(state->scale / 2, cfg->floor);
        return;
    }
    if (++state->clean % cfg->window != 0) return;
    state->scale *= 2;
    state->hysteresis = cfg->hysteresis;
}
