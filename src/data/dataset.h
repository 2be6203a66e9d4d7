// dataset.h: a tokenised data set file (made by dschat-data build): records of each kind, their rows, and the rows'
// tokens. Not collective (all of it).
//
//     /                    attributes format_version, vocab, stop_id (the token that ends an answer, -1: none),
//                          template, longest_sft, _rm, _ppo, _ptx (tokens of the longest row that the stage reads)
//     /samples/tokens      uint32 [t]      all rows end to end
//     /samples/start       int64  [n + 1]  row r is tokens start[r] .. start[r + 1] - 1
//     /samples/span_start  int64  [n + 1]  row r has the spans span_start[r] .. span_start[r + 1] - 1
//     /samples/spans       int64  [m, 2]   first answer token and one past the last, counted within the row
//     /samples/prompt      int64  [n]      tokens before the last answer
//     /samples/stage       uint8  [n]      bit 0 sft, 1 rm, 2 ppo, 3 ptx; 0: none itself (a rejected answer)
//     /samples/eval        uint8  [n]      1: held out
//     /pairs/chosen        int64  [p]      rows, with /pairs/rejected [p]
//     /tokenizer           uint8  [bytes]  as tok_save gives it
//
// A record of DATA_RM is a pair of rows and numbered as in /pairs; a record of another kind is a row. The index is in
// memory, the tokens of small sets too; those of large ones are read as they are asked for. No file stays open.
#ifndef DS_DATASET_H
#define DS_DATASET_H

#include "base/err.h"
#include "token/chat.h"

enum { DATASET_FORMAT = 1 };

typedef enum { DATA_SFT, DATA_RM, DATA_PPO, DATA_PTX, DATA_KINDS } DataKind; // bits of /samples/stage

typedef struct Dataset Dataset;

// Owner: caller, dataset_close (accepts NULL, sets NULL). DS_ERR_IO; DS_ERR_DATA: not a data set, or its numbers do not
// fit each other.
Err dataset_open(const char *path, Dataset **out);
void dataset_close(Dataset **d);

// The tokenizer kept in the file, *tok = NULL if there is none. Owner: caller, tok_free. DS_ERR_DATA, DS_ERR_IO.
Err dataset_tokenizer(const Dataset *d, Tokenizer **tok);

int64_t dataset_vocab(const Dataset *d); // its tokens are below this
int32_t dataset_stop_id(const Dataset *d);
const ChatText *dataset_template(const Dataset *d); // as the builder was told; lives as long as d

// Records of a kind in the training (held-out) part; the i-th of them as a record number.
int64_t dataset_count(const Dataset *d, DataKind kind, bool eval);
int64_t dataset_record(const Dataset *d, DataKind kind, bool eval, int64_t i);

// Tokens of the longest record of a kind (a pair: of both rows), held-out ones included; 0 if there is none.
int64_t dataset_longest(const Dataset *d, DataKind kind);

// Tokens of the longest row that a stage reads (rm: of the rows of its pairs; ppo: a prompt), held-out ones included: a
// model needs as many positions. *row: which, -1 and 0 tokens if there is none.
int64_t dataset_longest_row(const Dataset *d, DataKind kind, int64_t *row);
// DS_ERR_DATA if `model` ("the actor (models/x.h5)") has fewer positions than that.
Err dataset_check_positions(const Dataset *d, DataKind kind, int64_t positions, const char *model);

// The same from an index in the making, and the name of the attribute that keeps it.
typedef struct {
    int64_t n, n_pairs;
    const int64_t *start, *prompt, *chosen, *rejected;
    const uint8_t *stage;
} DatasetIndex;
int64_t dataset_index_longest(const DatasetIndex *x, DataKind kind, int64_t *row);
const char *dataset_longest_name(DataKind kind); // "longest_sft"
const char *dataset_kind_name(DataKind kind);    // "sft"

// Tokens of a record of the training part in the mean; 0 if there is none.
double dataset_mean(const Dataset *d, DataKind kind);

// The rows of a pair (a DATA_RM record).
void dataset_pair(const Dataset *d, int64_t pair, int64_t *chosen, int64_t *rejected);

// Rows in all; of one: tokens, tokens before the last answer, answer tokens that have a token before them.
int64_t dataset_rows(const Dataset *d);
int64_t dataset_length(const Dataset *d, int64_t row);
int64_t dataset_prompt_length(const Dataset *d, int64_t row);
int64_t dataset_counted(const Dataset *d, int64_t row);

// Bits of DataKind: which stages take the row (0: a rejected answer); whether it is held out.
int dataset_stages(const Dataset *d, int64_t row);
bool dataset_held_out(const Dataset *d, int64_t row);

// The answers of a row, *spans: [n, 2], a view that lives as long as d. Returns n.
int64_t dataset_spans(const Dataset *d, int64_t row, const int64_t **spans);

// ids = the tokens of row[n], end to end. DS_ERR_DATA: a token outside the vocabulary; DS_ERR_IO.
Err dataset_read(Dataset *d, const int64_t *row, int64_t n, int32_t *ids);

// The prompt of a row into fresh memory, ids[*n]. Owner: caller, mem_free. DS_ERR_DATA, DS_ERR_IO.
Err dataset_prompt(Dataset *d, int64_t row, int32_t **ids, int64_t *n);

#endif
