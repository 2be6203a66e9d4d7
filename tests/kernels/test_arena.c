// test_arena.c: opening a device, device memory, copies and casts, and the guard mode that makes host code crash when
// it reads device memory.
#include "ref.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void opens(void **state) {
    (void)state;
    const Kernels *k = NULL;
    assert_int_equal(kernels_open("cuda", "auto", 1, &k), DS_ERR_PARAMS);
    assert_non_null(strstr(err_text(), "cuda"));
    err_clear();
    assert_int_equal(kernels_open("cpu", "auto", 0, &k), DS_ERR_PARAMS);
    err_clear();
    assert_int_equal(kernels_open("cpu", "avx3", 1, &k), DS_ERR_PARAMS);
    assert_non_null(strstr(err_text(), "avx3"));
    err_clear();
    assert_null(k);
    assert_int_equal(kernels_open("cpu", "auto", 2, &k), DS_OK);
    assert_string_equal(k->name, "cpu");
    assert_non_null(strstr(kernels_describe(), "oneDNN"));
    printf("  %s, bf16 in hardware: %s\n", kernels_describe(), kernels_has_bf16() ? "yes" : "no");
}

static void memory(void **state) {
    (void)state;
    const Kernels *k = ref_open(2);
    static const size_t sizes[] = {0, 1, 63, 64, 100000, 3u << 20, 40000001};
    for (int i = 0; i < DS_COUNT(sizes); i++) {
        Dev *a = k->mem_create(sizes[i], MEM_WEIGHTS), *b = k->mem_create(sizes[i], MEM_WEIGHTS);
        assert_non_null(a);
        assert_int_equal((uintptr_t)kernels_comm_ptr(a) % 64, 0);
        unsigned char *x = mem_alloc(sizes[i]), *y = mem_alloc(sizes[i]);
        memset(y, 1, sizes[i]);
        k->copy_out(y, a, sizes[i]);
        assert_memory_equal(x, y, sizes[i]); // zeroed
        for (size_t j = 0; j < sizes[i]; j++) x[j] = (unsigned char)(j * 31 + j / 255);
        k->copy_in(a, x, sizes[i]);
        k->copy(b, a, sizes[i]);
        k->copy_out(y, b, sizes[i]);
        assert_memory_equal(x, y, sizes[i]);
        if (sizes[i] > 3) {
            k->zero(dev_at(b, 1), sizes[i] - 2);
            k->copy_out(y, b, sizes[i]);
            assert_true(y[0] == x[0] && y[sizes[i] - 1] == x[sizes[i] - 1]);
            for (size_t j = 1; j < sizes[i] - 1; j++) assert_int_equal(y[j], 0);
        }
        mem_free(x), mem_free(y);
        DEV_FREE(k, a, b);
    }
    k->mem_destroy(NULL);
}

static void casts(void **state) {
    (void)state;
    const Kernels *k = ref_open(2);
    static const int64_t sizes[] = {0, 1, 37, 40001};
    static const float special[] = {0.0f,   -0.0f,       INFINITY,    -INFINITY,   3.4e38f,
                                    1e-40f, 1.00390625f, 1.01171875f, -1.00390625f};
    for (int s = 0; s < DS_COUNT(sizes); s++) {
        const int64_t n = sizes[s];
        float *x = mem_array(n, sizeof *x), *y = mem_array(n, sizeof *y);
        for (int64_t i = 0; i < n; i++)
            x[i] = i < DS_COUNT(special) ? special[i] : (float)rng_normal(1, RNG_INIT, 3, (uint64_t)i);
        Dev *a = dev_new(k, DS_F32, n), *h = dev_new(k, DS_BF16, n), *b = dev_new(k, DS_F32, n);
        k->copy_in(a, x, (size_t)n * 4);
        k->cast(DS_BF16, h, DS_F32, a, n);
        k->cast(DS_F32, b, DS_BF16, h, n);
        k->copy_out(y, b, (size_t)n * 4);
        for (int64_t i = 0; i < n; i++) {
            const float want = bf16_to_f32(f32_to_bf16(x[i]));
            if (memcmp(&want, &y[i], 4))
                fail_msg("cast of %.9g: %.9g, expected %.9g", (double)x[i], (double)y[i], (double)want);
        }
        k->cast(DS_F32, b, DS_F32, a, n);
        expect_same_bits(k, "cast to the same", a, b, (size_t)n * 4);
        mem_free(x), mem_free(y);
        DEV_FREE(k, a, h, b);
    }
    const float nan = NAN;
    Dev *a = dev_floats(k, DS_F32, &nan, 1), *h = dev_new(k, DS_BF16, 1);
    k->cast(DS_BF16, h, DS_F32, a, 1);
    float *back = host_floats(k, DS_BF16, h, 1);
    assert_true(isnan(back[0]));
    mem_free(back);
    DEV_FREE(k, a, h);
}

enum { VOCAB = 2000000 };

static void *draw(void *context) {
    const Kernels *k = context;
    const float u = 0.5F;
    Dev *id = k->mem_create(4, MEM_WEIGHTS), *logits = dev_new(k, DS_F32, VOCAB), *at = dev_floats(k, DS_F32, &u, 1);
    k->sample(id, logits, at, 1, VOCAB, VOCAB, 1, 0, 0.5F);
    DEV_FREE(k, id, logits, at);
    return NULL;
}

static int64_t resident_bytes(void) {
    long all = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%ld %ld", &all, &resident), 2);
    fclose(f);
    return resident * sysconf(_SC_PAGESIZE);
}

// Threads that end leave nothing of their scratch memory behind.
static void ended_threads(void **state) {
    (void)state;
    const Kernels *k = ref_open(1);
    int64_t before = 0;
    for (int i = 0; i < 12; i++) {
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, draw, (void *)(uintptr_t)k), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        if (i == 1) before = resident_bytes();
    }
    const int64_t grown = resident_bytes() - before;
    if (grown > 4 * (int64_t)sizeof(float) * VOCAB) fail_msg("10 threads left %lld bytes", (long long)grown);
}

// A child with the guard on (or off) that reads device memory as the host must not; returns the signal that ended it, 0
// if none.
static int signal_of_child(const char *guard) {
    fflush(NULL);
    const pid_t pid = fork();
    if (pid == 0) {
        setenv("DSCHAT_GUARD", guard, 1);
        signal(SIGSEGV, SIG_DFL);
        signal(SIGBUS, SIG_DFL);
        const Kernels *k = NULL;
        if (kernels_open("cpu", "auto", 1, &k) != DS_OK) _exit(3);
        const float one = 1.0f;
        float out = 0.0f;
        Dev *p = k->mem_create(64, MEM_WEIGHTS);
        k->copy_in(p, &one, 4);
        k->scale(p, 3.0f, 16);
        k->copy_out(&out, p, 4);
        if (out != 3.0f || *(float *)kernels_comm_ptr(p) != 3.0f) _exit(4); // kernels and collectives work on
        _exit(*(volatile float *)p == 3.0f ? 0 : 5);                        // the host must not
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status)) assert_int_equal(WEXITSTATUS(status), 0);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void guard(void **state) {
    (void)state;
    assert_int_equal(signal_of_child("1"), SIGSEGV);
    assert_int_equal(signal_of_child("0"), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(opens), cmocka_unit_test(memory), cmocka_unit_test(casts),
                                       cmocka_unit_test(ended_threads), cmocka_unit_test(guard)};
    return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}
