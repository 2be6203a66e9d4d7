// tile.h: the register tile under linear and attention: acc[rows][cols] += x[rows][k] w[k][cols], lanes over the
// columns.
//
// Each element is one chain of fused multiply-adds over k in order; chains may be cut anywhere in k, because acc is
// fp32 in memory as in the register. So an element's bits depend on its own row and column alone: not on the tile's
// size, its place, or how k is cut. That is what row exactness rests on.
//
// w is a panel [k][ldw] of TILE_COLS or LANES columns, x is columns, [k][ldx] (tile_packed), or rows, [rows][ldx]
// (tile_rows). With TILE_PAIRS an element of x and w is two bf16 that follow each other in k: the products of both are
// added, half as many steps for the same sum.
//
// tile_product takes matrices of any size, with the tiles of AMX where there are some (tile_amx.c): those sum TILE_STEP
// pairs at a time, so there k is in whole steps and may be cut only between them.
#ifndef DS_CPU_TILE_H
#define DS_CPU_TILE_H

#include "kernels/cpu/vec.h"

#ifdef __AVX512F__
enum { TILE_ROWS = 14 }; // 28 of 32 registers hold sums
#else
enum { TILE_ROWS = 6 }; // 12 of 16
#endif
enum { TILE_COLS = 2 * LANES, TILE_LD = LANES };
enum { LINE_BYTES = 64 }; // of the caches: what one fetch asks for

#ifdef __AVX512BF16__
enum { TILE_HAS_PAIRS = 1 };
#else
enum { TILE_HAS_PAIRS = 0 };
#endif
typedef enum { TILE_F32, TILE_PAIRS } TileMath; // TILE_PAIRS: only if TILE_HAS_PAIRS

#ifdef __AMX_BF16__
enum { TILE_STEP = 16, TILE_BLOCK = 32 };
#else
enum { TILE_STEP = 1, TILE_BLOCK = TILE_ROWS };
#endif

// The k of a sum over n elements: zeros fill up the last pair and the last step.
static inline int64_t tile_steps(TileMath math, int64_t n) {
    return math == TILE_F32 ? n : ds_round_up(ds_ceil_div(n, 2), TILE_STEP);
}

// rows 1..TILE_ROWS; cols: TILE_COLS or LANES; acc [rows][ld_acc].
void tile_packed(int rows, int cols, float *acc, int64_t ld_acc, const float *x, int64_t ldx, const float *w,
                 int64_t ldw, int64_t k, TileMath math);
void tile_rows(int rows, int cols, float *acc, int64_t ld_acc, const float *x, int64_t ldx, const float *w, int64_t ldw,
               int64_t k, TileMath math);

// acc [rows][ld_acc] = (add: +=) x [rows][ldx] times w, whose columns lie in panels of TILE_COLS, [k][ldw] each,
// `panel` elements from one to the next. cols: whole LANES. k: tile_steps of what is summed. Up to TILE_BLOCK rows are
// multiplied at a time; x and acc have room for a multiple of 16 rows, of which those from `rows` on may be read and
// written.
typedef struct {
    TileMath math;
    bool add;
    int64_t rows, cols, k;
    float *acc;
    const float *x, *w;
    int64_t ld_acc, ldx, ldw, panel;
} TileProduct;
void tile_product(const TileProduct *p);
void tile_product_amx(const TileProduct *p); // TILE_PAIRS with AMX

// Around a thread's products: with AMX they set up and give back its tiles, which oneDNN sets up in its own way.
void tile_open(void);
void tile_close(void);

// dst[i][0..LANES) (stride ld) = src[0..rows)[i] for i < k: `rows` rows of dtype dt turned into one column block;
// columns >= rows are 0. rows <= LANES. ahead: the elements that lie so far behind are asked for from memory meanwhile
// (0: none).
void tile_pack(DType dt, float *dst, int64_t ld, const void *src, int64_t row_stride, int64_t rows, int64_t k,
               int64_t ahead);

#endif
