// test_memory.c: what a rank holds and owns of a model in training, to the byte: how it grows with the layers and falls
// with the zero group; and the same weights, to the bit, where blocks fall to the ranks in unequal parts, some empty.
#include "tiny.h"

// Learned positions: no tables beside the weights. A layer is 111 264 elements, 6.8 quanta of shard.h; embedding and
// head are less than one.
static Arch arch_of(int64_t layers) {
    Arch a;
    arch_family_defaults(&a, ARCH_OPT);
    a.layers = layers, a.width = a.embed_width = 96, a.heads = a.kv_heads = 4, a.head_dim = 24, a.ffn = 384;
    a.vocab = VOCAB, a.max_positions = 64, a.tied = 1, a.init_std = 0.1;
    return a;
}

// So many steps of a new model.
static void train(Model *m, Optim *o, const Arch *arch, DType dt, const Layout *l, int stage, int64_t kept, int steps) {
    model_create(m, kernels, arch, dt, l, (ZeroKeep){.stage = stage, .training = ZERO_TRAINED}, NULL);
    model_init_random(m, 5, -1);
    zero_master_reset(&m->zero);
    optim_create(o, &m->zero, &tiny_optim, -1);
    for (int i = 0; i < steps; i++) {
        optim_begin(o);
        backward(m, l, 2, kept);
        optim_reduce(o);
        optim_apply(o);
    }
}

// ---- bytes ----

typedef struct {
    int64_t weights, gradients, optimizer, comm;
} Held;

// The most that a rank has held at the end of a step.
static Held held(const Arch *arch, DType dt, const Layout *l, int stage) {
    Model m;
    Optim o;
    kernels_mem_forget();
    train(&m, &o, arch, dt, l, stage, arch->layers, 1);
    const Held h = {kernels_mem_peak(MEM_WEIGHTS), kernels_mem_peak(MEM_GRADIENTS), kernels_mem_peak(MEM_OPTIMIZER),
                    kernels_mem_peak(MEM_COMM)};
    optim_destroy(&o);
    model_destroy(&m);
    return h;
}

static void expect(const Held *got, const Held *want, const char *what) {
    if (memcmp(got, want, sizeof *got) != 0)
        fail_msg(
            "%s: %lld weights, %lld gradients, %lld optimizer, %lld communication; expected %lld, %lld, %lld, %lld",
            what, (long long)got->weights, (long long)got->gradients, (long long)got->optimizer, (long long)got->comm,
            (long long)want->weights, (long long)want->gradients, (long long)want->optimizer, (long long)want->comm);
}

// Moments, and what bf16 weights leave off their master weights.
static int64_t optimizer_bytes(DType dt) { return dt == DS_F32 ? 8 : 10; }

// Elements of a block whose owners all have the same number of whole quanta.
static int64_t padded(int64_t n, int64_t owners) { return ds_round_up(n, owners * SHARD_QUANTUM); }

// At stage 3 a layer more is a part more of weights, gradients and moments. Whole are at most two layers' weights at a
// time, so the second layer brings one more place for a whole one, and the third to eighth none. Room for a lease of
// master weights is as large as what a rank owns, which is less than STORE_LEASE here.
static void growth(void **state) {
    (void)state;
    static const int64_t layers[] = {1, 2, 3, 8};
    Layout l;
    layout_create(&l, group_world(), (LayoutWish){0});
    const Arch one = arch_of(1), two = arch_of(2);
    const int64_t whole = padded(arch_param_count(&two) - arch_param_count(&one), group_size(l.zero)),
                  part = whole / group_size(l.zero);
    for (int t = 0; t < 2; t++) {
        const DType dt = t ? DS_BF16 : DS_F32;
        const int64_t e = (int64_t)dtype_bytes(dt);
        const Held first = held(&one, dt, &l, 3);
        for (int i = 0; i < DS_COUNT(layers); i++) {
            const Arch arch = arch_of(layers[i]);
            const int64_t more = layers[i] - 1;
            const Held got = held(&arch, dt, &l, 3),
                       want = {first.weights + more * part * e, first.gradients + more * part * 4,
                               first.optimizer + more * part * optimizer_bytes(dt),
                               first.comm + (more > 0 ? whole * e : 0) + (dt == DS_F32 ? 0 : more * part * 4)};
            char what[64];
            snprintf(what, sizeof what, "%lld layers, %s", (long long)layers[i], dtype_name(dt));
            expect(&got, &want, what);
        }
    }
    layout_destroy(&l);
}

