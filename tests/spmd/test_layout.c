// test_layout.c: one training step of a tiny model under every data layout: gradients of 16 sequences cut into any
// number of ranks and micro-batches agree to 1e-6; every ZeRO stage, zero group and number of ranks gives the same bits
// of the weights for equal lanes, also where weights or gradients travel quantized, which moves the weights nearly as
// exact ones do; the same prompts give the same answers.
#include "tiny.h"

static Layout world; // of all ranks

static Arch tiny_arch(void) {
    Arch a;
    arch_family_defaults(&a, ARCH_LLAMA);
    a.layers = 3, a.width = a.embed_width = 32, a.heads = 4, a.kv_heads = 2, a.head_dim = a.rotary_dim = 8;
    a.ffn = 48, a.vocab = VOCAB, a.max_positions = 64, a.tied = 1, a.init_std = 0.2;
    return a;
}

// The summed gradient without padding. Owner: caller, mem_free.
static float *gradient(const Group *g, int64_t micro, bool library, int64_t *n) {
    Arch arch = tiny_arch();
    Model m;
    Layout layout;
    layout_create(&layout, g, (LayoutWish){0});
    layout.library = library;
    model_create(&m, kernels, &arch, DS_F32, &layout, (ZeroKeep){.training = ZERO_TRAINED}, NULL);
    model_init_random(&m, 5, -1);
    backward(&m, &layout, micro, arch.layers);
    zero_grad_finish(&m.zero);
    *n = arch_param_count(&arch);
    float *x = MEM_NEW(float, *n);
    int64_t at = 0;
    for (int i = 0; i < m.weights.n; at += m.weights.w[i++].count) {
        const Weight *w = &m.weights.w[i];
        kernels->copy_out(x + at, zero_grad_sum(&m.zero, w->block, w->offset), (size_t)w->count * sizeof *x);
    }
    model_destroy(&m);
    layout_destroy(&layout);
    return x;
}

// All ranks with any micro-batch against one rank with all 16 sequences at once (with 1, 2 and 4 ranks: 1 x 16, 2 x 8,
// 4 x 4).
static void gradient_layouts(void **state) {
    (void)state;
    const Group *g = group_world();
    if (SEQUENCES % group_size(g)) skip();
    Group *alone = group_split(g, group_rank(g), 0);
    int64_t n, share = SEQUENCES / group_size(g), micros[] = {share, ds_max(1, share / 2), 1};
    float *want = gradient(alone, SEQUENCES, false, &n);
    double worst = 0;
    for (int i = 0; i < 2 * DS_COUNT(micros); i++) { // in our tree, then by MPI
        float *got = gradient(g, micros[i % DS_COUNT(micros)], i >= DS_COUNT(micros), &n);
        double diff = 0, norm = 0;
        for (int64_t e = 0; e < n; e++) {
            diff += pow((double)got[e] - want[e], 2);
            norm += pow(want[e], 2);
        }
        assert_true(norm > 0);
        worst = fmax(worst, sqrt(diff / norm));
        mem_free(got);
    }
    printf("    %d ranks: worst relative error of the gradient %.2e\n", group_size(g), worst);
    assert_true(worst < 1e-6);
    mem_free(want);
    group_destroy(&alone);
}

// A layout of the ranks of `g` to train under.
typedef struct {
    const Group *g;
    int stage, zero, lanes;
    int recomputed; // layers
    bool library;
    ZeroQuant quant;
} Case;

// The weights that the optimizer updates, of a rank that owns all of them.
static void masters(const Model *m, float *all) {
    for (int i = 0; i < m->weights.n; all += m->weights.w[i++].count) {
        const Weight *w = &m->weights.w[i];
        kernels->copy_out(all, zero_master_lease(&m->zero, w->block, w->offset, w->count), (size_t)w->count * 4);
    }
}

