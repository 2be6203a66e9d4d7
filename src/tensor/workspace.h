// workspace.h: device memory that several users take turns in: activations of one model after another, the KV cache
// during generation. What a user left there is lost when the next one comes. Not collective.
#ifndef DS_WORKSPACE_H
#define DS_WORKSPACE_H

#include "kernels/kernels.h"

// {.k = kernels} is an empty one. Owner: caller, workspace_destroy.
typedef struct {
    const Kernels *k; // view
    Dev *data;        // NULL until it is needed, and after workspace_release
    size_t bytes;
} Workspace;

// At least so many bytes; when it grows it moves, and users must look at `data` again.
void workspace_need(Workspace *a, size_t bytes);
void workspace_destroy(Workspace *a); // accepts an empty one
// Gives the memory back until the next workspace_need, which takes as much again.
void workspace_release(Workspace *a);

#endif
