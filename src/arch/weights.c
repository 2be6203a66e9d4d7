// weights.c: one table of name patterns a family and one pass that lays the weights out.
#include "arch/weights.h"

#include <stdio.h>
#include <string.h>

#include "base/mem.h"

// Hugging Face names by role; %d is the layer. NULL: the family has no such weight.
typedef const char *Names[W_ROLES];

static const Names opt_names = {
    [W_TOK] = "model.decoder.embed_tokens.weight",
    [W_POS] = "model.decoder.embed_positions.weight",
    [W_PROJ_IN] = "model.decoder.project_in.weight",
    [W_NORM1_W] = "model.decoder.layers.%d.self_attn_layer_norm.weight",
    [W_NORM1_B] = "model.decoder.layers.%d.self_attn_layer_norm.bias",
    [W_Q] = "model.decoder.layers.%d.self_attn.q_proj.weight",
    [W_K] = "model.decoder.layers.%d.self_attn.k_proj.weight",
    [W_V] = "model.decoder.layers.%d.self_attn.v_proj.weight",
    [W_Q_B] = "model.decoder.layers.%d.self_attn.q_proj.bias",
    [W_K_B] = "model.decoder.layers.%d.self_attn.k_proj.bias",
    [W_V_B] = "model.decoder.layers.%d.self_attn.v_proj.bias",
    [W_O] = "model.decoder.layers.%d.self_attn.out_proj.weight",
    [W_O_B] = "model.decoder.layers.%d.self_attn.out_proj.bias",
    [W_NORM2_W] = "model.decoder.layers.%d.final_layer_norm.weight",
    [W_NORM2_B] = "model.decoder.layers.%d.final_layer_norm.bias",
    [W_UP] = "model.decoder.layers.%d.fc1.weight",
    [W_UP_B] = "model.decoder.layers.%d.fc1.bias",
    [W_DOWN] = "model.decoder.layers.%d.fc2.weight",
    [W_DOWN_B] = "model.decoder.layers.%d.fc2.bias",
    [W_FNORM_W] = "model.decoder.final_layer_norm.weight",
    [W_FNORM_B] = "model.decoder.final_layer_norm.bias",
    [W_PROJ_OUT] = "model.decoder.project_out.weight",
};
static const Names gpt2_names = {
    [W_TOK] = "transformer.wte.weight",
    [W_POS] = "transformer.wpe.weight",
    [W_NORM1_W] = "transformer.h.%d.ln_1.weight",
    [W_NORM1_B] = "transformer.h.%d.ln_1.bias",
    [W_QKV] = "transformer.h.%d.attn.c_attn.weight",
    [W_QKV_B] = "transformer.h.%d.attn.c_attn.bias",
    [W_O] = "transformer.h.%d.attn.c_proj.weight",
    [W_O_B] = "transformer.h.%d.attn.c_proj.bias",
    [W_NORM2_W] = "transformer.h.%d.ln_2.weight",
    [W_NORM2_B] = "transformer.h.%d.ln_2.bias",
    [W_UP] = "transformer.h.%d.mlp.c_fc.weight",
    [W_UP_B] = "transformer.h.%d.mlp.c_fc.bias",
    [W_DOWN] = "transformer.h.%d.mlp.c_proj.weight",
    [W_DOWN_B] = "transformer.h.%d.mlp.c_proj.bias",
    [W_FNORM_W] = "transformer.ln_f.weight",
    [W_FNORM_B] = "transformer.ln_f.bias",
};
static const Names bloom_names = {
    [W_TOK] = "transformer.word_embeddings.weight",
    [W_ENORM_W] = "transformer.word_embeddings_layernorm.weight",
    [W_ENORM_B] = "transformer.word_embeddings_layernorm.bias",
    [W_NORM1_W] = "transformer.h.%d.input_layernorm.weight",
    [W_NORM1_B] = "transformer.h.%d.input_layernorm.bias",
    [W_QKV] = "transformer.h.%d.self_attention.query_key_value.weight",
    [W_QKV_B] = "transformer.h.%d.self_attention.query_key_value.bias",
    [W_O] = "transformer.h.%d.self_attention.dense.weight",
    [W_O_B] = "transformer.h.%d.self_attention.dense.bias",
    [W_NORM2_W] = "transformer.h.%d.post_attention_layernorm.weight",
    [W_NORM2_B] = "transformer.h.%d.post_attention_layernorm.bias",
    [W_UP] = "transformer.h.%d.mlp.dense_h_to_4h.weight",
    [W_UP_B] = "transformer.h.%d.mlp.dense_h_to_4h.bias",
    [W_DOWN] = "transformer.h.%d.mlp.dense_4h_to_h.weight",
    [W_DOWN_B] = "transformer.h.%d.mlp.dense_4h_to_h.bias",
    [W_FNORM_W] = "transformer.ln_f.weight",
    [W_FNORM_B] = "transformer.ln_f.bias",
};
static const Names neox_names = {
    [W_TOK] = "gpt_neox.embed_in.weight",
    [W_NORM1_W] = "gpt_neox.layers.%d.input_layernorm.weight",
    [W_NORM1_B] = "gpt_neox.layers.%d.input_layernorm.bias",
    [W_QKV] = "gpt_neox.layers.%d.attention.query_key_value.weight",
    [W_QKV_B] = "gpt_neox.layers.%d.attention.query_key_value.bias",
    [W_O] = "gpt_neox.layers.%d.attention.dense.weight",
    [W_O_B] = "gpt_neox.layers.%d.attention.dense.bias",
    [W_NORM2_W] = "gpt_neox.layers.%d.post_attention_layernorm.weight",
    [W_NORM2_B] = "gpt_neox.layers.%d.post_attention_layernorm.bias",
    [W_UP] = "gpt_neox.layers.%d.mlp.dense_h_to_4h.weight",
    [W_UP_B] = "gpt_neox.layers.%d.mlp.dense_h_to_4h.bias",
    [W_DOWN] = "gpt_neox.layers.%d.mlp.dense_4h_to_h.weight",
    [W_DOWN_B] = "gpt_neox.layers.%d.mlp.dense_4h_to_h.bias",
    [W_FNORM_W] = "gpt_neox.final_layer_norm.weight",
    [W_FNORM_B] = "gpt_neox.final_layer_norm.bias",
    [W_LM_HEAD] = "embed_out.weight",
};
static const Names llama_names = {
    [W_TOK] = "model.embed_tokens.weight",
    [W_NORM1_W] = "model.layers.%d.input_layernorm.weight",
    [W_Q] = "model.layers.%d.self_attn.q_proj.weight",
    [W_K] = "model.layers.%d.self_attn.k_proj.weight",
    [W_V] = "model.layers.%d.self_attn.v_proj.weight",
    [W_Q_B] = "model.layers.%d.self_attn.q_proj.bias",
    [W_K_B] = "model.layers.%d.self_attn.k_proj.bias",
    [W_V_B] = "model.layers.%d.self_attn.v_proj.bias",
    [W_QNORM] = "model.layers.%d.self_attn.q_norm.weight",
    [W_KNORM] = "model.layers.%d.self_attn.k_norm.weight",
    [W_O] = "model.layers.%d.self_attn.o_proj.weight",
    [W_O_B] = "model.layers.%d.self_attn.o_proj.bias",
    [W_NORM2_W] = "model.layers.%d.post_attention_layernorm.weight",
    [W_GATE] = "model.layers.%d.mlp.gate_proj.weight",
    [W_UP] = "model.layers.%d.mlp.up_proj.weight",
    [W_DOWN] = "model.layers.%d.mlp.down_proj.weight",
    [W_FNORM_W] = "model.norm.weight",
};

