// loss_pair.h: the reward model's loss over pairs of answers, and its statistics (algorithms.md section 2). Not
// collective.
//
// Pairs are packed: row 2p is the chosen answer of pair p, row 2p+1 the rejected one, each with its prompt; row s is
// the tokens starts[s] .. starts[s+1] and is not empty. values holds one score a token. Sums and `scale`: see
// loss_lm.h.
#ifndef DS_LOSS_PAIR_H
#define DS_LOSS_PAIR_H

#include "base/types.h"

// In the order of the key [rm] loss.
typedef enum { PAIR_TOKENS, PAIR_LAST } PairForm;

// With c, r the scores of the two rows and x_end the score at a row's last token, one pair's loss is
//   PAIR_TOKENS  -mean over t = d .. e-1 of logsigmoid(c_t - r_t - margin), where d is the first token in which the
//                rows differ and e the longer row's length; past its own end a row keeps its last score, and the
//                gradient of that goes to its last token. Rows that are equal throughout (data sets hold none) are
//                compared at their last token.
//   PAIR_LAST    -logsigmoid(c_end - r_end - margin)
// plus center_coef * (c_end + r_end)^2.
typedef struct {
    PairForm form;
    double margin;
    double center_coef;
} PairLossCfg;

// Sums over pairs; adds up as an array of doubles. Zero before the first call.
typedef struct {
    double pairs;       // how many
    double loss;        // of the pairs' losses
    double right;       // pairs with c_end > r_end (a tie is wrong)
    double chosen;      // of c_end
    double rejected;    // of r_end
    double squares;     // of c_end^2 + r_end^2
} PairStats;
enum { PAIR_STATS_DOUBLES = sizeof(PairStats) / sizeof(double) };

// Adds `pairs` pairs to *stats and sets dvalues[starts[2 pairs]] = scale * d(sum of losses) / d(values). scale = 1 /
// (pairs of the step). starts: [2 pairs + 1], starts[0] = 0; ids, values: [starts[2 pairs]]. dvalues NULL: not wanted.
void loss_pair(const PairLossCfg *cfg, int64_t pairs, const int32_t *starts, const int32_t *ids, const float *values,
               double scale, float *dvalues, PairStats *stats);

// scores[rows] = score at the last token of each row of starts[rows + 1].
void loss_pair_scores(int64_t rows, const int32_t *starts, const float *values, float *scores);

// Mean and (biased) standard deviation of the scores of all rows of summed stats; 0 and 0 without pairs.
void loss_pair_moments(const PairStats *stats, double *mean, double *deviation);

// 95 % Wilson score interval of a share of `right` in `n` trials (Wilson 1927); [0, 1] without trials.
void loss_pair_interval(double right, double n, double *low, double *high);

#endif
