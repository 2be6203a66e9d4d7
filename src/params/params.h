// params.h: the params file of a job as one struct, made of params.def. Not collective: each rank may read the file, or
// be handed its text. Members are named after the keys: [job] out is p->job.out, [ppo] kl_coef p->ppo.kl_coef; the keys
// that sections share lie in a common type: [sft] lr is p->sft.train.lr, [actor] dtype p->actor.common.dtype.
// After params_load every value is legal by itself and beside the others, and nothing is left for the reader to guess:
//   job.name, job.out    filled in                          common.init         never INIT_AUTO
//   arch_kv_heads, _ffn  the number meant by 0              ptx_batch           the number meant by 0
//   sft_file .. ptx_file the file meant by ""               order_seed          the number meant by 0
//   warmup_steps, _ratio at most one is above 0, and none with schedule = constant
#ifndef DS_PARAMS_H
#define DS_PARAMS_H

#include "params/keytable.h"

// ---- types, all made of params.def ----
// Members of a struct: MODEL_ROWS and TRAIN_ROWS make the two shared types, the sections the rest.
#define BOOL_AT(S, P, NAME, DEF, HELP) bool NAME;
#define INT_AT(S, P, NAME, DEF, MIN, MAX, UNIT, HELP) int64_t NAME;
#define REAL_AT(S, P, NAME, DEF, MIN, MAX, UNIT, HELP) double NAME;
#define TEXT_AT(S, P, NAME, DEF, HELP) char *NAME;
#define ENUM_AT(S, P, NAME, TYPE, LIST, DEF, HELP) TYPE NAME;
#define SET_AT(S, P, NAME, LIST, DEF, HELP) int NAME;
#define TEXTS_AT(S, P, NAME, DEF, HELP) TextList NAME;
#define SECTION(S, HELP) struct {
#define MODEL(S, PREVIOUS) ModelParams common;
#define TRAIN(S, BATCH, LR, WARMUP) TrainParams train;
#define END(S) } S;

#define PARAMS_DEF_LISTS
#include "params/params.def"

#define PARAMS_CONSTANT(NAME, WORD) NAME,
typedef enum { LIST_STAGES(PARAMS_CONSTANT) STAGE_KINDS } StageKind; // job.stages has bit 1 << kind
typedef enum { LIST_ISA(PARAMS_CONSTANT) } Isa;
typedef enum { LIST_DEVICE(PARAMS_CONSTANT) } Device;
typedef enum { LIST_BIND(PARAMS_CONSTANT) } BindForm;
typedef enum { LIST_REDUCE(PARAMS_CONSTANT) } ReduceForm;
typedef enum { LIST_INIT(PARAMS_CONSTANT) } ModelInit;
typedef enum { LIST_RECOMPUTE(PARAMS_CONSTANT) } Recompute;
typedef enum { LIST_OFFLOAD(PARAMS_CONSTANT) } Offload;
typedef enum { LIST_QUANT(PARAMS_CONSTANT) QUANT_KINDS } Quant;
typedef enum { LIST_FAMILY(PARAMS_CONSTANT) } FamilyKey; // the values of ArchFamily
typedef enum { LIST_SCHEDULE(PARAMS_CONSTANT) } Schedule;
typedef enum { LIST_LOSS_ON(PARAMS_CONSTANT) } LossOn;
typedef enum { LIST_RM_LOSS(PARAMS_CONSTANT) } RmLoss;
typedef enum { LIST_KL_ESTIMATOR(PARAMS_CONSTANT) } KlEstimator;
typedef enum { LIST_KL_CONTROL(PARAMS_CONSTANT) } KlControl;
typedef enum { LIST_WHITEN(PARAMS_CONSTANT) } Whiten;
typedef enum { LIST_REWARD_SOURCE(PARAMS_CONSTANT) } RewardSource;
typedef enum { LIST_PRESET(PARAMS_CONSTANT) } Preset;
typedef enum { LIST_VERIFY(PARAMS_CONSTANT) } VerifyForm;
typedef enum { LIST_FILES(PARAMS_CONSTANT) } CheckpointFiles;
typedef enum { LIST_GATHER(PARAMS_CONSTANT) } GatherForm;
typedef enum { LIST_MACHINE(PARAMS_CONSTANT) } MachinePreset;
#undef PARAMS_CONSTANT

// Keys of [actor] [critic] [reference] [reward].
typedef struct { MODEL_ROWS(any, any, "") } ModelParams;

// Keys of [sft] [rm] [ppo].
typedef struct { TRAIN_ROWS(any, any, "", "", "") } TrainParams;

typedef struct Params {
#include "params/params.def"
    KeySource *from; // where each value came from, by key of params_table()
    char *path;      // of the params file, for messages
} Params;

// ---- functions ----

// Reads and validates the file, with overrides[n] ("section.key=value") on top. DS_ERR_PARAMS: the first error, named
// with file, line, key, what was expected and the closest legal word; DS_ERR_IO: the file cannot be read. *out is NULL
// then. Owner: caller, params_free.
Err params_load(const char *path, int n_overrides, char **overrides, Params **out);

// The file's text, for params_parse. DS_ERR_PARAMS: there is no such file, or it is too large; DS_ERR_IO. Owner:
// caller, mem_free.
Err params_read(const char *path, char **text, size_t *bytes);

// params_load from text[bytes], the content of the file `path` (used for messages and the run's name only).
Err params_parse(const char *path, const char *text, size_t bytes, int n_overrides, char **overrides, Params **out);

// For programs that ask a model of a file: overrides[n] on the defaults. Each key is checked by itself; what joins keys
// of a job (the lengths of answers and a new model's positions, data sets of stages ...) is not: the model has its own.
// As params_load.
Err params_asking(int n_overrides, char **overrides, Params **out);
// What params_text gave, the values as they stand there: nothing is filled in or checked beside each other. Keys that
// only another version has are passed over; text[bytes] has a NUL after it. Owner: caller, params_free.
Err params_recall(const char *path, const char *text, size_t bytes, Params **out);

// Accepts NULL, sets *p to NULL.
void params_free(Params **p);

// The table of all keys.
const KeyTable *params_table(void);

// Bits of an element that travels so; 0: it travels as it is.
int params_quant_bits(Quant q);

// True if the file or the command line gave this key ("section.key"). An unknown key is a bug.
bool params_was_set(const Params *p, const char *key);

// Calls say(line, user) for each key that the preset set: "ppo.lam = 1 (preset openrlhf; default 0.95)".
void params_list_preset(const Params *p, void (*say)(const char *line, void *user), void *user);

void params_print_keys(FILE *f);     // for --keys
void params_write_template(FILE *f); // inputs/params.in: every key with default, unit and meaning

// Every key as used and, with_sources, where it came from: what params_load reads. Owner: caller, mem_free.
char *params_text(const Params *p, bool with_sources);

// SHA-256 (64 hexadecimal digits) of the keys as used, without comments: equal for equal runs wherever the values came
// from. Owner: caller, mem_free.
char *params_hash(const Params *p);

#endif
