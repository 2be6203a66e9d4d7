// weights.h: THE list: name, shape, tensor-parallel axis, decay and initial value of every weight of a model. Not
// collective.
//
// Order and block are the layout of memory and of files: block 0 is the embedding, 1..layers the layers, layers + 1 the
// head. Inside a block weights follow each other without a gap, so that q, k, v (and gate, up) are one matrix. Linear
// weights are [out, in], row-major, also where Hugging Face keeps [in, out] (GPT-2: `conv1d`, transposed at import and
// export).
#ifndef DS_WEIGHTS_H
#define DS_WEIGHTS_H

#include "arch/arch_part.h"

typedef enum {
    W_TOK,
    W_POS,
    W_PROJ_IN,
    W_ENORM_W,
    W_ENORM_B, // block 0
    W_NORM1_W,
    W_NORM1_B,
    W_Q,
    W_K,
    W_V,
    W_QKV,
    W_Q_B,
    W_K_B,
    W_V_B,
    W_QKV_B,
    W_QNORM,
    W_KNORM,
    W_O,
    W_O_B,
    W_NORM2_W,
    W_NORM2_B,
    W_GATE,
    W_UP,
    W_UP_B,
    W_DOWN,
    W_DOWN_B, // a layer; W_UP is fc1 where there is no gate
    W_FNORM_W,
    W_FNORM_B,
    W_PROJ_OUT,
    W_LM_HEAD,
    W_V_HEAD, // head
    W_ROLES,
    W_ALL_ROLES = 3 * W_ROLES // with the two adapters of each (adapters.h)
} WeightRole;

static inline WeightRole weights_adapter_a(WeightRole r) { return (WeightRole)(W_ROLES + r); }
static inline WeightRole weights_adapter_b(WeightRole r) { return (WeightRole)(2 * W_ROLES + r); }

typedef enum { W_INIT_NORMAL, W_INIT_ZERO, W_INIT_ONE, W_INIT_UNIFORM } WeightInit; // UNIFORM: in +-std

// Where several tensor ranks keep the same elements: their gradients are the same on all of them, or each rank's own
// are added up, over the ranks that share its key heads or over the whole tensor group.
typedef enum { W_GRAD_SAME, W_GRAD_SUM_KV, W_GRAD_SUM_TENSOR } WeightGrad;

// A part of a weight is at most so many ranges of its rows (or columns).
enum { WEIGHT_CUTS = 3 };

typedef struct {
    char name[96]; // as Hugging Face spells it, "v_head.weight" for the scalar head
    WeightRole role;
    int block;          // 0 .. layers + 1
    int ndim;           // 1 or 2
    int64_t shape[2];   // whole, internal: [out, in] for linear weights; shape[1] = 1 for vectors
    int64_t count;      // elements of the part that is kept
    int64_t offset;     // first element within its block
    bool adapter;       // of another weight (adapters.h)
    bool decay;         // weight decay applies (not to biases and norms)
    bool hf_transposed; // Hugging Face's tensor is the transpose
    int tp_axis;        // axis that tensor parallelism splits, -1: every rank keeps all of it
    int n_cuts;         // the part: these ranges of the axis, end to end
    struct {
        int64_t first, n;
    } cut[WEIGHT_CUTS];
    bool mine; // of the ranks that keep the same elements this is the first: it writes and counts them
    WeightGrad grad;
    WeightInit init;
    double std; // W_INIT_NORMAL, W_INIT_UNIFORM
} Weight;

typedef struct {
    int n;
    Weight *w;            // [n] in order of block, offset
    int blocks;           // layers + 2
    int64_t *block_count; // [blocks] elements, no padding
    int *index;           // [blocks][W_ALL_ROLES] position in w, -1: absent
    int tensor_rank, tensor_size;
} WeightList;

// Builds the list of an arch that arch_check accepted: of the whole model, or of a part. Owner: caller, weights_free.
void weights_build(const Arch *a, WeightList *list);
void weights_build_part(const Arch *a, const ArchPart *part, WeightList *list);
void weights_free(WeightList *list);
// An empty list with room for `room` weights.
void weights_begin(WeightList *list, int blocks, int64_t room);
// Puts a weight at the end of its block.
void weights_put(WeightList *list, Weight w);
// The weights of `all` that are not in `some`. Owner: caller, weights_free.
void weights_without(const WeightList *all, const WeightList *some, WeightList *out);

// Elements of all weights, whole.
int64_t weights_whole_count(const WeightList *list);

// Rows and columns of the part that is kept.
void weights_part_shape(const Weight *w, int64_t *rows, int64_t *cols);

// Where elements [first, first + n) of a part lie in the whole weight: `count` of them from `at` on are runs of `run`
// consecutive elements of the whole, the first at `whole`, each next one a row (shape[1]) further.
typedef struct {
    int64_t at, count, whole, run;
} WeightPiece;
enum { WEIGHT_PIECES = 3 };
// Fills out[WEIGHT_PIECES], returns how many.
int weights_pieces(const Weight *w, int64_t first, int64_t n, WeightPiece *out);
// Index in the whole weight of element i of a piece.
static inline int64_t weights_whole(const Weight *w, const WeightPiece *p, int64_t i) {
    return p->whole + i / p->run * w->shape[1] + i % p->run;
}

// The weight of a role in a block, NULL if the model has none.
const Weight *weights_find(const WeightList *list, int block, WeightRole role);
// By name, NULL if none.
const Weight *weights_find_name(const WeightList *list, const char *name);

#endif
