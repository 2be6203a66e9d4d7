// sampler.h: the random numbers of sampling, and when an answer ends. Not collective.
#ifndef DS_SAMPLER_H
#define DS_SAMPLER_H

#include "gen/decode.h"

// The uniform in (0, 1) that draws token number `at` of request `id`.
float sampler_uniform(uint64_t seed, uint64_t id, int64_t at);

// Why the answer r, whose last token was just appended, ends; GEN_STOP_NONE if it goes on.
GenStop sampler_stop(const GenCfg *cfg, const GenRequest *r);

#endif
