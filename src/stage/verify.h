// verify.h: [job] verify: the files that the job will read, checked against the hashes in them before it begins: data
// sets with their tokenizers, and models. What a stage reads is checked as it is read, too (h5_sums.h, h5_parts.h);
// here damage is found before the first stage and not hours later.
#ifndef DS_VERIFY_H
#define DS_VERIFY_H

#include "stage/stage.h"

enum { VERIFY_SECONDS = 60 }; // of each rank, at most

// stages_left: bits of [job] stages that are not done. Blocks are shared out over the ranks; each stops after
// VERIFY_SECONDS, and rank 0 says how much of it was verified, and which files have no hashes. Missing files are left
// to those who open them. DS_ERR_DATA: damage; DS_ERR_IO. Collective on run->world; all ranks return the same code.
Err verify_inputs(const Run *run, int stages_left);

#endif
