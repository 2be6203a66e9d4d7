// weights.h: THE list: name, shape, tensor-parallel axis, decay and initial value of every weight of a model. Not
// collective.
//
// Order and block are the layout of memory and of files: block 0 is the embedding, 1..layers the layers, layers + 1 the
// head. Inside a block weights follow each other without a gap, so that q, k, v (and gate, up) are one matrix. Linear
// weights are [out, in], row-major, also where Hugging Face keeps [in, out] (GPT-2: `conv1d`, transposed at import and
// export).
#ifndef DS_WEIGHTS_H
#define DS_WEIGHTS_H

#include "arch/arch.h"

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
    W_ROLES
} WeightRole;

typedef enum { W_INIT_NORMAL, W_INIT_ZERO, W_INIT_ONE } WeightInit;

typedef struct {
    char name[96]; // as Hugging Face spells it, "v_head.weight" for the scalar head
    WeightRole role;
    int block;        // 0 .. layers + 1
    int ndim;         // 1 or 2
    int64_t shape[2]; // internal shape, [out, in] for linear weights; shape[1] = 1 for vectors
    int64_t count;
    int64_t offset;     // first element within its block
    bool decay;         // weight decay applies (not to biases and norms)
    bool hf_transposed; // Hugging Face's tensor is the transpose
    int tp_axis;        // axis that tensor parallelism splits, -1: replicated
    WeightInit init;
    double std; // W_INIT_NORMAL
} Weight;

typedef struct {
    int n;
    Weight *w;            // [n] in order of block, offset
    int blocks;           // layers + 2
    int64_t *block_count; // [blocks] elements, no padding
    int *index;           // [blocks][W_ROLES] position in w, -1: absent
} WeightList;

// Builds the list of an arch that arch_check accepted. Owner: caller, weights_free.
void weights_build(const Arch *a, WeightList *list);
void weights_free(WeightList *list);

// The weight of a role in a block, NULL if the model has none.
const Weight *weights_find(const WeightList *list, int block, WeightRole role);
// By name, NULL if none.
const Weight *weights_find_name(const WeightList *list, const char *name);

#endif
