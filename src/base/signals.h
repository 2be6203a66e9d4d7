// signals.h: signals that a program answers, taken by a thread of their own.
//
// No handler ever runs on a thread that computes: oneDNN (2.6.3, sgemm) runs its kernels with the stack pointer inside
// a block of the heap, and the frame of a handler (3 KB with AVX-512) would lie below it, over other blocks.
#ifndef DS_SIGNALS_H
#define DS_SIGNALS_H

// Calls on(sig) in a thread of its own whenever one of the n signals arrives; they are blocked in every thread that is
// started later. Call it once, before the program has any other thread (MPI's, OpenMP's). `on` sets flags or ends the
// program, no more. Not collective.
void signals_watch(int n, const int *signals, void (*on)(int sig));

#endif