// Five steps; the hash of the weights. moved: NULL, or (one rank alone) by how much each master weight has moved.
static Xxh128Hex train(const Case *c, DType dt, double *norm, float *moved) {
    Arch arch = tiny_arch();
    Model m;
    Optim o;
    Layout layout;
    layout_create(&layout, c->g, (LayoutWish){.zero = c->zero, .lanes = c->lanes});
    layout.library = c->library;
    model_create(&m, kernels, &arch, dt, &layout, (ZeroKeep){c->stage, ZERO_TRAINED, c->quant}, NULL);
    model_init_random(&m, 5, -1);
    zero_master_reset(&m.zero);
    optim_create(&o, &m.zero, &tiny_optim, -1);
    int64_t n = 0, total = arch_param_count(&arch);
    float *all = MEM_NEW(float, total);
    if (moved) masters(&m, moved);
    for (int i = 0; i < 5; i++) {
        optim_begin(&o);
        backward(&m, &layout, 1, arch.layers - c->recomputed);
        *norm = optim_reduce(&o);
        optim_apply(&o);
    }
    if (moved) masters(&m, all);
    for (int64_t i = 0; moved && i < total; i++) moved[i] = all[i] - moved[i];
    model_gather(&m);
    for (int i = 0; i < m.weights.n; i++) {
        model_weight_get(&m, &m.weights.w[i], 0, m.weights.w[i].count, all + n);
        n += m.weights.w[i].count;
    }
    model_release(&m);
    Xxh128Hex hash = hash_xxh128(all, (size_t)total * sizeof *all);
    mem_free(all);
    optim_destroy(&o);
    model_destroy(&m);
    layout_destroy(&layout);
    return hash;
}

// Every stage, zero group, recomputation and number of ranks gives the bits of one rank with as many lanes; so many
// layouts. Weights that travel quantized do at stage 3 alone.
static int every_layout(const Group *alone, int lanes, DType dt, ZeroQuant quant) {
    const Group *g = group_world();
    const int ranks = group_size(g), lowest = quant.weight_bits ? 3 : 0;
    int cases = 0;
    double want_norm, norm;
    Xxh128Hex want = train(&(Case){alone, lowest, .lanes = lanes, .quant = quant}, dt, &want_norm, NULL);
    for (int stage = lowest; stage < 4; stage++)
        for (int zero = 1; zero <= ranks; zero++) {
            const Case c = {g, stage, zero, lanes, (stage + zero + lanes) % 2, false, quant};
            if (ranks % zero || layout_check(ranks, (LayoutWish){.zero = zero, .lanes = lanes})) continue;
            Xxh128Hex got = train(&c, dt, &norm, NULL);
            if (norm != want_norm || strcmp(got.hex, want.hex) != 0)
                fail_msg("%d lanes, %s, int%d weights, int%d gradients, stage %d, zero group of %d of %d: %s, norm "
                         "%.17g; expected %s, %.17g",
                         lanes, dtype_name(dt), quant.weight_bits, quant.gradient_bits, stage, zero, ranks, got.hex,
                         norm, want.hex, want_norm);
            cases++;
        }
    err_clear();
    return cases;
}

static void same_weights(void **state) {
    (void)state;
    const Group *g = group_world();
    const int ranks = group_size(g);
    Group *alone = group_split(g, group_rank(g), 0);
    int cases = 0;
    for (int lanes = 1; lanes <= SEQUENCES; lanes *= 2)
        for (int t = 0; t < 2; t++) cases += every_layout(alone, lanes, t ? DS_BF16 : DS_F32, (ZeroQuant){0});
    // MPI's own sum: other bits, the same at stages 0 and 1.
    double norms[2];
    Xxh128Hex by_library[2];
    for (int stage = 0; stage < 2; stage++)
        by_library[stage] = train(&(Case){g, stage, .library = true}, DS_F32, &norms[stage], NULL);
    assert_true(norms[0] == norms[1]);
    assert_string_equal(by_library[0].hex, by_library[1].hex);
    printf("    %d ranks: %d layouts\n", ranks, cases);
    assert_true(cases >= 8 || ranks == 3);
    group_destroy(&alone);
}

