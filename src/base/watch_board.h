// watch_board.h: what the watchdogs of a job tell each other: one slot a rank, in memory that the ranks of a node
// share. A slot is written by its rank's watchdog only (those of other nodes by the courier, watch_files.h). Not
// collective.
#ifndef DS_WATCH_BOARD_H
#define DS_WATCH_BOARD_H

#include <stdatomic.h>

#include "base/types.h"

// Nothing is known of it | it runs | it ends, and has said why | it is ready to end with the others | its work is done,
// it waits for the others' | it knows that all are done, and leaves.
enum { WATCH_NONE, WATCH_RUNS, WATCH_FATAL, WATCH_READY, WATCH_ENDED, WATCH_LEAVES };

// Where a rank is, in words. Those of a slot may change while they are read: see watch_board_copy.
typedef struct {
    int64_t step;
    char stage[8], doing[40], what[100], host[36];
} WatchWords;

typedef struct {
    _Atomic uint64_t beat;        // grows while its watchdog runs
    _Atomic uint64_t group, call; // the exchange that it waits in; 0: none
    _Atomic int32_t state, waits, overdue, pid;
    _Atomic float quiet, idle; // seconds: since it moved; since its main thread used the processor
    WatchWords words;
} WatchSlot;

typedef struct {
    uint64_t mark;          // of this job
    int32_t size;           // ranks of the job
    _Atomic int32_t fired;  // 1 + the rank that ends the job
    _Atomic double leave;   // the time of the node's clock when all leave; 0: not yet known
    _Atomic uint64_t round; // of the courier: how often it brought news of other nodes
    WatchSlot slot[];       // [size]
} WatchBoard;

size_t watch_board_bytes(int size);

// A slot or its words, from or into the board, while another thread may write or read there: text may come out half of
// one moment and half of the next, a number does not. Both at multiples of 8, as bytes is.
void watch_board_copy(void *to, const void *from, size_t bytes);

// What an observer remembers of each slot.
typedef struct {
    uint64_t beat;
    double at;  // the observer's time when the beat last changed, of ranks of this node
    double age; // seconds without a new beat in the courier's news, of others
    bool local; // on this node
    bool there; // its process was seen alive, so that its end can be seen too
} WatchMemory;

#endif