static const Names *const family_names[ARCH_FAMILIES] = {
    [ARCH_OPT] = &opt_names,     [ARCH_GPT2] = &gpt2_names,   [ARCH_BLOOM] = &bloom_names,
    [ARCH_NEOX] = &neox_names,   [ARCH_LLAMA] = &llama_names, [ARCH_MISTRAL] = &llama_names,
    [ARCH_QWEN2] = &llama_names, [ARCH_QWEN3] = &llama_names,
};

// What of a weight a tensor rank keeps. ALL_SUM: all, used on what is split. ALL_TOKENS: all, used on the rank's
// tokens, which sequence parallelism splits.
typedef enum { ALL, ALL_SUM, ALL_TOKENS, ROWS_Q, ROWS_KV, ROWS_QKV, ROWS_FFN, ROWS_VOCAB, COLS_Q, COLS_FFN } Split;

typedef struct {
    const Arch *a;
    const ArchPart *part;
    WeightList *list;
    int block;
    int64_t offset;
} Builder;

static void add_cut(Weight *w, int64_t first, int64_t n) {
    w->cut[w->n_cuts].first = first;
    w->cut[w->n_cuts++].n = n;
}

static void cut_qkv(const Builder *b, Weight *w) {
    const ArchPart *p = b->part;
    const int64_t d = b->a->head_dim, all = b->a->heads * d;
    if (b->a->qkv == ARCH_QKV_HEADS) {
        add_cut(w, 3 * d * p->head_first, 3 * d * p->own.heads);
        return;
    }
    for (int i = 0; i < 3; i++) add_cut(w, i * all + d * p->head_first, d * p->own.heads);
}