// Every block of this model is smaller than a quantum of shard.h, so that all layouts above have ranks that own nothing
// of any block: all but the first of a zero group. (test_memory.c has blocks that are split.)
static void empty_shards(void **state) {
    (void)state;
    Arch arch = tiny_arch();
    Model m;
    model_create(&m, kernels, &arch, DS_F32, &world, (ZeroKeep){.stage = 3, .training = ZERO_TRAINED}, NULL);
    for (int b = 0; b < m.zero.map.blocks; b++)
        for (int rank = 0; rank < group_size(world.zero); rank++) {
            int64_t first, n;
            shard_range(&m.zero.map, b, rank, &first, &n);
            assert_int_equal(n, rank == 0 ? m.weights.block_count[b] : 0);
        }
    model_destroy(&m);
}

static const ZeroQuant quants[] = {{8, 0}, {0, 8}, {0, 4}, {8, 4}};

static void same_weights_quantized(void **state) {
    (void)state;
    const Group *g = group_world();
    Group *alone = group_split(g, group_rank(g), 0);
    int cases = 0;
    for (int q = 0; q < DS_COUNT(quants); q++) {
        for (int t = 0; t < 2; t++) cases += every_layout(alone, 4, t ? DS_BF16 : DS_F32, quants[q]);
        cases += every_layout(alone, 1, DS_F32, quants[q]);
    }
    printf("    %d ranks: %d layouts\n", group_size(g), cases);
    assert_true(cases >= 20 || group_size(g) > 4 || group_size(g) == 3);
    group_destroy(&alone);
}

// Five steps with what travels quantized move the weights nearly as five exact ones do: the difference as a share of
// the way (1 would be as far off as not moving). Adam divides the rounding of small gradients by their own size.
static void near_exact(void **state) {
    (void)state;
    static const double most[] = {0.3, 0.15, 0.5, 0.5}; // measured: 0.22, 0.07, 0.33, 0.36
    const Group *g = group_world();
    Group *alone = group_split(g, group_rank(g), 0);
    Arch arch = tiny_arch();
    const int64_t n = arch_param_count(&arch);
    float *want = MEM_NEW(float, n), *got = MEM_NEW(float, n);
    double norm;
    train(&(Case){alone, 3, .lanes = 4}, DS_F32, &norm, want);
    for (int q = 0; q < DS_COUNT(quants); q++) {
        double diff = 0, way = 0;
        train(&(Case){alone, 3, .lanes = 4, .quant = quants[q]}, DS_F32, &norm, got);
        for (int64_t i = 0; i < n; i++) diff += pow((double)got[i] - want[i], 2), way += pow(want[i], 2);
        printf("    int%d weights, int%d gradients (0: exact): %.4f of the way\n", quants[q].weight_bits,
               quants[q].gradient_bits, sqrt(diff / way));
        assert_true(diff > 0);
        assert_true(sqrt(diff / way) < most[q]);
    }
    mem_free(want);
    mem_free(got);
    group_destroy(&alone);
}

