// test_plan.c: what --plan says of a job of OPT-125M's shape, against figures worked out here from the shape that is
// published: 12 layers of width 768, 12 heads, 125 239 296 weights; with a scalar head 768 more.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "base/err.h"
#include "comm/world.h"
#include "gen/hybrid.h"
#include "plan/plan.h"

#define COUNT 125239296.0
#define SCALAR (COUNT + 768)
#define LAYERS 12
#define WIDTH 768
#define PROMPT 300
#define ANSWER 100
#define LENGTH (PROMPT + ANSWER)

// No data set: a sample is as long as a prompt and its answer.
static const char base[] =
    "[data]\nfile = build/tmp/none.h5\n[actor]\narch = opt-125m\n"
    "[sft]\nglobal_batch = 32\nmicro_tokens = 2048\n[rm]\nglobal_batch = 16\nmicro_tokens = 2048\n"
    "[ppo]\nrollout_batch = 16\nsamples_per_prompt = 2\nglobal_batch = 8\nppo_epochs = 3\nmicro_tokens = 2048\n"
    "[generate]\nmax_prompt = 300\nmax_answer = 100\nbatch = 4\n"
    "[machine]\nflops = 1e12\nbandwidth = 5e10\nnetwork = 1e10\nlink = 2e10\n";

// The plan with up to three keys more; each as on a command line.
static Plan plan(int ranks, char *a, char *b, char *c) {
    char *keys[] = {a, b, c};
    Params *p = NULL;
    Plan x;
    int n = 0;
    while (n < 3 && keys[n]) n++;
    if (params_parse("t.in", base, strlen(base), n, keys, &p) || plan_make(p, ranks, &x)) fail_msg("%s", err_text());
    params_free(&p);
    return x;
}

static void near(double x, double want, double share, const char *what) {
    if (!(x >= want * (1 - share) && x <= want * (1 + share))) fail_msg("%s: %.9g, expected %.9g", what, x, want);
}

// Of `tokens` tokens in sequences of `length`: each weight once, and each key and value that a token sees, half of them
// in the mean.
static double forward(double weights, double tokens, double length) {
    return 2 * weights * tokens + 4 * LAYERS * WIDTH * tokens * length / 2;
}

static void arithmetic(void **state) {
    (void)state;
    const double sft = forward(COUNT, 32 * LENGTH, LENGTH), rm = forward(SCALAR, 2 * 16 * LENGTH, LENGTH);
    const double lm = forward(COUNT, 32 * LENGTH, LENGTH), scalar = forward(SCALAR, 32 * LENGTH, LENGTH);
    for (int ranks = 1; ranks <= 4; ranks *= 4) {
        const Plan x = plan(ranks, NULL, NULL, NULL);
        const PhasePlan *ppo = &x.phase[PLAN_PPO];
        near(x.phase[PLAN_SFT].flops[2], 3 * sft / ranks, 1e-9, "sft");
        near(x.phase[PLAN_RM].flops[2], 3 * rm / ranks, 1e-9, "rm");
        // a prompt's two answers may fall to two neighbours, which both read it
        const double prompts = ranks == 1 ? 16 : 19;
        near(ppo->flops[0], forward(COUNT, prompts * PROMPT + 32 * ANSWER, LENGTH) / ranks, 1e-9, "generate");
        near(ppo->flops[1], (lm + 2 * scalar) / ranks, 1e-9, "score");
        near(ppo->flops[2], 3 * 3 * (lm + scalar) / ranks, 1e-9, "train");
        near(x.phase[PLAN_SFT].seconds[2], 3 * sft / ranks / 1e12, 1e-9, "seconds of sft");
        near(ppo->seconds[1], ppo->flops[1] / 1e12, 1e-9, "seconds of scoring");
        near(ppo->seconds[2], ppo->flops[2] / 1e12, 1e-9, "seconds of training");
    }
    near(plan(4, "ppo.reward_source=checker", "ppo.checker=words", NULL).phase[PLAN_PPO].flops[1], (lm + scalar) / 4,
         1e-9, "score without a reward model");
    near(plan(4, "generate.tensor=2", NULL, NULL).phase[PLAN_PPO].flops[1], (2 * lm + 2 * scalar) / 4, 1e-9,
         "score of an actor that generates in parts");
    // a layer that is not kept is computed once more
    near(plan(4, "actor.recompute=block", "actor.keep_layers=3", NULL).phase[PLAN_SFT].flops[2], 3.75 * sft / 4, 1e-9,
         "sft, 3 of 12 layers kept");
}