// What a stage partitions over z ranks is 1/z of it, what it does not is whole. The gradients of a step are always
// parts (of stages 0 and 1 too: sums wait there); beside them are those of the micro-batch: whole, or at stages 2 and 3
// the three blocks that are live, and a sum that waits for its neighbour at each level of the tree over a rank's lanes.
static void shares(void **state) {
    (void)state;
    const int ranks = group_size(group_world());
    const Arch arch = arch_of(3);
    WeightList list;
    weights_build(&arch, &list);
    for (int i = 0; i < 2 * ranks && ranks > 1; i++) { // one rank alone sums in place
        const DType dt = i % 2 ? DS_BF16 : DS_F32;
        const int z = 1 + i / 2, waiting = i % 3, turns = 1 << waiting;
        if (ranks % z) continue;
        Layout l;
        layout_create(&l, group_world(), (LayoutWish){.zero = z, .lanes = ranks * turns});
        int64_t lone = 0, all = 0;
        for (int b = 0; b < list.blocks; b++) {
            lone += padded(list.block_count[b], 1);
            all += padded(list.block_count[b], z);
        }
        const int64_t live = all - 2 * padded(list.block_count[1], z); // one of the three layers
        for (int stage = 0; stage < 4; stage++) {
            const Held got = held(&arch, dt, &l, stage);
            const int64_t weights = stage == 0 ? lone : stage == 3 ? all / z : all;
            const Held want = {weights * (int64_t)dtype_bytes(dt),
                               ((stage < 2 ? all : live) + (1 + waiting) * all / z) * 4,
                               (stage == 0 ? lone : all / z) * optimizer_bytes(dt), got.comm};
            char what[96];
            snprintf(what, sizeof what, "stage %d, %s, zero groups of %d of %d, %d lanes each", stage, dtype_name(dt),
                     z, ranks, turns);
            expect(&got, &want, what);
        }
        layout_destroy(&l);
    }
    weights_free(&list);
}

// ---- bits ----

// Elements of the block that fall to `rank`.
static int64_t owned(const Model *m, int block, int rank) {
    int64_t first, n;
    shard_range(&m->zero.map, block, rank, &first, &n);
    return n;
}

// Three steps at a stage that keep some layers' activations; the hash of the weights.
static Xxh128Hex hash_after(const Group *g, int stage, int64_t kept) {
    const Arch arch = arch_of(3);
    Model m;
    Optim o;
    Layout l;
    layout_create(&l, g, (LayoutWish){.lanes = 8});
    train(&m, &o, &arch, DS_F32, &l, stage, kept, 3);
    const int last = group_size(l.zero) - 1;
    if (stage > 0 && last > 0) { // of the embedding and the head only rank 0 has something, of a layer all
        assert_int_equal(owned(&m, 0, last), 0);
        assert_int_equal(owned(&m, 4, last), 0);
        for (int b = 1; b <= 3; b++) assert_true(owned(&m, b, last) < owned(&m, b, 0));
        assert_true(owned(&m, 1, last) > 0 || last > 3);
    }
    int64_t at = 0;
    float *all = MEM_NEW(float, arch_param_count(&arch));
    model_gather(&m);
    for (int i = 0; i < m.weights.n; at += m.weights.w[i++].count)
        model_weight_get(&m, &m.weights.w[i], 0, m.weights.w[i].count, all + at);
    model_release(&m);
    Xxh128Hex hash = hash_xxh128(all, (size_t)at * sizeof *all);
    mem_free(all);
    optim_destroy(&o);
    model_destroy(&m);
    layout_destroy(&l);
    return hash;
}

// Blocks of which the last rank owns less than the others, or nothing; any number of layers kept.
static void uneven_owners(void **state) {
    (void)state;
    const Group *g = group_world();
    Group *alone = group_split(g, group_rank(g), 0);
    const Xxh128Hex want = hash_after(alone, 0, 3);
    for (int stage = 0; stage < 4; stage++) {
        const Xxh128Hex got = hash_after(g, stage, 1 + stage % 3);
        assert_string_equal(got.hex, want.hex);
    }
    group_destroy(&alone);
}

int main(void) {
    world_init();
    if (kernels_open("cpu", "auto", 1, &kernels)) return DS_ERR_BUG;
    const struct CMUnitTest tests[] = {cmocka_unit_test(growth), cmocka_unit_test(shares),
                                       cmocka_unit_test(uneven_owners)};
    int failed = cmocka_run_group_tests_name("memory", tests, NULL, NULL);
    world_finalize();
    return failed;
}
