// workspace.c: see workspace.h.
#include "tensor/workspace.h"

void workspace_need(Workspace *a, size_t bytes) {
    if (a->data && bytes <= a->bytes) return;
    workspace_release(a);
    a->bytes = bytes > a->bytes ? bytes : a->bytes;
    a->data = a->k->mem_create(a->bytes, MEM_ACTIVATIONS);
}

void workspace_release(Workspace *a) {
    if (a->data) a->k->mem_destroy(a->data);
    a->data = NULL;
}

void workspace_destroy(Workspace *a) {
    workspace_release(a);
    *a = (Workspace){.k = a->k};
}