static void cut_weight(const Builder *b, Weight *w, Split split) {
    const ArchPart *p = b->part;
    const int64_t d = b->a->head_dim;
    w->tp_axis = split == COLS_Q || split == COLS_FFN;
    switch (split) {
    case ROWS_QKV: cut_qkv(b, w); break;
    case COLS_Q:
    case ROWS_Q: add_cut(w, d * p->head_first, d * p->own.heads); break;
    case ROWS_KV: add_cut(w, d * p->kv_first, d * p->own.kv_heads); break;
    case COLS_FFN:
    case ROWS_FFN: add_cut(w, p->ffn_first, p->own.ffn); break;
    case ROWS_VOCAB: add_cut(w, p->vocab_first, p->own.vocab); break;
    default: w->tp_axis = -1; add_cut(w, 0, w->shape[0]);
    }
    w->mine = w->tp_axis < 0 ? p->rank == 0 : split != ROWS_KV || p->kv_rank == 0;
    if ((split == ALL_SUM || (split == ALL_TOKENS && p->sequence)) && p->size > 1) w->grad = W_GRAD_SUM_TENSOR;
    if (split == ROWS_KV && p->kv_size > 1) w->grad = W_GRAD_SUM_KV;
    w->count = 0;
    for (int i = 0; i < w->n_cuts; i++) w->count += w->cut[i].n * w->shape[w->tp_axis == 1 ? 0 : 1];
}

// Appends one weight; cols = 1 makes a vector.
static void add(Builder *b, WeightRole role, int64_t rows, int64_t cols, WeightInit init, Split split) {
    const char *pattern = (*family_names[b->a->family])[role];
    if (role == W_LM_HEAD && !pattern) pattern = "lm_head.weight";
    if (role == W_V_HEAD) pattern = "v_head.weight";
    if (!pattern) err_fatal("family %s has no name for weight role %d", arch_family_name(b->a->family), role);
    WeightList *l = b->list;
    Weight *w = &l->w[l->n];
    bool vector = role == W_V_HEAD ? false : cols == 1;
    *w = (Weight){.role = role,
                  .block = b->block,
                  .ndim = vector ? 1 : 2,
                  .shape = {rows, cols},
                  .offset = b->offset,
                  .decay = !vector,
                  .init = init,
                  .std = b->a->init_std,
                  .hf_transposed = b->a->conv1d && (role == W_QKV || role == W_O || role == W_UP || role == W_DOWN)};
    cut_weight(b, w, split);
    snprintf(w->name, sizeof w->name, pattern, b->block - 1); // the patterns are the constants above
    l->index[b->block * W_ALL_ROLES + role] = l->n++;
    b->offset += w->count;
}

static void add_norm(Builder *b, WeightRole weight, WeightRole bias, int64_t width, Split split) {
    add(b, weight, width, 1, W_INIT_ONE, split);
    if (b->a->norm == ARCH_NORM_LN) add(b, bias, width, 1, W_INIT_ZERO, split);
}