// What a rank computes with at stage 3 is what travelled, within half a scale of the weights; what it owns is exact.
static void travelled(void **state) {
    (void)state;
    Arch arch = tiny_arch();
    Model exact, m;
    model_create(&exact, kernels, &arch, DS_F32, &world, (ZeroKeep){0}, NULL);
    model_create(&m, kernels, &arch, DS_F32, &world, (ZeroKeep){.stage = 3, .quant = {8, 0}}, NULL);
    model_init_random(&exact, 5, -1);
    model_init_random(&m, 5, -1);
    model_gather(&m);
    int64_t changed = 0;
    for (int b = 0; b < m.zero.map.blocks; b++) {
        const int64_t n = m.zero.map.count[b];
        float *want = MEM_NEW(float, n), *got = MEM_NEW(float, n);
        kernels->copy_out(want, store_at(&exact.zero.w, b, 0), (size_t)n * sizeof *want);
        for (int i = 0; i < m.weights.n; i++)
            if (m.weights.w[i].block == b)
                model_weight_get(&m, &m.weights.w[i], 0, m.weights.w[i].count, got + m.weights.w[i].offset);
        for (int64_t at = 0; at < n; at += KERNEL_QUANT_BLOCK) {
            const int64_t last = ds_min(at + KERNEL_QUANT_BLOCK, n);
            double top = 0;
            for (int64_t i = at; i < last; i++) top = fmax(top, fabs(want[i]));
            for (int64_t i = at; i < last; i++) {
                assert_true(fabs((double)got[i] - want[i]) <= 0.50001 * top / 127);
                changed += got[i] != want[i];
            }
        }
        int64_t first, count;
        shard_range(&m.zero.map, b, m.zero.shard, &first, &count);
        if (count) kernels->copy_out(got, zero_own_weight(&m.zero, b, first), (size_t)count * sizeof *got);
        assert_memory_equal(got, want + first, (size_t)count * sizeof *got);
        mem_free(want);
        mem_free(got);
    }
    assert_true(changed > arch_param_count(&arch) / 2);
    model_release(&m);
    model_destroy(&m);
    model_destroy(&exact);
}

// A gradient that is not finite on one rank is seen in the norm.
static void bad_gradient(void **state) {
    (void)state;
    const Group *g = group_world();
    const float bad[] = {INFINITY, NAN};
    Arch arch = tiny_arch();
    for (int i = 0; i < 2 * DS_COUNT(bad); i++) {
        Model m;
        model_create(&m, kernels, &arch, DS_F32, &world, (ZeroKeep){2, ZERO_TRAINED, {0, i % 2 ? 4 : 8}}, NULL);
        zero_step_begin(&m.zero);
        for (int b = m.zero.map.blocks - 1; b >= 0; b--) {
            zero_grad_open(&m.zero, b);
            if (b == 1 && group_rank(g) == group_size(g) - 1)
                kernels->copy_in(zero_grad(&m.zero, b, W_NORM1_W), &bad[i / 2], sizeof *bad);
            zero_grad_close(&m.zero, b);
        }
        zero_grad_finish(&m.zero);
        assert_true(isnan(zero_grad_sumsq(&m.zero)));
        model_destroy(&m);
    }
}

// Bytes of n elements of `bytes` that travel with so many bits (0: as they are).
static int64_t sent(int64_t n, int bits, int64_t bytes) { return bits ? n * bits / 8 + n / 256 * 4 : n * bytes; }

