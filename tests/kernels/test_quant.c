// test_quant.c: quantize and dequantize against plain scalar computation, and the stated error.
#include <float.h>

#include "ref.h"

enum { BLOCK = KERNEL_QUANT_BLOCK };

// What n elements become: the contract's formula, an element at a time.
static void plain(int bits, DType dt, const float *x, float *want, float *scale, int64_t n) {
    const float most = bits == 8 ? 127.0f : 7.0f;
    for (int64_t first = 0; first < n; first += BLOCK) {
        const int64_t last = ds_min(first + BLOCK, n);
        float top = 0.0f;
        for (int64_t i = first; i < last; i++) top = isfinite(x[i]) ? fmaxf(top, fabsf(x[i])) : NAN;
        for (int64_t i = first; i < last; i++)
            if (!isfinite(x[i])) top = NAN;
        scale[first / BLOCK] = isnan(top) ? NAN : fmaxf(top / most, FLT_MIN);
        for (int64_t i = first; i < last; i++) {
            const float y = scale[first / BLOCK] * nearbyintf(x[i] / scale[first / BLOCK]);
            want[i] = dt == DS_F32 ? y : bf16_to_f32(f32_to_bf16(y));
        }
    }
}

// Owner: caller, mem_free.
static float *trip(const Kernels *k, int bits, DType dt, const float *x, int64_t n) {
    const size_t bytes = kernels_quant_bytes(bits, n);
    Dev *px = dev_floats(k, dt, x, n), *packet = k->mem_create(bytes + 1, MEM_COMM), *py = dev_new(k, dt, n + 1);
    unsigned char guard = 0xa5, after;
    k->copy_in(dev_at(packet, bytes), &guard, 1);
    k->quantize(bits, packet, dt, px, n);
    k->dequantize(bits, dt, py, packet, n);
    k->copy_out(&after, dev_cat(packet, bytes), 1);
    assert_int_equal(after, guard);
    float *y = host_floats(k, dt, py, n + 1);
    assert_true(y[n] == 0.0f);
    DEV_FREE(k, px, packet, py);
    return y;
}

// The worst error in scales.
static double check(int threads, int bits, DType dt, const float *x, int64_t n) {
    const Kernels *k = ref_open(threads);
    float *want = mem_array(n, sizeof *want), *scale = mem_array(ds_ceil_div(n, BLOCK), sizeof *scale);
    float *got = trip(k, bits, dt, x, n);
    double worst = 0.0;
    plain(bits, dt, x, want, scale, n);
    for (int64_t i = 0; i < n; i++) {
        if (got[i] != want[i] && !(isnan(got[i]) && isnan(want[i])))
            fail_msg("int%d %s: element %lld of %lld (%.9g) became %.9g, expected %.9g", bits, dtype_name(dt),
                     (long long)i, (long long)n, (double)x[i], (double)got[i], (double)want[i]);
        const double step = scale[i / BLOCK], ulp = dt == DS_BF16 ? fabs((double)x[i]) / 256.0 : 0.0;
        if (isfinite(step)) worst = fmax(worst, (fabs((double)got[i] - x[i]) - ulp) / step);
    }
    mem_free(got), mem_free(want), mem_free(scale);
    return worst;
}

static void numbers(void **state) {
    (void)state;
    const int64_t sizes[] = {0, 1, 2, 15, 17, 128, 129, 255, 256, 257, 1000, 70001};
    for (int bits = 8; bits >= 4; bits -= 4)
        for (int d = 0; d < DS_COUNT(ref_dtypes); d++) {
            double worst = 0.0;
            for (int s = 0; s < DS_COUNT(sizes); s++) {
                float *x = rand_floats(sizes[s], 3.0, (uint64_t)(200 + s));
                for (int threads = 1; threads <= 2; threads++)
                    worst = fmax(worst, check(threads, bits, ref_dtypes[d], x, sizes[s]));
                mem_free(x);
            }
            printf("  int%d %-4s worst error %.6f scales\n", bits, dtype_name(ref_dtypes[d]), worst);
            assert_true(worst <= 0.50001 && worst > 0.4);
        }
}