static void add_embedding(Builder *b) {
    const Arch *a = b->a;
    add(b, W_TOK, a->vocab, a->embed_width, W_INIT_NORMAL, ROWS_VOCAB);
    if (a->pos == ARCH_POS_LEARNED) add(b, W_POS, a->max_positions + a->pos_offset, a->width, W_INIT_NORMAL, ALL);
    if (a->embed_width != a->width) add(b, W_PROJ_IN, a->width, a->embed_width, W_INIT_NORMAL, ALL_TOKENS);
    if (a->embed_norm) add_norm(b, W_ENORM_W, W_ENORM_B, a->width, ALL_TOKENS);
}

static void add_qkv(Builder *b) {
    const Arch *a = b->a;
    int64_t q = a->heads * a->head_dim, kv = a->kv_heads * a->head_dim;
    if (a->qkv != ARCH_QKV_SPLIT) {
        add(b, W_QKV, q + 2 * kv, a->width, W_INIT_NORMAL, ROWS_QKV);
        if (a->qkv_bias) add(b, W_QKV_B, q + 2 * kv, 1, W_INIT_ZERO, ROWS_QKV);
    } else {
        add(b, W_Q, q, a->width, W_INIT_NORMAL, ROWS_Q);
        add(b, W_K, kv, a->width, W_INIT_NORMAL, ROWS_KV);
        add(b, W_V, kv, a->width, W_INIT_NORMAL, ROWS_KV);
        if (a->qkv_bias) {
            add(b, W_Q_B, q, 1, W_INIT_ZERO, ROWS_Q);
            add(b, W_K_B, kv, 1, W_INIT_ZERO, ROWS_KV);
            add(b, W_V_B, kv, 1, W_INIT_ZERO, ROWS_KV);
        }
    }
    if (a->qk_norm) {
        add(b, W_QNORM, a->head_dim, 1, W_INIT_ONE, ALL_SUM);
        add(b, W_KNORM, a->head_dim, 1, W_INIT_ONE, ALL_SUM);
    }
}

static void add_layer(Builder *b) {
    const Arch *a = b->a;
    add_norm(b, W_NORM1_W, W_NORM1_B, a->width, ALL_TOKENS);
    add_qkv(b);
    add(b, W_O, a->width, a->heads * a->head_dim, W_INIT_NORMAL, COLS_Q);
    if (a->out_bias) add(b, W_O_B, a->width, 1, W_INIT_ZERO, ALL);
    add_norm(b, W_NORM2_W, W_NORM2_B, a->width, ALL_TOKENS);
    if (a->glu) add(b, W_GATE, a->ffn, a->width, W_INIT_NORMAL, ROWS_FFN);
    add(b, W_UP, a->ffn, a->width, W_INIT_NORMAL, ROWS_FFN);
    if (a->mlp_bias) add(b, W_UP_B, a->ffn, 1, W_INIT_ZERO, ROWS_FFN);
    add(b, W_DOWN, a->width, a->ffn, W_INIT_NORMAL, COLS_FFN);
    if (a->mlp_bias) add(b, W_DOWN_B, a->width, 1, W_INIT_ZERO, ALL);
}

static void add_head(Builder *b) {
    const Arch *a = b->a;
    if (a->final_norm) add_norm(b, W_FNORM_W, W_FNORM_B, a->width, ALL);
    if (a->embed_width != a->width) add(b, W_PROJ_OUT, a->embed_width, a->width, W_INIT_NORMAL, ALL);
    if (a->head == ARCH_HEAD_SCALAR) add(b, W_V_HEAD, 1, a->embed_width, W_INIT_NORMAL, ALL);
    else if (!a->tied) add(b, W_LM_HEAD, a->vocab, a->embed_width, W_INIT_NORMAL, ROWS_VOCAB);
}

void weights_begin(WeightList *list, int blocks, int64_t room) {
    *list = (WeightList){.blocks = blocks,
                         .w = MEM_NEW(Weight, room),
                         .block_count = MEM_NEW(int64_t, blocks),
                         .index = MEM_NEW(int, (int64_t)blocks *W_ALL_ROLES),
                         .tensor_size = 1};
    for (int i = 0; i < blocks * W_ALL_ROLES; i++) list->index[i] = -1;
}