// Micro-batches: lanes in turn, each as many as its tokens need, and no more than it has samples.
static void turns(void **state) {
    (void)state;
    assert_int_equal(plan(4, NULL, NULL, NULL).phase[PLAN_SFT].turns, 2);              // 3200 tokens of 2048
    assert_int_equal(plan(1, NULL, NULL, NULL).phase[PLAN_SFT].turns, 7);              // 12800
    assert_int_equal(plan(4, "layout.lanes=8", NULL, NULL).phase[PLAN_SFT].turns, 2);  // two lanes of 1600
    assert_int_equal(plan(4, "layout.lanes=32", NULL, NULL).phase[PLAN_SFT].turns, 8); // eight of one sample
    assert_int_equal(plan(4, "sft.micro_tokens=3200", NULL, NULL).phase[PLAN_SFT].turns, 1);
    assert_int_equal(plan(4, "sft.micro_tokens=100", NULL, NULL).phase[PLAN_SFT].turns, 8); // samples of 400
    assert_int_equal(plan(4, NULL, NULL, NULL).phase[PLAN_RM].turns, 2);  // 16 pairs, 3200 tokens a lane
    assert_int_equal(plan(4, NULL, NULL, NULL).phase[PLAN_PPO].turns, 1); // 8 answers, 800 a lane
}

// A weight in a checkpoint is itself and its moments, with a moving average one more.
static void checkpoints(void **state) {
    (void)state;
    const Plan x = plan(4, NULL, NULL, NULL), ema = plan(4, "ppo.ema=yes", NULL, NULL);
    near((double)x.phase[PLAN_SFT].checkpoint, 12 * COUNT, 0, "sft");
    near((double)x.phase[PLAN_RM].checkpoint, 12 * SCALAR, 0, "rm");
    near((double)x.phase[PLAN_PPO].checkpoint, 12 * COUNT + 12 * SCALAR, 0, "ppo");
    near((double)ema.phase[PLAN_PPO].checkpoint, 16 * COUNT + 12 * SCALAR, 0, "ppo with a moving average");
    near((double)ema.phase[PLAN_SFT].checkpoint, 12 * COUNT, 0, "sft beside it");
}

static void memory(void **state) {
    (void)state;
    const Plan x = plan(4, "actor.offload=moments", NULL, NULL);
    int64_t most = 0, sum = 0;
    for (int i = 0; i < PLAN_PHASES; i++) most = most > x.phase[i].total ? most : x.phase[i].total;
    assert_int_equal(x.total, most);
    assert_true(x.phase[PLAN_PPO].total > x.phase[PLAN_RM].total);
    const Plan rm_only = plan(4, "actor.offload=moments", "job.stages=rm", NULL);
    assert_int_equal(rm_only.total, x.phase[PLAN_RM].total);
    assert_int_equal(rm_only.phase[PLAN_PPO].total, 0);
    for (int tag = 0; tag < MEM_TAGS; tag++)
        if (tag != MEM_HOST) sum += x.phase[PLAN_SFT].bytes[tag];
    assert_true(x.phase[PLAN_SFT].bytes[MEM_HOST] > 0); // memory of the host is no memory of the device
    assert_int_equal(x.phase[PLAN_SFT].total, sum);
    // the order of stages is no matter: the largest may come first
    const Plan large = plan(4, "job.stages=sft, rm", "sft.micro_tokens=16384", NULL);
    assert_true(large.phase[PLAN_SFT].total > large.phase[PLAN_RM].total);
    assert_int_equal(large.total, large.phase[PLAN_SFT].total);
    // activations are those of the longest sample, where a micro-batch holds less
    const Plan small = plan(1, "job.stages=sft", "sft.micro_tokens=100", NULL),
               fits = plan(1, "job.stages=sft", "sft.micro_tokens=400", NULL);
    assert_int_equal(small.phase[PLAN_SFT].bytes[MEM_ACTIVATIONS], fits.phase[PLAN_SFT].bytes[MEM_ACTIVATIONS]);
}

