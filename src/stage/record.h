// record.h: every scalar that a step reports: one row here is one variable of history.nc. Not collective.
#ifndef DS_RECORD_H
#define DS_RECORD_H

#include "io/history.h"

// X(constant, name, units, long name)
#define RECORD_ROWS(X)                                                                                                 \
    X(R_LOSS, "loss", "1", "training loss of the step (ppo: actor, with entropy bonus and ptx)")                       \
    X(R_LR, "lr", "1", "learning rate (ppo: actor)")                                                                   \
    X(R_GRAD_NORM, "grad_norm", "1", "global gradient norm before clipping (ppo: actor, mean over the iteration)")     \
    X(R_SKIPPED, "skipped", "1", "1 if the step was skipped for a number that is not finite")                          \
    X(R_TOKENS, "tokens", "1", "tokens that went through the model, over all ranks")                                   \
    X(R_SECONDS, "seconds", "s", "time of the step")                                                                   \
    X(R_TOKENS_PER_SECOND, "tokens_per_second", "s-1", "tokens / seconds")                                             \
    X(R_EVAL_NLL, "eval_nll", "1", "sft: mean negative log-likelihood of held-out answer tokens, nats")                \
    X(R_ACCURACY, "accuracy", "1", "rm: share of the step's pairs in which the chosen answer scores higher")           \
    X(R_EVAL_ACCURACY, "eval_accuracy", "1", "rm: the same on held-out pairs")                                         \
    X(R_CHOSEN, "chosen_score", "1", "rm: mean score of chosen answers of the step")                                   \
    X(R_REJECTED, "rejected_score", "1", "rm: mean score of rejected answers of the step")                             \
    X(R_REWARD, "reward", "1", "ppo: mean score of the answers by the reward model")                                   \
    X(R_REWARD_STD, "reward_std", "1", "ppo: deviation of these scores")                                               \
    X(R_TRUE_SCORE, "true_score", "1", "ppo: mean score of the answers by the checker")                                \
    X(R_EVAL_REWARD, "eval_reward", "1", "ppo: mean score on held-out prompts")                                        \
    X(R_EVAL_TRUE_SCORE, "eval_true_score", "1", "ppo: mean score by the checker on held-out prompts")                 \
    X(R_KL_TOKEN, "kl_token", "1", "ppo: mean of log p_actor - log p_reference over answer tokens, nats")              \
    X(R_KL_SEQUENCE, "kl_sequence", "1", "ppo: the same summed over an answer, mean over answers, nats")               \
    X(R_KL_COEF, "kl_coef", "1", "ppo: weight of the KL penalty")                                                      \
    X(R_ENTROPY, "entropy", "1", "ppo: mean entropy of the actor over answer tokens, nats")                            \
    X(R_RATIO_MEAN, "ratio_mean", "1", "ppo: mean probability ratio new / old")                                        \
    X(R_RATIO_MAX, "ratio_max", "1", "ppo: largest probability ratio")                                                 \
    X(R_RATIO_FIRST, "ratio_first", "1", "ppo: largest |ratio - 1| before the first update of the iteration")          \
    X(R_CLIP_FRACTION, "clip_fraction", "1", "ppo: share of tokens whose ratio was clipped")                           \
    X(R_VALUE_LOSS, "value_loss", "1", "ppo: loss of the critic")                                                      \
    X(R_EXPLAINED, "explained_variance", "1", "ppo: 1 - var(return - value) / var(return)")                            \
    X(R_CRITIC_LR, "critic_lr", "1", "ppo: learning rate of the critic")                                               \
    X(R_CRITIC_GRAD_NORM, "critic_grad_norm", "1", "ppo: global gradient norm of the critic")                          \
    X(R_PTX_LOSS, "ptx_loss", "1",                                                                                     \
      "ppo: mean negative log-likelihood of all pretraining tokens of the iteration, nats")                            \
    X(R_ANSWER_LENGTH, "answer_length", "1", "ppo: mean tokens of an answer")                                          \
    X(R_TRUNCATED, "truncated", "1", "ppo: share of answers cut at max_answer")                                        \
    X(R_GENERATE_SECONDS, "generate_seconds", "s", "ppo: time of generation")                                          \
    X(R_SCORE_SECONDS, "score_seconds", "s", "ppo: time of scoring (reference, critic, reward)")                       \
    X(R_TRAIN_SECONDS, "train_seconds", "s", "ppo: time of the updates")                                               \
    X(R_GENERATE_RATE, "generate_tokens_per_second", "s-1", "ppo: answer tokens / generate_seconds")                   \
    X(R_SCORE_RATE, "score_tokens_per_second", "s-1", "ppo: tokens scored / score_seconds")                            \
    X(R_TRAIN_RATE, "train_tokens_per_second", "s-1", "ppo: tokens trained on / train_seconds")                        \
    X(R_MEMORY, "memory_peak", "byte", "largest peak resident memory of a rank so far")

#define RECORD_CONSTANT(constant, name, units, words) constant,
typedef enum { RECORD_ROWS(RECORD_CONSTANT) RECORD_N } RecordRow;
#undef RECORD_CONSTANT

typedef struct {
    double v[RECORD_N]; // NaN: does not apply
} Record;

// All NaN.
void record_clear(Record *r);

// The table for history_open: [RECORD_N].
const HistoryVar *record_vars(void);

#endif
