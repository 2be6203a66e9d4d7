// gguf_quant.c: see gguf_quant.h. Layouts of a block (bytes in order; d, m, dmin are fp16):
//
//     Q8_0  d, 32 x int8                              x = q d
//     Q4_0  d, 16 bytes: low nibbles are elements 0-15, high ones 16-31          x = (q - 8) d
//     Q4_1  d, m, 16 bytes likewise                   x = q d + m
//     Q4_K  d, dmin, 12 bytes of 6-bit scales and minima of 8 sub-blocks of 32, 128 bytes: each 32 hold two sub-blocks
//           x = (d scale) q - (dmin min)
//     Q6_K  128 bytes of low nibbles, 64 of high pairs of bits, 16 x int8 scales of 16 elements, d     x = (d scale) (q
//     - 32)
#include "io/gguf_quant.h"

#include <string.h>

#include "io/f16.h"

typedef struct {
    const char *name;
    int elements, bytes;
} TypeInfo; // bytes = 0: known by name only

static const TypeInfo types[] = {
    [0] = {"F32", 1, 4},       [1] = {"F16", 1, 2},     [2] = {"Q4_0", 32, 18},    [3] = {"Q4_1", 32, 20},
    [6] = {"Q5_0", 0, 0},      [7] = {"Q5_1", 0, 0},    [8] = {"Q8_0", 32, 34},    [9] = {"Q8_1", 0, 0},
    [10] = {"Q2_K", 0, 0},     [11] = {"Q3_K", 0, 0},   [12] = {"Q4_K", 256, 144}, [13] = {"Q5_K", 0, 0},
    [14] = {"Q6_K", 256, 210}, [15] = {"Q8_K", 0, 0},   [16] = {"IQ2_XXS", 0, 0},  [17] = {"IQ2_XS", 0, 0},
    [18] = {"IQ3_XXS", 0, 0},  [19] = {"IQ1_S", 0, 0},  [20] = {"IQ4_NL", 0, 0},   [21] = {"IQ3_S", 0, 0},
    [22] = {"IQ2_S", 0, 0},    [23] = {"IQ4_XS", 0, 0}, [24] = {"I8", 0, 0},       [25] = {"I16", 0, 0},
    [26] = {"I32", 0, 0},      [27] = {"I64", 0, 0},    [28] = {"F64", 0, 0},      [29] = {"IQ1_M", 0, 0},
    [30] = {"BF16", 1, 2},     [34] = {"TQ1_0", 0, 0},  [35] = {"TQ2_0", 0, 0},    [39] = {"MXFP4", 0, 0},
};

const char *gguf_quant_name(uint32_t type) { return type < DS_COUNT(types) ? types[type].name : NULL; }

bool gguf_quant_block(uint32_t type, int64_t *elements, size_t *bytes) {
    if (type >= DS_COUNT(types) || !types[type].bytes) return false;
    *elements = types[type].elements;
    *bytes = (size_t)types[type].bytes;
    return true;
}

static uint16_t load_u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }
static float load_f16(const uint8_t *p) { return f16_to_f32(load_u16(p)); }

static void unpack_q8_0(const uint8_t *p, float *out) {
    float d = load_f16(p);
    for (int i = 0; i < 32; i++) out[i] = (float)(int8_t)p[2 + i] * d;
}

static void unpack_q4_0(const uint8_t *p, float *out) {
    float d = load_f16(p);
    for (int i = 0; i < 16; i++) {
        out[i] = (float)((p[2 + i] & 15) - 8) * d;
        out[16 + i] = (float)((p[2 + i] >> 4) - 8) * d;
    }
}

static void unpack_q4_1(const uint8_t *p, float *out) {
    float d = load_f16(p), m = load_f16(p + 2);
    for (int i = 0; i < 16; i++) {
        float low = (float)(p[4 + i] & 15) * d, high = (float)(p[4 + i] >> 4) * d;
        out[i] = low + m;
        out[16 + i] = high + m;
    }
}

// Sub-blocks 0-3 keep 6 bits each in bytes 0-3 (scales) and 4-7 (minima); 4-7 have their low 4 bits in bytes 8-11 and
// the high 2 in the top bits of those of 0-3.
static void q4_k_scale(const uint8_t *s, int j, int *scale, int *min) {
    if (j < 4) {
        *scale = s[j] & 63;
        *min = s[j + 4] & 63;
    } else {
        *scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
        *min = (s[j + 4] >> 4) | (s[j] >> 6) << 4;
    }
}

static void unpack_q4_k(const uint8_t *p, float *out) {
    float d = load_f16(p), dmin = load_f16(p + 2);
    const uint8_t *scales = p + 4, *q = p + 16;
    for (int j = 0; j < 8; j++) {
        int scale, min;
        q4_k_scale(scales, j, &scale, &min);
        float ds = d * (float)scale, dm = dmin * (float)min;
        for (int i = 0; i < 32; i++) {
            int nibble = q[j / 2 * 32 + i] >> (j % 2 * 4) & 15;
            float x = ds * (float)nibble;
            out[j * 32 + i] = x - dm;
        }
    }
}

// Each half of 128 elements: 4 rows of 32; row r takes nibble r / 2 of byte (r % 2) * 32 + i and bit pair r of high
// byte i.
static void unpack_q6_k(const uint8_t *p, float *out) {
    const uint8_t *low = p, *high = p + 128, *scales = p + 192;
    float d = load_f16(p + 208);
    for (int e = 0; e < 256; e++) {
        int half = e / 128, r = e % 128 / 32, i = e % 32;
        int nibble = low[half * 64 + r % 2 * 32 + i] >> (r / 2 * 4) & 15;
        int pair = high[half * 32 + i] >> (r * 2) & 3;
        float ds = d * (float)(int8_t)scales[e / 16];
        out[e] = ds * (float)((nibble | pair << 4) - 32);
    }
}

void gguf_quant_to_f32(uint32_t type, const char *data, int64_t blocks, float *out) {
    int64_t elements;
    size_t bytes;
    if (!gguf_quant_block(type, &elements, &bytes)) err_fatal("GGUF type %u has no reader", type);
    const uint8_t *p = (const uint8_t *)data;
    for (int64_t b = 0; b < blocks; b++, p += bytes, out += elements) {
        switch (type) {
        case GGUF_T_F32: memcpy(out, p, 4); break;
        case GGUF_T_F16: *out = load_f16(p); break;
        case GGUF_T_BF16: *out = bf16_to_f32(load_u16(p)); break;
        case GGUF_T_Q8_0: unpack_q8_0(p, out); break;
        case GGUF_T_Q4_0: unpack_q4_0(p, out); break;
        case GGUF_T_Q4_1: unpack_q4_1(p, out); break;
        case GGUF_T_Q4_K: unpack_q4_k(p, out); break;
        default: unpack_q6_k(p, out);
        }
    }
}