// ZeRO: each of four ranks sends three quarters of all gradients, and of all weights once a step, or at stage 3 once a
// pass; parts are filled up to whole quanta.
static void traffic(void **state) {
    (void)state;
    char *micro = "sft.micro_tokens=3200";
    const double once = 0.75 * 4 * COUNT;
    const Plan alone = plan(1, NULL, NULL, NULL), two = plan(4, "actor.zero_stage=2", micro, NULL),
               three = plan(4, "actor.zero_stage=3", micro, NULL);
    for (int i = 0; i < PLAN_TRAFFIC; i++) assert_true(alone.phase[PLAN_PPO].sent[i] == 0);
    near(two.phase[PLAN_SFT].sent[PLAN_ZERO_REDUCE], once, 0.02, "sums at stage 2");
    near(two.phase[PLAN_SFT].sent[PLAN_ZERO_GATHER], once, 0.02, "gathers at stage 2");
    near(three.phase[PLAN_SFT].sent[PLAN_ZERO_REDUCE], once, 0.02, "sums at stage 3");
    // forward all, of which the embedding stays for the head; backward the layers but the last two, which are still
    // there
    near(three.phase[PLAN_SFT].sent[PLAN_ZERO_GATHER], 0.75 * 4 * (COUNT + (LAYERS - 2) * (12.0 * WIDTH + 13) * WIDTH),
         0.02, "gathers at stage 3");
    near(two.phase[PLAN_SFT].travel,
         (two.phase[PLAN_SFT].sent[PLAN_ZERO_REDUCE] + two.phase[PLAN_SFT].sent[PLAN_ZERO_GATHER]) / 1e10, 1e-9,
         "seconds");
    // Megatron: sums over the two ranks of a layer's attention and MLP, forward and backward, of the embedding and the
    // head's gradient; inside a node, by its link.
    const Plan split = plan(2, "layout.tensor=2", "sft.micro_tokens=12800", "actor.zero_stage=0");
    near(split.phase[PLAN_SFT].sent[PLAN_TENSOR], 4.0 * 12800 * WIDTH * (4 * LAYERS + 2), 0.02, "sums of activations");
    near(split.phase[PLAN_SFT].travel, split.phase[PLAN_SFT].sent[PLAN_TENSOR] / 2e10, 1e-9, "seconds by the link");
    // an iteration of ppo is 3 epochs of 4 minibatches
    const PhasePlan *ppo = &two.phase[PLAN_PPO];
    double sent = 0;
    for (int i = 0; i < PLAN_TRAFFIC; i++) sent += ppo->sent[i];
    near(ppo->travel, 12 * sent / 1e10, 1e-9, "seconds of ppo");
}

// A pass over the sequences that run reads all weights: 4 at a time of a rank's 8, 100 tokens each.
static void generation(void **state) {
    (void)state;
    const double weights = 4 * COUNT;
    near(plan(4, NULL, NULL, NULL).phase[PLAN_PPO].seconds[0], 200 * weights / 5e10, 1e-9, "weights in place");
    const Plan whole = plan(4, "actor.zero_stage=3", NULL, NULL),
               block = plan(4, "actor.zero_stage=3", "generate.gather=block", NULL);
    near(whole.phase[PLAN_PPO].rollout, 0.75 * weights, 0.02, "weights on their way");
    near(whole.phase[PLAN_PPO].seconds[0], 200 * weights / 5e10 + 0.75 * weights / 1e10, 0.001, "gathered once");
    near(block.phase[PLAN_PPO].seconds[0], 200 * weights / 5e10 + 200 * weights / 1e10, 0.001, "gathered every pass");
    // two ranks have a half each and 16 answers together; both sum twice a layer
    near(plan(4, "generate.tensor=2", NULL, NULL).phase[PLAN_PPO].seconds[0],
         400 * (weights / 2 / 5e10 + 2 * 2 * LAYERS * 4 * WIDTH * 4 / 2.0 / 2e10), 0.001, "in two parts");
}

// The generator of plans and runs is made as the keys say; that it gives its memory back is seen in spmd/test_exact.
static void generator(void **state) {
    (void)state;
    char *keys[] = {"generate.release_cache=yes", "generate.gather=block", "generate.kv_block=8",
                    "generate.gather_blocks=3"};
    Params *p = NULL, *q = NULL;
    assert_int_equal(params_parse("t.in", base, strlen(base), 0, NULL, &p), DS_OK);
    assert_int_equal(params_parse("t.in", base, strlen(base), DS_COUNT(keys), keys, &q), DS_OK);
    const HybridCfg x = hybrid_config(p, 4, 4), y = hybrid_config(q, 4, 2);
    assert_true(!x.release && y.release && !x.by_block && y.by_block);
    assert_true(x.kv_block == 16 && y.kv_block == 8 && x.gather_blocks == 8 && y.gather_blocks == 3);
    assert_true(x.max_tokens == LENGTH && x.max_prompt == PROMPT && x.prefill_tokens == 2048 && x.slots == 4);
    params_free(&p);
    params_free(&q);
}

int main(void) {
    world_init();
    const struct CMUnitTest tests[] = {cmocka_unit_test(arithmetic),  cmocka_unit_test(turns),
                                       cmocka_unit_test(checkpoints), cmocka_unit_test(memory),
                                       cmocka_unit_test(traffic),     cmocka_unit_test(generation),
                                       cmocka_unit_test(generator)};
    const int failed = cmocka_run_group_tests_name("plan", tests, NULL, NULL);
    world_finalize();
    return failed;
}
