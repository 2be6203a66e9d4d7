// rng.h: counter-based randomness (Philox4x32-10, Salmon et al. 2011). A draw is a pure function of (seed, purpose, id,
// draw): never of a rank, a batch slot or the order of calls. Not collective.
#ifndef DS_RNG_H
#define DS_RNG_H

#include "base/types.h"

// What a number is for. Values are part of what a seed means: never renumber.
typedef enum {
    RNG_INIT = 1,    // id: hash of the tensor's name; draw: element
    RNG_SHUFFLE = 2, // id: epoch and stage; draw: position
    RNG_SAMPLE = 3,  // id: sample id (prompt, sample number, visit); draw: position of the token
    RNG_SPLIT = 4,   // id: data set; draw: record
    RNG_LORA = 5,
    RNG_MINIBATCH = 6 // id: iteration and epoch of PPO; draw: position
} RngPurpose;

// Four 32-bit words.
void rng_words(uint64_t seed, RngPurpose purpose, uint64_t id, uint64_t draw, uint32_t out[4]);

// In (0, 1): (b + 1/2) / 2^52 with 52 random bits b, never 0 or 1.
double rng_uniform(uint64_t seed, RngPurpose purpose, uint64_t id, uint64_t draw);

// Standard normal (Box-Muller). Plain arithmetic throughout: the same bits on any CPU.
double rng_normal(uint64_t seed, RngPurpose purpose, uint64_t id, uint64_t draw);
// out[i] = scale * rng_normal of draw first + i, rounded once: several at a time, the same bits.
void rng_normals(uint64_t seed, RngPurpose purpose, uint64_t id, uint64_t first, int64_t n, double scale, float *out);

// perm[0..n-1] = a permutation of 0..n-1 keyed by (seed, purpose, id).
void rng_permutation(uint64_t seed, RngPurpose purpose, uint64_t id, int64_t n, int64_t *perm);

#endif