// What one step with one micro-batch sends, by kind, is what theory says: with P elements after padding and d ranks,
// stages 0 to 2 send P (d - 1) / d twice; stage 3 also gathers every layer but the last two again for the backward
// pass. Quantized, an element is 1 or 1/2 byte and 4 bytes of a scale for every 256.
static void sent_bytes(void **state) {
    (void)state;
    const int d = group_size(group_world());
    Arch arch = tiny_arch();
    arch.layers = 5;
    for (int i = 0; i < 4 * (1 + DS_COUNT(quants)) && d > 1; i++) {
        const int stage = i % 4;
        const ZeroQuant quant = i < 4 ? (ZeroQuant){0} : quants[i / 4 - 1];
        if (quant.weight_bits && stage < 3) continue;
        Model m;
        Optim o;
        const OptimCfg cfg = {.beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .sched = {.form = SCHED_CONSTANT, .lr = 1e-2}};
        model_create(&m, kernels, &arch, DS_BF16, &world, (ZeroKeep){stage, ZERO_TRAINED, quant}, NULL);
        model_init_random(&m, 5, -1);
        optim_create(&o, &m.zero, &cfg, -1);
        const int64_t before[] = {coll_bytes_sent_as(COLL_REDUCE_SCATTER), coll_bytes_sent_as(COLL_ALLGATHER)};
        optim_begin(&o);
        backward(&m, &world, SEQUENCES, arch.layers);
        optim_reduce(&o);
        optim_apply(&o);
        const int64_t reduced = coll_bytes_sent_as(COLL_REDUCE_SCATTER) - before[0],
                      gathered = coll_bytes_sent_as(COLL_ALLGATHER) - before[1],
                      all = shard_total(&m.zero.grad_map) / d * (d - 1);
        int64_t again = 0; // layers 3, 2, 1
        for (int b = 1; b <= 3; b++) again += m.zero.grad_map.part[b] * (d - 1);
        assert_int_equal(reduced, sent(all, quant.gradient_bits, 4));
        if (stage == 0) assert_int_equal(gathered, all * 4);
        else assert_int_equal(gathered, sent(all + (stage == 3 ? again : 0), quant.weight_bits, 2));
        const int64_t trained = coll_bytes_sent_as(COLL_ALLGATHER);
        model_gather(&m); // into the generation layout: once, at stage 3
        model_release(&m);
        assert_int_equal(coll_bytes_sent_as(COLL_ALLGATHER) - trained,
                         stage == 3 ? sent(all, quant.weight_bits, 2) : 0);
        optim_destroy(&o);
        model_destroy(&m);
    }
}

// ---- generation ----

// Every batch size gives the same tokens and the same bits of log-prob, and these are what training computes for the
// same tokens.
static void same_answers(void **state) {
    (void)state;
    Arch arch = tiny_arch();
    Model m;
    model_create(&m, kernels, &arch, DS_F32, &world, (ZeroKeep){0}, NULL);
    model_init_random(&m, 5, -1);
    static int32_t ids[3][PROMPTS * NEW];
    static float logp[3][PROMPTS * NEW];
    static int64_t count[3][PROMPTS];
    const int64_t slots[] = {1, 7, 32}, prefill[] = {LONGEST, 40, 1000};
    for (int c = 0; c < 3; c++) generate(&m, 0, 1, slots[c], prefill[c], ids[c], logp[c], count[c]);
    for (int c = 1; c < 3; c++) {
        assert_memory_equal(count[0], count[c], sizeof count[0]);
        assert_memory_equal(ids[0], ids[c], sizeof ids[0]);
        assert_memory_equal(logp[0], logp[c], sizeof logp[0]);
    }
    same_as_training(&m, ids[0], logp[0], count[0]);
    // The ranks together, each with its share: the same tokens.
    const Group *all_ranks = group_world();
    static int32_t mine[PROMPTS * NEW];
    static float unused[PROMPTS * NEW];
    static int64_t mine_count[PROMPTS], all[PROMPTS * NEW];
    generate(&m, group_rank(all_ranks), group_size(all_ranks), 5, 64, mine, unused, mine_count);
    for (int64_t i = 0; i < PROMPTS * NEW; i++) all[i] = mine[i];
    coll_sum_i64(all_ranks, all, PROMPTS * NEW);
    for (int64_t i = 0; i < PROMPTS * NEW; i++) assert_int_equal(all[i], ids[0][i]);
    model_destroy(&m);
}

int main(void) {
    world_init();
    layout_create(&world, group_world(), (LayoutWish){0});
    if (kernels_open("cpu", "auto", 1, &kernels)) return DS_ERR_BUG;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradient_layouts),       cmocka_unit_test(same_weights), cmocka_unit_test(empty_shards),
        cmocka_unit_test(same_weights_quantized), cmocka_unit_test(near_exact),   cmocka_unit_test(travelled),
        cmocka_unit_test(bad_gradient),           cmocka_unit_test(sent_bytes),   cmocka_unit_test(same_answers)};
    int failed = cmocka_run_group_tests_name("layout", tests, NULL, NULL);
    layout_destroy(&world);
    world_finalize();
    return failed;
}