// Zeros, halves that round to even, the smallest and largest numbers.
static void edges(void **state) {
    (void)state;
    float x[6 * BLOCK] = {0};
    for (int i = 0; i < BLOCK; i++) {
        x[BLOCK + i] = (float)(i % 13 - 6) + 0.5f;
        x[2 * BLOCK + i] = (float)(i - 128) * FLT_MIN / 128.0f;
        x[3 * BLOCK + i] = (float)(i - 128) * FLT_MIN;
        x[4 * BLOCK + i] = (i % 2 ? 1.0f : -1.0f) * bf16_to_f32(0x7f7f) / (float)(1 + i);
        x[5 * BLOCK + i] = i == 77 ? -1.0f : 0.0f;
    }
    x[BLOCK] = 127.0f, x[BLOCK + 1] = -7.0f;
    for (int i = 0; i < DS_COUNT(x); i++) x[i] = bf16_to_f32(f32_to_bf16(x[i])); // the same in both dtypes
    for (int bits = 8; bits >= 4; bits -= 4)
        for (int d = 0; d < DS_COUNT(ref_dtypes); d++)
            assert_true(check(1, bits, ref_dtypes[d], x, DS_COUNT(x)) <= 0.50001);
    const Kernels *k = ref_open(1);
    float *y = trip(k, 8, DS_F32, x, DS_COUNT(x));
    for (int i = 0; i < BLOCK; i++) assert_true(y[i] == 0.0f);
    for (int i = 2; i < BLOCK; i++) assert_true(y[BLOCK + i] == nearbyintf(x[BLOCK + i])); // scale 1: halves to even
    mem_free(y);
}

// One bad element: its block is all NaN, its neighbours are not touched.
static void not_finite(void **state) {
    (void)state;
    const float bad[] = {NAN, -NAN, INFINITY, -INFINITY};
    for (int b = 0; b < DS_COUNT(bad); b++)
        for (int bits = 8; bits >= 4; bits -= 4)
            for (int d = 0; d < DS_COUNT(ref_dtypes); d++) {
                float *x = rand_floats(3 * BLOCK, 1.0, 301);
                x[BLOCK + 60 * b + 7] = bad[b];
                const Kernels *k = ref_open(1);
                float *y = trip(k, bits, ref_dtypes[d], x, 3 * BLOCK);
                for (int i = 0; i < 3 * BLOCK; i++) assert_true(isnan(y[i]) == (i / BLOCK == 1));
                mem_free(x), mem_free(y);
            }
}

// Packets of whole blocks lie end to end: a part quantized alone is the same bytes as in the whole.
static void cut(void **state) {
    (void)state;
    const Kernels *k = ref_open(1);
    enum { N = 5 * BLOCK, FIRST = 2 * BLOCK };
    Dev *x = dev_rand(k, DS_F32, N, 1.0, 302);
    for (int bits = 8; bits >= 4; bits -= 4) {
        const size_t bytes = kernels_quant_bytes(bits, N), at = kernels_quant_bytes(bits, FIRST);
        Dev *whole = k->mem_create(bytes, MEM_COMM), *parts = k->mem_create(bytes, MEM_COMM);
        assert_int_equal(bytes, 5 * (4 + 32 * bits));
        k->quantize(bits, whole, DS_F32, x, N);
        k->quantize(bits, parts, DS_F32, x, FIRST);
        k->quantize(bits, dev_at(parts, at), DS_F32, dev_cat(x, FIRST * sizeof(float)), N - FIRST);
        expect_same_bits(k, "parts of a packet", whole, parts, bytes);
        DEV_FREE(k, whole, parts);
    }
    k->mem_destroy(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(numbers), cmocka_unit_test(edges), cmocka_unit_test(not_finite),
                                       cmocka_unit_test(cut)};
    return cmocka_run_group_tests_name("quant", tests, NULL, NULL);
}
