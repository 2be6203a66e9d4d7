// types.h: the few types that every room shares. No code beyond one-line helpers.
#ifndef DS_TYPES_H
#define DS_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DS_VERSION "0.1.0"

// Element types of weights, activations and files. Values are part of the checkpoint format.
typedef enum { DS_F32 = 0, DS_BF16 = 1, DS_F16 = 2, DS_F64 = 3, DS_I32 = 4, DS_I64 = 5, DS_U8 = 6, DS_U32 = 7 } DType;

// Bytes of one element.
static inline size_t dtype_bytes(DType t) {
    static const size_t bytes[] = {4, 2, 2, 8, 4, 8, 1, 4};
    return bytes[t];
}

// The name as params files and checkpoints spell it ("fp32", "bf16", ...).
static inline const char *dtype_name(DType t) {
    static const char *const names[] = {"fp32", "bf16", "fp16", "fp64", "int32", "int64", "uint8", "uint32"};
    return names[t];
}

// An address in device memory. An incomplete type on purpose: host code can pass it on, never read through it.
typedef struct Dev Dev;

// The address `bytes` after `p`. NULL stays NULL.
static inline Dev *dev_at(Dev *p, size_t bytes) { return p ? (Dev *)((uintptr_t)p + bytes) : NULL; }
static inline const Dev *dev_cat(const Dev *p, size_t bytes) { return p ? (const Dev *)((uintptr_t)p + bytes) : NULL; }

static inline int64_t ds_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t ds_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t ds_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static inline int64_t ds_round_up(int64_t a, int64_t b) { return ds_ceil_div(a, b) * b; }
#define DS_COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

// bf16 <-> fp32, round to nearest even; NaN stays NaN.
static inline float bf16_to_f32(uint16_t h) {
    union {
        uint32_t u;
        float f;
    } v = {.u = (uint32_t)h << 16};
    return v.f;
}
static inline uint16_t f32_to_bf16(float f) {
    union {
        float f;
        uint32_t u;
    } v = {.f = f};
    if ((v.u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((v.u >> 16) | 0x40u);
    return (uint16_t)((v.u + 0x7fffu + ((v.u >> 16) & 1u)) >> 16);
}

#endif