void weights_put(WeightList *list, Weight w) {
    w.offset = list->block_count[w.block];
    list->block_count[w.block] += w.count;
    list->index[w.block * W_ALL_ROLES + w.role] = list->n;
    list->w[list->n++] = w;
}

void weights_without(const WeightList *all, const WeightList *some, WeightList *out) {
    weights_begin(out, all->blocks, all->n);
    for (int i = 0; i < all->n; i++)
        if (!weights_find(some, all->w[i].block, all->w[i].role)) weights_put(out, all->w[i]);
}

void weights_build_part(const Arch *a, const ArchPart *part, WeightList *list) {
    const int blocks = (int)a->layers + 2;
    weights_begin(list, blocks, 6 + 20 * a->layers + 6);
    list->tensor_rank = part->rank;
    list->tensor_size = part->size;
    for (int block = 0; block < blocks; block++) {
        Builder b = {.a = a, .part = part, .list = list, .block = block};
        if (block == 0) add_embedding(&b);
        else if (block == blocks - 1) add_head(&b);
        else add_layer(&b);
        list->block_count[block] = b.offset;
    }
}

void weights_build(const Arch *a, WeightList *list) {
    ArchPart whole;
    arch_part(&whole, a, 0, 1);
    weights_build_part(a, &whole, list);
}

void weights_free(WeightList *list) {
    mem_free(list->w);
    mem_free(list->block_count);
    mem_free(list->index);
    *list = (WeightList){0};
}

const Weight *weights_find(const WeightList *list, int block, WeightRole role) {
    int i = list->index[block * W_ALL_ROLES + role];
    return i < 0 ? NULL : &list->w[i];
}

const Weight *weights_find_name(const WeightList *list, const char *name) {
    for (int i = 0; i < list->n; i++)
        if (!strcmp(list->w[i].name, name)) return &list->w[i];
    return NULL;
}

int64_t weights_whole_count(const WeightList *list) {
    int64_t n = 0;
    for (int i = 0; i < list->n; i++) n += list->w[i].shape[0] * list->w[i].shape[1];
    return n;
}

void weights_part_shape(const Weight *w, int64_t *rows, int64_t *cols) {
    *cols = w->tp_axis == 1 ? w->cut[0].n : w->shape[1];
    *rows = w->count / *cols;
}

static void piece(WeightPiece *out, int *n_out, int64_t at, int64_t count, int64_t whole, int64_t run) {
    if (count > 0) out[(*n_out)++] = (WeightPiece){at, count, whole, ds_min(run, count)};
}

// A strip of columns: the rest of a row, whole rows of the strip, the beginning of a row.
static int strip_pieces(const Weight *w, int64_t first, int64_t n, WeightPiece *out) {
    const int64_t width = w->cut[0].n, cols = w->shape[1];
    const int64_t lead = ds_min(n, (width - first % width) % width), body = (n - lead) / width * width;
    const int64_t whole = w->cut[0].first + first / width * cols,
                  next = w->cut[0].first + ds_ceil_div(first, width) * cols;
    int n_out = 0;
    piece(out, &n_out, first, lead, whole + first % width, lead);
    piece(out, &n_out, first + lead, body, next, width);
    piece(out, &n_out, first + lead + body, n - lead - body, next + body / width * cols, width);
    return n_out;
}

int weights_pieces(const Weight *w, int64_t first, int64_t n, WeightPiece *out) {
    int n_out = 0;
    int64_t begin = 0; // of the cut, in the part
    if (w->tp_axis == 1) {
        if (n > 0 && w->cut[0].n < w->shape[1]) return strip_pieces(w, first, n, out);
        piece(out, &n_out, first, n, first, n);
        return n_out;
    }
    for (int i = 0; i < w->n_cuts; i++) {
        const int64_t size = w->cut[i].n * w->shape[1], lo = ds_max(first, begin), hi = ds_min(first + n, begin + size);
        piece(out, &n_out, lo, hi - lo, w->cut[i].first * w->shape[1] + lo - begin, hi - lo);
        begin += size;
    }
    return n_out;
}
